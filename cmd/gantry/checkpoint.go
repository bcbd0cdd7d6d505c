package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/engine/api"
)

func checkpointCommand() *cobra.Command {
	var leave bool
	cmd := changing("checkpoint [flags] CONTAINER DIR", "write a container's processes to a directory that is made", cobra.ExactArgs(2), func(ctx context.Context, c *api.Client, t *target, _ *cobra.Command, args []string) error {
		dir, err := filepath.Abs(args[1])
		if err != nil {
			return err
		}
		return c.Checkpoint(ctx, args[0], api.Checkpoint{Dir: dir, LeaveRunning: leave}, t.change())
	})
	cmd.Flags().BoolVar(&leave, "leave-running", false, "let the container go on")
	return cmd
}

func restoreCommand() *cobra.Command {
	var console int64
	cmd := changing("restore [flags] CONTAINER DIR", "bring a container's processes back from a directory", cobra.ExactArgs(2), func(ctx context.Context, c *api.Client, t *target, _ *cobra.Command, args []string) error {
		dir, err := filepath.Abs(args[1])
		if err != nil {
			return err
		}
		_, err = c.Restore(ctx, args[0], api.Restore{Dir: dir, ConsoleBytes: console}, t.change())
		return err
	})
	cmd.Flags().Int64Var(&console, "console-bytes", 0, "size of the console log to keep; 0 is 1 MiB")
	return cmd
}
