package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/cmd/internal/cli"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// defaultStore is where a compute service with its default state_path keeps
// its containers.
const defaultStore = "/var/lib/gantry/engine"

// target is which engine a verb of an operator talks to.
type target struct {
	store, socket string
	force         bool
}

func (t *target) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.store, "store-path", envOr("GANTRY_STORE_PATH", defaultStore), "root of the engine; its socket is in it")
	f.StringVar(&t.socket, "socket", os.Getenv("GANTRY_SOCKET"), "socket of the engine, if it is elsewhere")
}

func (t *target) change() api.Change { return api.Change{Force: t.force} }

func envOr(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}

func (t *target) client() *api.Client {
	socket := t.socket
	if socket == "" {
		socket = filepath.Join(t.store, api.SocketName)
	}
	return api.NewClient(socket)
}

// operation is a command that talks to the engine.
func operation(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, c *api.Client, t *target, cmd *cobra.Command, args []string) error) *cobra.Command {
	t := &target{}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := t.client()
			defer c.Close()
			return t.explain(run(cmd.Context(), c, t, cmd, args))
		},
	}
	t.flags(cmd)
	return cmd
}

// changing is operation for commands that change a container, which may be Nova's.
func changing(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, c *api.Client, t *target, cmd *cobra.Command, args []string) error) *cobra.Command {
	t := &target{}
	cmd := operation(use, short, args, func(ctx context.Context, c *api.Client, at *target, cmd *cobra.Command, args []string) error {
		at.force = t.force
		return run(ctx, c, at, cmd, args)
	})
	cmd.Flags().BoolVar(&t.force, "force", false, "change it although Nova owns it, to repair something")
	return cmd
}

// explain adds what to do to errors that have one cause.
func (t *target) explain(err error) error {
	if errors.Is(err, errdefs.ErrUnavailable) && errors.Is(err, os.ErrNotExist) || errors.Is(err, errdefs.ErrUnavailable) && strings.Contains(err.Error(), "connection refused") {
		return fmt.Errorf("no engine answers at %s: start `gantry compute` or `gantry engine`, or name another --store-path: %w", t.store, errdefs.ErrUnavailable)
	}
	if errors.Is(err, context.Canceled) {
		return cli.Status(130)
	}
	return err
}

// rowsTo prints rows of tab-separated cells, aligned.
func rowsTo(w io.Writer, header string, rows []string) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if _, err := fmt.Fprintln(t, header); err != nil {
		return err
	}
	for _, row := range rows {
		if _, err := fmt.Fprintln(t, row); err != nil {
			return err
		}
	}
	return t.Flush()
}

func jsonTo(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// plain makes a text of a container fit for a terminal, and short.
func plain(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// size prints bytes in units of 1024.
func size(n int64) string {
	const units = "KMGT"
	v, unit := float64(n), ""
	for i := 0; v >= 1024 && i < len(units); i++ {
		v, unit = v/1024, string(units[i])+"i"
	}
	if unit == "" {
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%.1f%sB", v, unit)
}
