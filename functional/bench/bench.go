package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

const (
	// pause is left after a boot and after a delete for what the services still do.
	pause = time.Second
	// agentPeriod is how often the linuxbridge agent looks for new devices by
	// default ([agent] polling_interval). Boots that end with its look and
	// follow one another evenly would all meet the same phase of it.
	agentPeriod = 2 * time.Second
)

// bench is one run.
type bench struct {
	set    settings
	out    io.Writer
	cloud  *cloud
	hose   *firehose
	taps   *taps
	binary string // the copy of gantry that runs
}

// sample is one boot and delete.
type sample struct {
	uuid           string
	boot, gone     time.Duration
	cpu            time.Duration
	split          split
	traced, waited bool
}

// series is what was measured of one service.
type series struct {
	of        *contender
	samples   []sample
	baseline  []sample // of the fake driver, taken in turns with these
	idle      time.Duration
	idleFor   time.Duration
	rss, pss  float64
	processes int
	load      string
	steps     map[string]steps
	failed    error
}

func newBench(ctx context.Context, set settings) (*bench, error) {
	b := &bench{set: set, out: os.Stdout, binary: filepath.Join(set.state, "bench-gantry")}
	if err := copyFile(b.binary, set.gantry); err != nil {
		return nil, err
	}
	var err error
	if b.cloud, err = login(ctx, set.pass); err != nil {
		return nil, err
	}
	if b.taps, err = watchTaps(ctx); err != nil {
		return nil, err
	}
	if b.hose, err = openFirehose(ctx, set); err != nil {
		b.taps.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) close() {
	if err := b.hose.close(context.Background(), b.set); err != nil {
		b.say("firehose: %v", err)
	}
	b.taps.close()
	_ = os.Remove(b.binary)
}

// say writes a line; a reader that went away is no reason to stop.
func (b *bench) say(format string, args ...any) { _, _ = fmt.Fprintf(b.out, format+"\n", args...) }

// all measures each service in turn, each in turns with the fake driver, and
// prints the table. A service that does not come up is told and left out; of
// gantry that is an error.
func (b *bench) all(ctx context.Context) (err error) {
	quiet, err := b.images(ctx)
	if err != nil {
		return err
	}
	fake := b.stock(fakeName, "stock, fake driver", "compute-fake", fakeHost, quiet, "nova-compute-fake")
	if err := fake.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fake.stop(context.WithoutCancel(ctx))) }()
	base := &series{of: fake, load: load()}
	if err := b.prepare(ctx, base); err != nil {
		return err
	}
	all := []*series{base}
	var failures error
	for _, c := range b.others(ctx, quiet) {
		s := &series{of: c, load: load()}
		if s.failed = b.against(ctx, s, base); s.failed != nil {
			b.say("%s: left out: %v", c.title, s.failed)
			if c.log != "" {
				failures = errors.Join(failures, fmt.Errorf("%s: %w", c.name, s.failed))
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		all = append(all, s)
	}
	if err := b.finish(base); err != nil {
		return err
	}
	b.print(all)
	return failures
}

// images returns the image of the hosts that do not need a disk.
func (b *bench) images(ctx context.Context) (string, error) {
	if b.set.image == "" {
		return b.cloud.quietImage(ctx, b.set.state)
	}
	id, err := b.cloud.imageID(ctx, b.set.image)
	if err == nil && id == "" {
		err = fmt.Errorf("no image %s", b.set.image)
	}
	return id, err
}

// others are the services that are compared with the fake driver. libvirt's
// comes first: it and gantry have the agent's host in common, and gantry takes
// over from a nova-compute.
func (b *bench) others(ctx context.Context, image string) []*contender {
	var out []*contender
	if b.set.wants(lxcName) {
		disk, err := b.cloud.imageID(ctx, "busybox-disk")
		if err != nil || disk == "" {
			b.say("stock, libvirt-LXC: left out: no image busybox-disk (%v)", err)
		} else {
			out = append(out, b.stock(lxcName, "stock, libvirt-LXC", "compute-lxc", agentHost, disk, "nova-compute-lxc", "libvirtd", "virtlogd"))
		}
	}
	if b.set.wants(gantryName) {
		out = append(out, b.gantry(gantryName, "gantry", image))
	}
	if b.set.wants(gantryNoWaitName) {
		out = append(out, b.gantry(gantryNoWaitName, "gantry, no wait", image, "DEFAULT.vif_plugging_timeout=0"))
	}
	return out
}

// against measures a service, each boot followed by one of the fake driver.
func (b *bench) against(ctx context.Context, s, base *series) (err error) {
	if err := s.of.start(ctx); err != nil {
		return errors.Join(err, s.of.stop(context.WithoutCancel(ctx)))
	}
	defer func() { err = errors.Join(err, s.of.stop(context.WithoutCancel(ctx))) }()
	if err := b.prepare(ctx, s); err != nil {
		return err
	}
	b.hose.take()
	for n := range b.set.boots {
		if err := rest(ctx, agentPeriod*time.Duration(n)/time.Duration(b.set.boots)); err != nil {
			return err
		}
		for _, one := range []*series{s, base} {
			sam, err := b.once(ctx, one.of)
			if err != nil {
				return err
			}
			one.samples = append(one.samples, sam)
			if one == base {
				s.baseline = append(s.baseline, sam)
			}
		}
		if base.pss == 0 && len(base.samples) == b.set.boots {
			if err := b.weigh(base); err != nil {
				return err
			}
		}
	}
	return errors.Join(b.weigh(s), b.finish(s))
}

// prepare warms the service up and measures it idle.
func (b *bench) prepare(ctx context.Context, s *series) error {
	for range 2 { // the first one fetches the image
		if _, err := b.once(ctx, s.of); err != nil {
			return fmt.Errorf("warm-up: %w", err)
		}
	}
	pids, err := s.of.pids()
	if err != nil {
		return err
	}
	before, err := cpu(pids)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := rest(ctx, b.set.idle); err != nil {
		return err
	}
	after, err := cpu(pids)
	s.idle, s.idleFor = after-before, time.Since(began)
	return err
}

// once boots and deletes one instance.
func (b *bench) once(ctx context.Context, c *contender) (sample, error) {
	var s sample
	pids, err := c.pids()
	if err != nil {
		return s, err
	}
	before, err := cpu(pids)
	if err != nil {
		return s, err
	}
	id, posted, active, err := b.cloud.boot(ctx, "bench-"+c.name, c.host, c.image)
	s.uuid, s.boot = id, active.Sub(posted)
	if err == nil {
		err = rest(ctx, pause)
	}
	if id != "" {
		var gone error
		s.gone, gone = b.cloud.remove(context.WithoutCancel(ctx), id)
		err = errors.Join(err, gone)
	}
	if err != nil {
		return s, err
	}
	if err := rest(ctx, pause); err != nil {
		return s, err
	}
	after, err := cpu(pids)
	s.cpu = after - before
	b.read(&s, c)
	return s, err
}

// read finds the boot in what the broker told.
func (b *bench) read(s *sample, c *contender) {
	var messages []message
	for _, t := range b.hose.take() {
		if m, ok := decode(t); ok {
			messages = append(messages, m)
		}
	}
	s.split, s.traced = splitOf(messages, c.host, s.uuid)
}

// finish completes the splits from the logs.
func (b *bench) finish(s *series) error {
	requests, err := neutronRequests(filepath.Join(b.set.state, "log/neutron-server.log"))
	if err != nil {
		return err
	}
	for i := range s.samples {
		one := &s.samples[i]
		one.split.rest = requests
		up, ok := b.taps.upAt(one.split.port)
		// an event before the device is up, or after the end, was not waited for
		if ok && up.Before(one.split.eventAt) && one.split.eventAt.Before(one.split.active) {
			one.split.wait, one.waited = span{up, one.split.eventAt, "wait for network-vif-plugged"}, true
		}
	}
	if s.of.log != "" {
		s.steps, err = gantrySteps(s.of.log)
	}
	return err
}

func (b *bench) weigh(s *series) error {
	pids, err := s.of.pids()
	if err != nil {
		return err
	}
	s.rss, s.pss, s.processes, err = memory(pids)
	return err
}

// rest waits, or ends early with ctx.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// copyFile copies a program.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// load is the load of the machine.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	return string(text[:min(len(text), 14)])
}
