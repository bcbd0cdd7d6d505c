package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/daemon"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func psCommand() *cobra.Command {
	var all, asJSON bool
	cmd := operation("ps", "list containers", cobra.NoArgs, func(ctx context.Context, c *api.Client, t *target, cmd *cobra.Command, _ []string) error {
		list, err := c.Containers(ctx)
		if errors.Is(err, errdefs.ErrUnavailable) && t.socket == "" {
			stored, serr := daemon.StoredContainers(ctx, t.store)
			if serr != nil && !errors.Is(serr, errdefs.ErrConflict) {
				return errors.Join(t.explain(err), serr)
			}
			if serr == nil {
				list, err = stored, nil
				cmd.PrintErrln("gantry: no engine runs; this is what its records say")
			}
		}
		if err != nil {
			return err
		}
		if !all {
			list = active(list)
		}
		if asJSON {
			return jsonTo(cmd.OutOrStdout(), list)
		}
		rows := make([]string, len(list))
		for i, one := range list {
			rows[i] = psRow(one)
		}
		return rowsTo(cmd.OutOrStdout(), "CONTAINER\tIMAGE\tSTATUS\tPID\tAGE\tOWNER\tCOMMAND", rows)
	})
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that do not run")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as a JSON document, with all that is known")
	return cmd
}

func active(list []api.Container) []api.Container {
	out := []api.Container{}
	for _, c := range list {
		if c.Status == "running" || c.Status == "paused" {
			out = append(out, c)
		}
	}
	return out
}

func psRow(c api.Container) string {
	status, pid, owner := string(c.Status), "-", c.Owner
	if c.Pid > 0 {
		pid = strconv.Itoa(c.Pid)
	}
	if e := c.Exit; e != nil {
		status = exitText(*e)
	}
	if owner == "" {
		owner = "-"
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", c.ID, plain(c.Image, 40), status, pid, age(c.Created), owner, plain(strings.Join(c.Args, " "), 50))
}

func exitText(e api.Exit) string {
	switch {
	case !e.Known:
		return "stopped (unseen)"
	case e.OOM:
		return "stopped (out of memory)"
	case e.Signal > 0:
		return fmt.Sprintf("stopped (signal %d)", e.Signal)
	}
	return fmt.Sprintf("stopped (%d)", e.Code)
}
