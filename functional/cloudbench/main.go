package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/gantry-project/gantry/functional/measure"
)

// settings are the command line.
type settings struct {
	gantry, work         string
	starts, boots, burst int
	rows, lists          int
	only                 string
	debug                bool
}

func main() {
	var s settings
	flag.StringVar(&s.gantry, "gantry", "", "the gantry binary, which nothing else runs")
	flag.StringVar(&s.work, "work", "", "an empty directory on a file system that overlay can use")
	flag.IntVar(&s.starts, "starts", 10, "starts of each kind")
	flag.IntVar(&s.boots, "n", 60, "servers made and deleted one after the other")
	flag.IntVar(&s.burst, "burst", 100, "servers made at once")
	flag.IntVar(&s.rows, "rows", 1000, "servers in the list")
	flag.IntVar(&s.lists, "lists", 20, "lists of them")
	flag.StringVar(&s.only, "only", "start,boot,burst,list", "sections")
	flag.BoolVar(&s.debug, "debug", false, "let the cloud log what developers read")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench-cloud:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, s settings) (err error) {
	if os.Geteuid() != 0 || s.gantry == "" || s.work == "" {
		return fmt.Errorf("needs root, -gantry and -work; see functional/bench-cloud")
	}
	b := &session{settings: s, report: &measure.Report{Out: os.Stdout}}
	defer func() {
		if end := b.end(ctx); err == nil {
			err = end
		}
	}()
	for _, section := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"start", b.start}, {"boot", b.boot}, {"burst", b.fill}, {"list", b.list},
	} {
		if !strings.Contains(","+s.only+",", ","+section.name+",") {
			continue
		}
		b.report.Say("== %s (load %s)\n", section.name, measure.Load())
		if err := section.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", section.name, err)
		}
	}
	b.report.Note("load at the end: %s", measure.Load())
	if !b.report.Print() {
		return fmt.Errorf("a bar was missed")
	}
	return nil
}
