package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/cmd/internal/cli"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// startFlags are those that say what to run.
type startFlags struct {
	start      api.Start
	entrypoint string
}

func (s *startFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.start.Hostname, "hostname", "", "host name inside")
	f.StringArrayVarP(&s.start.Env, "env", "e", nil, "NAME=VALUE to add to the image's environment")
	f.StringVarP(&s.start.User, "user", "u", "", "user[:group] of the command")
	f.StringVarP(&s.start.Cwd, "cwd", "w", "", "working directory of the command")
	f.StringVar(&s.entrypoint, "entrypoint", "", "command in the place of the image's entrypoint")
	f.BoolVar(&s.start.NoNewPrivs, "no-new-privileges", false, "set-user-ID files give nothing")
	f.StringVar((*string)(&s.start.Profile), "profile", "", "instance, or system for an init that mounts; default: system for systemd")
	f.BoolVar(&s.start.Nesting, "nesting", false, "containers may run inside; has the system profile")
	f.Int64Var(&s.start.ConsoleBytes, "console-bytes", 0, "size of the console log to keep; 0 is 1 MiB")
	f.SetInterspersed(false)
}

func (s *startFlags) request(args []string) api.Start {
	start := s.start
	start.Args = args
	if s.entrypoint != "" {
		start.Entrypoint = []string{s.entrypoint}
	}
	return start
}

func runCommand() *cobra.Command {
	var s startFlags
	var id string
	var labels []string
	var follow, remove bool
	var l limitFlags
	cmd := operation("run [flags] IMAGE [COMMAND...]", "make a container and start it", cobra.MinimumNArgs(1), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		limits, err := l.limits(cmd)
		if err != nil {
			return err
		}
		if id == "" {
			id = strings.ToLower(rand.Text()[:12])
		}
		start := s.request(args[1:])
		req := api.Create{ID: id, Image: args[0], Labels: map[string]string{}, Limits: limits, Start: &start}
		for _, label := range labels {
			key, value, _ := strings.Cut(label, "=")
			req.Labels[key] = value
		}
		if _, err := c.Create(ctx, req); err != nil {
			return err
		}
		if !follow {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), id)
			return err
		}
		err = followToEnd(ctx, c, id, cmd.OutOrStdout())
		if remove {
			rerr := c.Remove(context.WithoutCancel(ctx), id, true, api.Change{})
			if !errors.Is(rerr, errdefs.ErrNotFound) {
				err = errors.Join(err, rerr)
			}
		}
		return err
	})
	s.flags(cmd)
	l.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&id, "id", "", "id of the container; default: a new one, which is printed")
	f.StringArrayVarP(&labels, "label", "l", nil, "NAME=VALUE to keep with the container")
	f.BoolVarP(&follow, "follow", "f", false, "print the console and end with the container's status")
	f.BoolVar(&remove, "rm", false, "with --follow: delete the container at the end")
	return cmd
}

// followToEnd prints the console until the container ends, and takes its status.
func followToEnd(ctx context.Context, c *api.Client, id string, w io.Writer) error {
	r, err := c.Logs(ctx, id, api.LogsRequest{Follow: true})
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	exit, err := c.Wait(ctx, id)
	if err != nil {
		return err
	}
	return status(exit)
}

// status is the end of a command as that of this program.
func status(e api.Exit) error {
	switch {
	case !e.Known:
		return fmt.Errorf("nobody saw how it ended: %w", errdefs.ErrUnavailable)
	case e.Code != 0:
		return cli.Status(e.Code)
	}
	return nil
}

func startCommand() *cobra.Command {
	var s startFlags

	cmd := changing("start [flags] CONTAINER [COMMAND...]", "start a container that does not run", cobra.MinimumNArgs(1), func(ctx context.Context, c *api.Client, t *target, _ *cobra.Command, args []string) error {
		_, err := c.Start(ctx, args[0], s.request(args[1:]), t.change())
		return err
	})

	s.flags(cmd)
	return cmd
}
