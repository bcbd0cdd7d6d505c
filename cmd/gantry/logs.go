package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/daemon"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func logsCommand() *cobra.Command {
	var req api.LogsRequest
	var since string
	var lines int
	cmd := operation("logs CONTAINER", "print what the console has said", cobra.ExactArgs(1), func(ctx context.Context, c *api.Client, t *target, cmd *cobra.Command, args []string) (err error) {
		if since != "" {
			if req.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
		}
		if cmd.Flags().Changed("lines") {
			if lines < 0 {
				return fmt.Errorf("--lines %d: %w", lines, errdefs.ErrInvalid)
			}
			req.Lines = &lines
		}
		r, err := c.Logs(ctx, args[0], req)
		if errors.Is(err, errdefs.ErrUnavailable) && t.socket == "" {
			stored, serr := daemon.StoredLogs(ctx, t.store, args[0], req)
			if serr == nil {
				r, err = stored, nil
				cmd.PrintErrln("gantry: no engine answers; this is what is on disk")
			}
		}
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(cmd.OutOrStdout(), r)
		return err
	})
	f := cmd.Flags()
	f.BoolVarP(&req.Follow, "follow", "f", false, "go on until the container ends")
	f.StringVar(&since, "since", "", "only what was said since a time (RFC 3339) or for a duration (10m)")
	f.IntVarP(&lines, "lines", "n", 0, "only the last lines")
	return cmd
}

// parseSince takes a time or how long ago it was.
func parseSince(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since %q is neither a time nor a duration: %w", text, errdefs.ErrInvalid)
}
