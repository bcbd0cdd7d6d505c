package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/gantry-project/gantry/functional/measure"
	"github.com/gantry-project/gantry/netbridge/fabric"
)

// The bars of the project.
const (
	setUpMS      = 8.0
	setUpRatio   = 1.0 / 5
	manyRatio    = 1.5
	groupMS      = 50.0
	groupMembers = 200
)

type bench struct {
	work         string
	many, rounds int
	seconds      time.Duration
	report       *measure.Report
	ours         *ours
	docker       *docker
}

func main() {
	b := &bench{report: &measure.Report{Out: os.Stdout}}
	flag.StringVar(&b.work, "work", "", "directory for what is made")
	flag.IntVar(&b.many, "many", 500, "instances beside the one that is measured")
	flag.IntVar(&b.rounds, "rounds", 30, "how often each thing is done")
	flag.DurationVar(&b.seconds, "stream", 2*time.Second, "how long a stream flows, three times")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := b.run(ctx)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "netbench:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context) (bool, error) {
	var err error
	if b.ours, err = newOurs(ctx, b.work); err != nil {
		return false, err
	}
	if b.docker, err = newDocker(ctx, b.work); err != nil {
		return false, err
	}
	defer b.docker.stop()
	for _, section := range []func(context.Context) error{b.traffic, b.setUp, b.group} {
		if err := section(ctx); err != nil {
			return false, err
		}
	}
	return b.report.Print(), nil
}

// timed adds how long f took.
func timed(s *measure.Series, f func() error) error {
	begin := time.Now()
	err := f()
	if err == nil {
		s.Values = append(s.Values, time.Since(begin))
	}
	return err
}

// cycle sets the network of one instance up and takes it down.
func (b *bench) cycle(ctx context.Context, n int, name string) (up, down *measure.Series, err error) {
	up, down = &measure.Series{Name: "set up, " + name}, &measure.Series{Name: "take down, " + name}
	for range b.rounds {
		var g *guest
		if err := timed(up, func() (err error) {
			g, err = b.ours.up(ctx, n)
			return err
		}); err != nil {
			return nil, nil, err
		}
		if err := timed(down, func() error { return b.ours.down(ctx, g) }); err != nil {
			return nil, nil, err
		}
	}
	b.report.Add(up)
	b.report.Add(down)
	return up, down, nil
}

func (b *bench) setUp(ctx context.Context) error {
	b.report.Say("network of one instance:\n")
	first, firstDown, err := b.cycle(ctx, 60000, "the first")
	if err != nil {
		return err
	}
	theirs, theirsDown := &measure.Series{Name: "connect, docker"}, &measure.Series{Name: "disconnect, docker"}
	id, err := b.docker.run(ctx)
	if err != nil {
		return err
	}
	for range b.rounds {
		if err := timed(theirs, func() error { return b.docker.connect(ctx, id) }); err != nil {
			return err
		}
		if err := timed(theirsDown, func() error { return b.docker.disconnect(ctx, id) }); err != nil {
			return err
		}
	}
	b.report.Add(theirs)
	b.report.Add(theirsDown)
	for n := len(b.ours.made); n < b.many; n++ {
		g, err := b.ours.up(ctx, n)
		if err != nil {
			return err
		}
		b.ours.made = append(b.ours.made, g)
	}
	last, lastDown, err := b.cycle(ctx, 60000, fmt.Sprintf("beside %d", b.many))
	if err != nil {
		return err
	}
	b.report.Below("set up", measure.MS(first.Median()), setUpMS, "ms")
	b.report.Ratio("set up, of docker's", first, theirs, setUpRatio)
	b.report.Ratio("take down, of docker's", firstDown, theirsDown, setUpRatio)
	b.report.Ratio("set up beside many, of the first", last, first, manyRatio)
	b.report.Ratio("take down beside many, of the first", lastDown, firstDown, manyRatio)
	return nil
}

// group changes one member among many, there and back.
func (b *bench) group(ctx context.Context) error {
	var members []netip.Prefix
	for n := range groupMembers {
		members = append(members, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(n)}), 32)) //nolint:gosec // few
	}
	s := &measure.Series{Name: fmt.Sprintf("a group of %d gains and loses one", groupMembers)}
	for n := range b.rounds {
		if err := timed(s, func() error {
			return b.ours.fabric.SetGroup(ctx, fabric.Group{ID: group, Members: slices.Clone(members[n%2:])})
		}); err != nil {
			return err
		}
	}
	b.report.Add(s)
	b.report.Below("change of a group with 200 members", measure.MS(s.Median()), groupMS, "ms")
	return nil
}

// traffic is TCP between two instances, and to a machine outside.
func (b *bench) traffic(ctx context.Context) error {
	var guests [2][2]*guest
	for n := range 2 {
		var err error
		if guests[0][n], err = b.ours.up(ctx, n); err != nil {
			return err
		}
		b.ours.made = append(b.ours.made, guests[0][n])
		if guests[1][n], err = b.docker.guest(ctx); err != nil {
			return err
		}
	}
	far := netip.MustParseAddr(outside)
	for _, way := range []struct {
		name string
		to   [2]*os.File
		at   [2]netip.Addr
	}{
		{"instance to instance", [2]*os.File{guests[0][1].ns, guests[1][1].ns}, [2]netip.Addr{guests[0][1].ip, guests[1][1].ip}},
		{"instance to a machine outside", [2]*os.File{b.ours.outside, b.docker.outside}, [2]netip.Addr{far, far}},
	} {
		var rates [2][]float64
		var trips [2][]time.Duration
		for range 3 { // in turns, so that both see the same machine
			for who := range 2 {
				rate, trip, err := b.between(ctx, guests[who][0].ns, way.to[who], way.at[who])
				if err != nil {
					return fmt.Errorf("%s, %s: %w", way.name, [2]string{"ours", "docker"}[who], err)
				}
				rates[who], trips[who] = append(rates[who], rate), append(trips[who], trip)
			}
		}
		for who, name := range []string{"ours", "docker"} {
			slices.Sort(rates[who])
			slices.Sort(trips[who])
			b.report.Say("  %-58s %8.2f Gbit/s, %.1f us there and back\n", way.name+", "+name, rates[who][1], float64(trips[who][1])/1e3)
		}
		b.report.Above(way.name+": throughput, of docker's", rates[0][1]/rates[1][1], 1, "x")
		b.report.Below(way.name+": latency, of docker's", float64(trips[0][1])/float64(trips[1][1]), 1, "x")
	}
	return nil
}

func (b *bench) between(ctx context.Context, from, to *os.File, at netip.Addr) (rate float64, trip time.Duration, err error) {
	p, err := join(ctx, from, to, at)
	if err != nil {
		return 0, 0, err
	}
	defer p.close()
	if rate, err = p.stream(b.seconds); err != nil {
		return 0, 0, err
	}
	q, err := join(ctx, from, to, at)
	if err != nil {
		return 0, 0, err
	}
	defer q.close()
	trip, err = q.trip(10000)
	return rate, trip, err
}
