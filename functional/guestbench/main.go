package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gantry-project/gantry/functional/measure"
)

// bench is one run.
type bench struct {
	gantry string
	// work holds root, the tree that all boot, and root.tar, the same.
	work   string
	rounds int
	log    *os.File
	report *measure.Report
}

func main() {
	b := &bench{report: &measure.Report{Out: os.Stdout}}
	flag.StringVar(&b.gantry, "gantry", "", "the gantry binary")
	flag.StringVar(&b.work, "work", "", "a directory with root and root.tar")
	flag.IntVar(&b.rounds, "n", 10, "boots of each")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	held, err := b.run(ctx)
	stop()
	if err == nil && !held {
		err = errors.New("a bar was missed")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-guest:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context) (held bool, err error) {
	if b.log, err = os.Create(filepath.Join(b.work, "log")); err != nil {
		return false, err
	}
	defer b.log.Close()
	ours, err := b.startGantry(ctx)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, ours.stop()) }()
	theirs, err := b.startPodman(ctx)
	if err != nil {
		return false, err
	}
	b.report.Say("load %s\n", measure.Load())
	all := []system{ours, theirs, lxc{b}}
	var running, answers []*measure.Series
	for _, s := range all {
		running = append(running, &measure.Series{Name: s.name() + ", to systemd running"})
		answers = append(answers, &measure.Series{Name: s.name() + ", to an answer of sshd"})
	}
	for range b.rounds {
		for i, s := range all {
			if running[i].Failed != nil {
				continue
			}
			if running[i].Failed = b.boot(ctx, s, running[i], answers[i]); running[i].Failed != nil {
				answers[i].Failed = running[i].Failed
			}
		}
	}
	for i := range all {
		b.report.Add(running[i])
		b.report.Add(answers[i])
	}
	if err := errors.Join(ctx.Err(), running[0].Failed); err != nil {
		return false, err
	}
	for i, s := range all[1:] {
		b.report.Ratio("to systemd running: gantry / "+s.name(), running[0], running[i+1], 1)
		b.report.Ratio("to an answer of sshd: gantry / "+s.name(), answers[0], answers[i+1], 1)
	}
	return b.report.Print(), nil
}

// bootLimit is for a boot that will never be up.
const bootLimit = 3 * time.Minute

// boot times one boot, which is undone.
func (b *bench) boot(ctx context.Context, s system, running, answers *measure.Series) (err error) {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	syscall.Sync()
	began := time.Now()
	defer func() { err = errors.Join(err, s.remove(context.WithoutCancel(ctx))) }()
	if err := s.start(ctx); err != nil {
		return err
	}
	pid, err := s.first(ctx)
	if err != nil {
		return err
	}
	up, answered := make(chan error, 1), make(chan error, 1)
	var isUp, hasAnswered time.Duration
	go func() {
		err := awaitRunning(ctx, pid)
		isUp = time.Since(began)
		up <- err
	}()
	go func() {
		err := awaitSSH(ctx, pid)
		hasAnswered = time.Since(began)
		answered <- err
	}()
	if err := errors.Join(<-up, <-answered); err != nil {
		return err
	}
	running.Values = append(running.Values, isUp)
	answers.Values = append(answers.Values, hasAnswered)
	return nil
}

// must runs a command and returns what it printed.
func (b *bench) must(ctx context.Context, args ...string) (string, error) {
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Stderr = b.log
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%v: %w (see log in the work directory)", args, err)
	}
	return string(out), nil
}
