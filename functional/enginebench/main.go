package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gantry-project/gantry/functional/measure"
)

// settings are the command line.
type settings struct {
	gantry, floor, work string
	rounds, idle        int
	only                string
}

func main() {
	var s settings
	flag.StringVar(&s.gantry, "gantry", "", "the gantry binary")
	flag.StringVar(&s.floor, "floor", "", "the bare C program (floor/floor.c)")
	flag.StringVar(&s.work, "work", "", "an empty directory on a file system that overlay can use")
	flag.IntVar(&s.rounds, "n", 30, "rounds of each timed thing")
	flag.IntVar(&s.idle, "idle", 1000, "containers of the idle section")
	flag.StringVar(&s.only, "only", "start,socket,ops,burst,idle", "sections")
	spawner := flag.Bool("spawner", false, "run commands from standard input (internal)")
	flag.Parse()
	if *spawner {
		if err := serveSpawner(); err != nil {
			fmt.Fprintln(os.Stderr, "spawner:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench-engine:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, s settings) error {
	if os.Geteuid() != 0 || s.gantry == "" || s.work == "" {
		return fmt.Errorf("needs root, -gantry and -work; see functional/bench-engine")
	}
	log, err := os.Create(filepath.Join(s.work, "peers.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	peers, err := startPeers(ctx, s.work, log)
	defer peers.stop()
	if err != nil {
		return err
	}
	ours, err := startOurs(ctx, s, log)
	if err != nil {
		return err
	}
	defer ours.stop()
	b := &session{settings: s, peers: peers, ours: ours, log: log, report: &measure.Report{Out: os.Stdout}}
	for _, section := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"start", b.start}, {"socket", b.socket}, {"ops", b.ops}, {"burst", b.burst}, {"idle", b.idle},
	} {
		if !strings.Contains(","+s.only+",", ","+section.name+",") {
			continue
		}
		b.report.Say("== %s\n", section.name)
		if err := section.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", section.name, err)
		}
	}
	if !b.report.Print() {
		return fmt.Errorf("a bar was missed")
	}
	return nil
}
