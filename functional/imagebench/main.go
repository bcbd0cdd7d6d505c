package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gantry-project/gantry/functional/measure"
)

func main() {
	b := &bench{report: &measure.Report{Out: os.Stdout}}
	flag.StringVar(&b.gantry, "gantry", "", "the gantry binary")
	flag.StringVar(&b.work, "work", "", "an empty directory on a file system that overlay can use")
	flag.IntVar(&b.rounds, "n", 3, "rounds of each timed thing")
	flag.Int64Var(&b.large, "large", 2<<30, "size of the large root (bytes)")
	flag.StringVar(&b.only, "only", "debian,large,disk,commit,flat", "sections")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-images:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	gantry, work, only string
	rounds             int
	large              int64
	report             *measure.Report
	log                *os.File
	engine, docker     *exec.Cmd
}

func (b *bench) run(ctx context.Context) (err error) {
	if os.Geteuid() != 0 || b.gantry == "" || b.work == "" {
		return errors.New("needs root, -gantry and -work; see functional/bench-images")
	}
	if b.log, err = os.Create(filepath.Join(b.work, "commands.log")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.log.Close()) }()
	defer b.stop()
	if err := b.start(ctx); err != nil {
		return err
	}
	for _, section := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"debian", b.debian}, {"large", b.largeRoot}, {"disk", b.disk}, {"commit", b.commit}, {"flat", b.flat},
	} {
		if !strings.Contains(","+b.only+",", ","+section.name+",") {
			continue
		}
		b.report.Say("== %s\n", section.name)
		if err := section.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", section.name, err)
		}
	}
	if !b.report.Print() {
		return errors.New("a bar was missed")
	}
	return nil
}

// start brings up our engine and docker's.
func (b *bench) start(ctx context.Context) error {
	b.engine = exec.Command(b.gantry, "engine", "--store-path", b.path("store"), "--cgroup", "gantry-bench-images")
	b.docker = exec.Command("dockerd", "--data-root", b.path("docker"), "--exec-root", b.path("exec"), "--pidfile", b.path("docker.pid"),
		"-H", "unix://"+b.path("docker.sock"), "--exec-opt", "native.cgroupdriver=cgroupfs", "--storage-driver", "overlay2")
	for _, c := range []*exec.Cmd{b.engine, b.docker} {
		c.Stdout, c.Stderr = b.log, b.log
		if err := c.Start(); err != nil {
			return err
		}
	}
	return errors.Join(b.await(ctx, b.ours("ps")), b.await(ctx, b.theirs("version")))
}

func (b *bench) path(name string) string { return filepath.Join(b.work, name) }

func (b *bench) await(ctx context.Context, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if exec.CommandContext(ctx, args[0], args[1:]...).Run() == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer", args[0])
		case <-tick.C:
		}
	}
}

func (b *bench) stop() {
	for _, c := range []*exec.Cmd{b.engine, b.docker} {
		if c != nil && c.Process != nil {
			_ = c.Process.Signal(os.Interrupt)
			_ = c.Wait()
		}
	}
}

func (b *bench) ours(args ...string) []string {
	return append([]string{b.gantry, args[0], "--store-path", b.path("store")}, args[1:]...)
}

func (b *bench) oursImage(args ...string) []string {
	return append([]string{b.gantry, "image", args[0], "--store-path", b.path("store")}, args[1:]...)
}

func (b *bench) theirs(args ...string) []string {
	return append([]string{"docker", "-H", "unix://" + b.path("docker.sock")}, args...)
}

func (b *bench) podman(args ...string) []string {
	return append([]string{
		"podman", "--root", b.path("podman/root"), "--runroot", b.path("podman/run"), "--tmpdir", b.path("podman/tmp"),
		"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "crun",
	}, args...)
}

func (b *bench) ctr(args ...string) []string {
	return append([]string{"ctr", "-a", b.path("exec/containerd/containerd.sock"), "-n", "bench"}, args...)
}

// must runs a command whose time does not matter.
func (b *bench) must(ctx context.Context, args ...string) error {
	var said bytes.Buffer
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Stdout, c.Stderr = b.log, &said
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// contender is one way to do a thing.
type contender struct {
	name string
	// do is timed, undo makes it as before.
	do, undo []string
}

// race times the contenders in turn, b.rounds times, each on a quiet disk.
func (b *bench) race(ctx context.Context, contenders []contender) []*measure.Series {
	out := make([]*measure.Series, len(contenders))
	for i, c := range contenders {
		out[i] = &measure.Series{Name: c.name}
	}
	for range b.rounds {
		for i, c := range contenders {
			if out[i].Failed != nil || ctx.Err() != nil {
				continue
			}
			syscall.Sync()
			began := time.Now()
			err := b.must(ctx, c.do...)
			took := time.Since(began)
			if err == nil {
				out[i].Values = append(out[i].Values, took)
			}
			if c.undo != nil {
				err = errors.Join(err, b.must(ctx, c.undo...))
			}
			out[i].Failed = err
		}
	}
	for _, s := range out {
		b.report.Add(s)
	}
	return out
}
