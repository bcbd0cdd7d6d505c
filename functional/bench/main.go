package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// settings are what one run is told.
type settings struct {
	state   string        // of the control plane
	scripts string        // functional/controlplane
	gantry  string        // the binary
	pass    string        // of every user of the control plane
	image   string        // for the hosts that boot a tar; "" makes a quiet one
	only    string        // names of the compared services, separated by commas; "" is all
	boots   int           // of each service, after the warm-up
	idle    time.Duration // window of the idle measurement
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var s settings
	flag.StringVar(&s.state, "state", "", "state directory of the control plane")
	flag.StringVar(&s.scripts, "scripts", "", "directory of the control plane's scripts")
	flag.StringVar(&s.gantry, "gantry", "", "gantry binary")
	flag.StringVar(&s.pass, "pass", "gantry", "password of the control plane's users")
	flag.StringVar(&s.image, "image", "", "image for gantry and the fake driver; empty uploads one whose guest does nothing")
	flag.StringVar(&s.only, "only", "", "compare only these: "+lxcName+","+gantryName+","+gantryNoWaitName)
	flag.IntVar(&s.boots, "n", 12, "boots of each service")
	flag.DurationVar(&s.idle, "idle", time.Minute, "window of the idle measurement")
	flag.Parse()
	if s.state == "" || s.scripts == "" || s.gantry == "" || s.boots < 1 {
		return fmt.Errorf("run it by make bench-boot: -state, -scripts and -gantry are needed, got %q", os.Args[1:])
	}
	b, err := newBench(ctx, s)
	if err != nil {
		return err
	}
	defer b.close()
	return b.all(ctx)
}

// wants reports whether the service of that name takes part.
func (s settings) wants(name string) bool {
	if s.only == "" {
		return true
	}
	for _, one := range strings.Split(s.only, ",") {
		if one == name {
			return true
		}
	}
	return false
}
