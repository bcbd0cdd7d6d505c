package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func topCommand() *cobra.Command {
	var asJSON bool
	cmd := operation("top CONTAINER", "list the processes of a container", cobra.ExactArgs(1), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		list, err := c.Top(ctx, args[0])
		if err != nil {
			return err
		}
		if asJSON {
			return jsonTo(cmd.OutOrStdout(), list)
		}
		rows := make([]string, len(list))
		for i, p := range list {
			rows[i] = fmt.Sprintf("%d\t%d\t%d\t%d\t%s\t%.2fs\t%s\t%s", p.Pid, p.Parent, p.HostPid, p.UID, p.State, p.CPU, size(p.Memory), plain(strings.Join(p.Args, " "), 80))
		}
		return rowsTo(cmd.OutOrStdout(), "PID\tPARENT\tHOSTPID\tUID\tSTATE\tCPU\tMEMORY\tCOMMAND", rows)
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "as a JSON document")
	return cmd
}

func statsCommand() *cobra.Command {
	var interval time.Duration
	var asJSON bool
	cmd := operation("stats [CONTAINER]", "print what containers use", cobra.MaximumNArgs(1), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		w := cmd.OutOrStdout()
		if interval > 0 {
			if len(args) == 0 {
				return fmt.Errorf("stats --interval needs a container: %w", errdefs.ErrInvalid)
			}
			return watchStats(ctx, c, w, args[0], interval, asJSON)
		}
		list, err := containersFor(ctx, c, args)
		if err != nil {
			return err
		}
		docs := map[string]api.Stats{}
		var rows []string
		for _, one := range list {
			s, err := c.Stats(ctx, one.ID)
			if err != nil && len(args) > 0 {
				return err
			}
			if err != nil {
				continue // ended meanwhile
			}
			docs[one.ID] = s
			limit := "-"
			if one.Limits.MemoryBytes != nil {
				limit = size(*one.Limits.MemoryBytes)
			}
			rows = append(rows, fmt.Sprintf("%s\t%.2fs\t%s\t%s\t%d", one.ID, s.CPU, size(s.Memory), limit, s.Pids))
		}
		if asJSON {
			return jsonTo(w, docs)
		}
		return rowsTo(w, "CONTAINER\tCPU\tMEMORY\tLIMIT\tPIDS", rows)
	})
	cmd.Flags().DurationVarP(&interval, "interval", "i", 0, "print again in every interval, until the container ends")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON documents")
	return cmd
}

// containersFor is the one that is named, or all that run.
func containersFor(ctx context.Context, c *api.Client, args []string) ([]api.Container, error) {
	if len(args) > 0 {
		one, err := c.Container(ctx, args[0])
		return []api.Container{one}, err
	}
	list, err := c.Containers(ctx)
	return active(list), err
}

func watchStats(ctx context.Context, c *api.Client, w io.Writer, id string, interval time.Duration, asJSON bool) error {
	var before api.Stats
	return c.WatchStats(ctx, id, interval, func(s api.Stats) error {
		if asJSON {
			return json.NewEncoder(w).Encode(s)
		}
		share := "-"
		if passed := s.Time.Sub(before.Time).Seconds(); !before.Time.IsZero() && passed > 0 {
			share = fmt.Sprintf("%.1f%%", 100*(s.CPU-before.CPU)/passed)
		}
		before = s
		_, err := fmt.Fprintf(w, "%s  cpu %-7s memory %-9s pids %d\n", s.Time.Format(time.TimeOnly), share, size(s.Memory), s.Pids)
		return err
	})
}

func eventsCommand() *cobra.Command {
	var asJSON bool
	cmd := operation("events [CONTAINER]", "print what happens from now on", cobra.MaximumNArgs(1), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		w := cmd.OutOrStdout()
		return c.Events(ctx, strings.Join(args, ""), nil, func(ev api.Event) error {
			if asJSON {
				return json.NewEncoder(w).Encode(ev)
			}
			more := ""
			switch {
			case ev.Missed > 0:
				more = fmt.Sprintf(" %d events", ev.Missed)
			case ev.Exec != "":
				more = " " + ev.Exec
			}
			if ev.Exit != nil {
				more += " " + exitText(*ev.Exit)
			}
			_, err := fmt.Fprintf(w, "%s %-9s %s%s\n", ev.Time.Format(time.RFC3339Nano), ev.Kind, ev.Container, more)
			return err
		})
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON documents, one a line")
	return cmd
}
