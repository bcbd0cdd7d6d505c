package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/functional/measure"
)

// session is one run of the program.
type session struct {
	settings
	peers  *peers
	ours   *ours
	log    *os.File
	report *measure.Report
	serial int
}

// name is a name for a container that was not used before.
func (b *session) name() string {
	b.serial++
	return fmt.Sprint("bench", b.serial)
}

// A turn is one contender in a section: time does it once and tidies up
// outside of what it times.
type turn struct {
	name string
	time func(ctx context.Context) (time.Duration, error)
}

// turns lets the contenders do it rounds times, in an order that changes; the
// first round warms up. A contender that fails is out.
func (b *session) turns(ctx context.Context, rounds int, list ...turn) []*measure.Series {
	out := make([]*measure.Series, len(list))
	for i, t := range list {
		out[i] = &measure.Series{Name: t.name}
	}
	for round := range rounds + 1 {
		for _, i := range rand.Perm(len(list)) {
			if out[i].Failed != nil || ctx.Err() != nil {
				continue
			}
			d, err := list[i].time(ctx)
			if err != nil {
				out[i].Failed = err
			} else if round > 0 {
				out[i].Values = append(out[i].Values, d)
			}
		}
	}
	for _, s := range out {
		b.report.Add(s)
	}
	return out
}

func timed(fn func() error) (time.Duration, error) {
	began := time.Now()
	err := fn()
	return time.Since(began), err
}

// command is a turn that runs a command, with %s for a fresh name; after may
// be nil.
func (b *session) command(name string, args []string, after func(id string) error) turn {
	return turn{name, func(context.Context) (time.Duration, error) {
		id := b.name()
		filled := make([]string, len(args))
		for i, a := range args {
			filled[i] = strings.ReplaceAll(a, "%s", id)
		}
		start := b.peers.spawner.spawn
		if filled[0] == b.gantry || filled[0] == b.runtime() {
			start = func(args ...string) (time.Duration, error) { return spawn(b.log, args...) }
		}
		d, err := start(filled...)
		if err == nil && after != nil {
			err = after(id)
		}
		return d, err
	}}
}

// runtime is the small program beside gantry.
func (b *session) runtime() string { return b.gantry + "-runtime" }

func (b *session) bundle(name string) string { return filepath.Join(b.work, "bundle", name) }

// start: one container inside the service, and a whole run as a command.
func (b *session) start(ctx context.Context) error {
	filter := filepath.Join(b.work, "filter")
	if err := writeFilter(filter); err != nil {
		return err
	}
	floorDir := filepath.Join(b.work, "floor.work")
	if err := os.MkdirAll(floorDir, 0o755); err != nil {
		return err
	}
	inside := turn{"gantry, inside the service: create and start", func(ctx context.Context) (time.Duration, error) {
		id := b.name()
		d, err := timed(func() error { return b.ours.begin(ctx, id, sleeper()) })
		return d, errors.Join(err, b.ours.engine.Delete(ctx, engine.ContainerID(id)))
	}}
	floor := turn{"floor: bare C, the same system calls", func(context.Context) (time.Duration, error) {
		// the second of two: the first pays for the program's own start
		out, err := exec.CommandContext(ctx, b.floor, "2", floorDir, filepath.Join(b.work, "bb"), filter).Output()
		if err != nil {
			return 0, err
		}
		lines := strings.Fields(string(out))
		us, err := strconv.Atoi(lines[len(lines)-1])
		return time.Duration(us) * time.Microsecond, err
	}}
	res := b.turns(ctx, b.rounds, inside, floor,
		b.command("gantry runtime run true", []string{b.gantry, "runtime", "run", "-b", b.bundle("true"), "%s"}, nil),
		b.command("crun run true", []string{"crun", "run", "-b", b.bundle("true"), "%s"}, nil),
		b.command("runc run true", []string{"runc", "run", "-b", b.bundle("true"), "%s"}, nil),
		b.command("gantry-runtime run true", []string{b.runtime(), "run", "-b", b.bundle("true"), "%s"}, nil),
	)
	b.report.Ratio("create to running inside the service / crun run", res[0], res[3], 0.25)
	b.report.Ratio("create to running inside the service / floor", res[0], res[1], 1.6)
	b.report.Ratio("gantry runtime run / crun run", res[2], res[3], 0.6)
	b.report.Ratio("gantry runtime run / runc run", res[2], res[4], 0.35)
	b.report.Ratio("gantry-runtime run / crun run", res[5], res[3], 0.6)
	b.report.Ratio("gantry-runtime run / runc run", res[5], res[4], 0.35)
	return nil
}

// socket: a request on the service's socket to running.
func (b *session) socket(ctx context.Context) error {
	docker := b.peers.dockerArgs("run", "-d", "--name", "%s", "--network", "none", peerImage, "sleep", "1000000")
	podman := b.peers.podmanArgs("run", "-d", "--name", "%s", "--network", "none", peerImage, "sleep", "1000000")
	res := b.turns(ctx, max(5, b.rounds/3),
		turn{"gantry, request on the socket to running", func(ctx context.Context) (time.Duration, error) {
			id := b.name()
			d, err := timed(func() error { return b.ours.ask(ctx, id, "/bin/sleep", "1000000") })
			return d, errors.Join(err, b.ours.remove(ctx, id))
		}},
		b.command("docker run -d --network none", docker, func(id string) error {
			return b.peers.spawner.run(b.peers.dockerArgs("rm", "-f", id)...)
		}),
		b.command("podman run -d --network none (crun)", podman, func(id string) error {
			return b.peers.spawner.run(b.peers.podmanArgs("rm", "-f", "-t", "0", id)...)
		}),
	)
	b.report.Ratio("request on the socket to running / docker run -d", res[0], res[1], 1.0/40)
	return nil
}

// obeys ends at once when it is asked to.
var obeys = []string{"/bin/sh", "-c", "trap 'exit 0' TERM; echo ready; read x"}

// ops: what is asked of a running container.
func (b *session) ops(ctx context.Context) error {
	const id, peer = "ops", "benchops"
	if err := b.ours.begin(ctx, id, sleeper()); err != nil {
		return err
	}
	if err := b.ours.ask(ctx, id, "/bin/sleep", "1000000"); err != nil {
		return err
	}
	if err := b.peers.spawner.run("crun", "run", "-d", "-b", b.bundle("sleep"), peer); err != nil {
		return err
	}
	e := b.ours.engine
	res := b.turns(ctx, b.rounds,
		turn{"gantry, inside: exec true, to its end", func(ctx context.Context) (time.Duration, error) {
			return timed(func() error {
				s, err := e.Exec(ctx, id, engine.ExecRequest{Args: []string{"/bin/true"}})
				if err != nil {
					return err
				}
				_, err = e.ExecWait(ctx, id, s.ID)
				return err
			})
		}},
		b.command("gantry exec true", []string{b.gantry, "exec", "--store-path", b.ours.root, id, "/bin/true"}, nil),
		b.command("crun exec true", []string{"crun", "exec", peer, "/bin/true"}, nil),
		b.command("docker version (a round trip of its client)", b.peers.dockerArgs("version"), nil),
		turn{"gantry, inside: pause", func(ctx context.Context) (time.Duration, error) {
			d, err := timed(func() error { return e.Pause(ctx, id) })
			return d, errors.Join(err, e.Resume(ctx, id))
		}},
		turn{"gantry, inside: stop of a process that obeys", func(ctx context.Context) (time.Duration, error) {
			return b.stopOne(ctx)
		}},
		turn{"gantry, inside: delete of a stopped container", func(ctx context.Context) (time.Duration, error) {
			one := b.name()
			if err := b.ours.begin(ctx, one, engine.StartRequest{Args: []string{"/bin/true"}}); err != nil {
				return 0, err
			}
			if _, err := e.Wait(ctx, engine.ContainerID(one)); err != nil {
				return 0, err
			}
			return timed(func() error { return e.Delete(ctx, engine.ContainerID(one)) })
		}},
	)
	b.report.Ratio("exec into a running one / crun exec", res[0], res[2], 0.5)
	b.report.Below("pause", res[4].Median().Seconds()*1000, 1, "ms")
	b.report.Below("stop of a process that obeys", res[5].Median().Seconds()*1000, 5, "ms")
	b.report.Below("delete", res[6].Median().Seconds()*1000, 5, "ms")
	return errors.Join(e.Delete(ctx, id), b.ours.remove(ctx, id), b.peers.spawner.run("crun", "delete", "-f", peer))
}

// stopOne times the stop of a process that has said that it is ready.
func (b *session) stopOne(ctx context.Context) (time.Duration, error) {
	id := engine.ContainerID(b.name())
	if err := b.ours.begin(ctx, string(id), engine.StartRequest{Args: obeys, Env: []string{"PATH=/bin"}}); err != nil {
		return 0, err
	}
	logs, err := b.ours.engine.Logs(ctx, id, engine.LogsRequest{Follow: true})
	if err != nil {
		return 0, err
	}
	_, err = logs.Read(make([]byte, 64))
	_ = logs.Close()
	if err != nil {
		return 0, err
	}
	d, err := timed(func() error {
		return b.ours.engine.Stop(ctx, id, engine.StopRequest{Timeout: 10 * time.Second})
	})
	return d, errors.Join(err, b.ours.engine.Delete(ctx, id))
}

// workers runs n jobs by count workers, and times them all.
func workers(ctx context.Context, count, n int, job func(ctx context.Context, i int) error) (time.Duration, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(count)
	return timed(func() error {
		for i := range n {
			g.Go(func() error { return job(ctx, i) })
		}
		return g.Wait()
	})
}

// burst: a hundred containers by two workers.
func (b *session) burst(ctx context.Context) error {
	const n = 100
	res := b.turns(ctx, 3,
		turn{"gantry, 100 by two workers, through the socket", func(ctx context.Context) (time.Duration, error) {
			d, err := workers(ctx, 2, n, func(ctx context.Context, i int) error {
				return b.ours.ask(ctx, fmt.Sprint("burst", i), "/bin/sleep", "1000000")
			})
			_, gone := workers(ctx, 2, n, func(ctx context.Context, i int) error { return b.ours.remove(ctx, fmt.Sprint("burst", i)) })
			return d, errors.Join(err, gone)
		}},
		turn{"crun run -d, 100 by two workers", func(context.Context) (time.Duration, error) {
			var start, remove [][]string
			for i := range n {
				id := fmt.Sprint("benchburst", i)
				start = append(start, []string{"crun", "run", "-d", "-b", b.bundle("sleep"), id})
				remove = append(remove, []string{"crun", "delete", "-f", id})
			}
			d, err := b.peers.spawner.all(2, start)
			_, gone := b.peers.spawner.all(2, remove)
			return d, errors.Join(err, gone)
		}},
	)
	if len(res[0].Values) > 0 && len(res[1].Values) > 0 {
		b.report.Above("burst of 100: containers per second / crun's", float64(res[1].Median())/float64(res[0].Median()), 3, "x")
	}
	return nil
}

// idle: many containers that do nothing.
func (b *session) idle(ctx context.Context) error {
	before, err := b.weigh(nil)
	if err != nil {
		return err
	}
	b.report.Below("idle service, PSS with keeper", before.pss, 30, "MiB")
	var mu sync.Mutex
	took := make([]time.Duration, b.settings.idle)
	all, err := workers(ctx, 2, b.settings.idle, func(ctx context.Context, i int) error {
		d, err := timed(func() error { return b.ours.ask(ctx, fmt.Sprint("idle", i), "/bin/sleep", "1000000") })
		mu.Lock()
		defer mu.Unlock()
		took[i] = d
		return err
	})
	if err != nil {
		return err
	}
	// the 1,000th like the 1st: both by one worker, with the others there
	last := b.turns(ctx, b.rounds, turn{"gantry, start of one more", func(ctx context.Context) (time.Duration, error) {
		id := b.name()
		d, err := timed(func() error { return b.ours.ask(ctx, id, "/bin/sleep", "1000000") })
		return d, errors.Join(err, b.ours.remove(ctx, id))
	}})
	pids, err := b.pids(ctx)
	if err != nil {
		return err
	}
	after, err := b.weigh(pids)
	if err != nil {
		return err
	}
	idle, err := b.idleCPU(ctx)
	if err != nil {
		return err
	}
	n := float64(b.settings.idle)
	b.report.Below(fmt.Sprintf("%d idle: all running", b.settings.idle), all.Seconds(), 5, "s")
	b.report.Below("... user PSS each, service and keeper included", (after.pss-before.pss)*1024/n, 80, "KiB")
	b.report.Below("... kernel memory each", (after.kernel-before.kernel)/n, 650, "KiB")
	b.report.Below("... idle CPU of service and keeper", idle*100, 0.5, "% of a core")
	_, err = workers(ctx, 2, b.settings.idle, func(ctx context.Context, i int) error { return b.ours.remove(ctx, fmt.Sprint("idle", i)) })
	if err != nil {
		return err
	}
	first := b.turns(ctx, b.rounds, turn{"gantry, start of the only one", func(ctx context.Context) (time.Duration, error) {
		id := b.name()
		d, err := timed(func() error { return b.ours.ask(ctx, id, "/bin/sleep", "1000000") })
		return d, errors.Join(err, b.ours.remove(ctx, id))
	}})
	b.report.Ratio(fmt.Sprintf("start beside %d / start of the only one", b.settings.idle), last[0], first[0], 1.5)
	return nil
}

// pids are the first processes of the idle containers.
func (b *session) pids(ctx context.Context) ([]int, error) {
	list, err := b.ours.client.Containers(ctx)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, c := range list {
		if c.Status == engine.StatusRunning {
			out = append(out, c.Pid)
		}
	}
	if len(out) < b.settings.idle {
		return nil, fmt.Errorf("%d of %d containers run", len(out), b.settings.idle)
	}
	return out, nil
}
