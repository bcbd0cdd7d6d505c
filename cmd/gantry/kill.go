package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// parseSignal takes TERM, SIGTERM and 15.
func parseSignal(text string) (int, error) {
	if n, err := strconv.Atoi(text); err == nil && n >= 1 && n <= 64 {
		return n, nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	return 0, fmt.Errorf("%q is no signal: %w", text, errdefs.ErrInvalid)
}

func killCommand() *cobra.Command {
	var signal string
	cmd := changing("kill CONTAINER...", "send a signal to a container's first process", cobra.MinimumNArgs(1), func(ctx context.Context, c *api.Client, t *target, _ *cobra.Command, args []string) error {
		sig, err := parseSignal(signal)
		if err != nil {
			return err
		}
		return eachArg(args, func(id string) error { return c.Kill(ctx, id, sig, t.change()) })
	})
	cmd.Flags().StringVarP(&signal, "signal", "s", "KILL", "name or number")
	return cmd
}

func stopCommand() *cobra.Command {
	var signal string
	var timeout time.Duration
	cmd := changing("stop CONTAINER...", "ask a container to end, then end it", cobra.MinimumNArgs(1), func(ctx context.Context, c *api.Client, t *target, _ *cobra.Command, args []string) (err error) {
		req := api.Stop{Timeout: timeout.Seconds()}
		if signal != "" {
			if req.Signal, err = parseSignal(signal); err != nil {
				return err
			}
		}
		return eachArg(args, func(id string) error { _, err := c.Stop(ctx, id, req, t.change()); return err })
	})
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "what to ask with; default: what its first process understands")
	cmd.Flags().DurationVarP(&timeout, "timeout", "t", 10*time.Second, "how long to wait; 0 ends it at once")
	return cmd
}

func rmCommand() *cobra.Command {
	var kill bool
	cmd := changing("rm CONTAINER...", "delete containers", cobra.MinimumNArgs(1), func(ctx context.Context, c *api.Client, t *target, _ *cobra.Command, args []string) error {
		return eachArg(args, func(id string) error { return c.Remove(ctx, id, kill, t.change()) })
	})
	cmd.Flags().BoolVarP(&kill, "kill", "k", false, "also those that run")
	return cmd
}

func pauseCommand() *cobra.Command {
	return changing("pause CONTAINER...", "freeze all processes", cobra.MinimumNArgs(1), func(ctx context.Context, c *api.Client, t *target, _ *cobra.Command, args []string) error {
		return eachArg(args, func(id string) error { return c.Pause(ctx, id, t.change()) })
	})
}

func resumeCommand() *cobra.Command {
	return changing("resume CONTAINER...", "let frozen processes go on", cobra.MinimumNArgs(1), func(ctx context.Context, c *api.Client, t *target, _ *cobra.Command, args []string) error {
		return eachArg(args, func(id string) error { return c.Resume(ctx, id, t.change()) })
	})
}

func waitCommand() *cobra.Command {
	return operation("wait CONTAINER", "wait for the end and take its status", cobra.ExactArgs(1), func(ctx context.Context, c *api.Client, _ *target, _ *cobra.Command, args []string) error {
		exit, err := c.Wait(ctx, args[0])
		if err != nil {
			return err
		}
		return status(exit)
	})
}

// eachArg goes on after a failure and returns the first.
func eachArg(args []string, fn func(id string) error) error {
	var first error
	failed := 0
	for _, arg := range args {
		if err := fn(arg); err != nil {
			if failed++; first == nil {
				first = err
			}
		}
	}
	if failed > 1 {
		return fmt.Errorf("%w (and %d more failed)", first, failed-1)
	}
	return first
}
