package runtimecmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/engine/runtime"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func runtimeList(f *runtimeFlags) *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use: "list", Short: "list the containers", Args: cobra.NoArgs,
		RunE: f.do(func(ctx context.Context, r *runtime.Runtime, _ []string) error {
			list, err := r.List(ctx)
			switch {
			case quiet:
				for _, s := range list {
					err = errors.Join(err, line(s.ID))
				}
				return err
			case format == "json":
				if list == nil {
					list = []runtime.State{}
				}
				return errors.Join(err, json.NewEncoder(os.Stdout).Encode(list))
			case format != "table":
				return fmt.Errorf("--format %q: %w", format, errdefs.ErrInvalid)
			}
			rows := [][]string{{"ID", "PID", "STATUS", "BUNDLE", "CREATED"}}
			for _, s := range list {
				rows = append(rows, []string{s.ID, strconv.Itoa(s.Pid), string(s.Status), s.Bundle, s.Created.Format(time.RFC3339Nano)})
			}
			return errors.Join(err, table(rows))
		}),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "table", `"table" or "json"`)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only ids")
	return cmd
}

func line(s string) error {
	_, err := fmt.Fprintln(os.Stdout, s)
	return err
}

func table(rows [][]string) error {
	w := tabwriter.NewWriter(os.Stdout, 8, 1, 3, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// runtimePs takes ps(1)'s options as runc does, and does without them.
func runtimePs(f *runtimeFlags) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "ps ID", Short: "list the processes of a container", Args: cobra.MinimumNArgs(1),
		RunE: f.do(func(ctx context.Context, r *runtime.Runtime, args []string) error {
			pids, err := r.Processes(ctx, args[0])
			if err != nil {
				return err
			}
			switch format {
			case "json":
				if pids == nil {
					pids = []int{}
				}
				return json.NewEncoder(os.Stdout).Encode(pids)
			case "table":
				rows := [][]string{{"PID", "PPID", "STATE", "COMMAND"}}
				for _, pid := range pids {
					if row := describe(pid); row != nil {
						rows = append(rows, row)
					}
				}
				return table(rows)
			}
			return fmt.Errorf("--format %q: %w", format, errdefs.ErrInvalid)
		}),
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVarP(&format, "format", "f", "table", `"table" or "json"`)
	return cmd
}

// describe is a row about a process (proc_pid_stat(5)), nil if it has ended.
func describe(pid int) []string {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return nil
	}
	_, name, _ := strings.Cut(string(stat), "(")
	at := strings.LastIndexByte(name, ')')
	if at < 0 {
		return nil
	}
	fields := strings.Fields(name[at+1:])
	if len(fields) < 2 {
		return nil
	}
	command := "[" + name[:at] + "]"
	if b, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && len(b) > 0 {
		command = strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
	}
	return []string{strconv.Itoa(pid), fields[1], fields[0], strconv.QuoteToGraphic(command)}
}

func runtimeSpec(f *runtimeFlags) *cobra.Command {
	var bundle string
	var rootless bool
	cmd := &cobra.Command{
		Use: "spec", Short: "write a config.json to begin with", Args: cobra.NoArgs,
		RunE: f.do(func(context.Context, *runtime.Runtime, []string) error {
			if rootless {
				return fmt.Errorf("--rootless: root is needed: %w", errdefs.ErrUnsupported)
			}
			data, err := json.MarshalIndent(runtime.Template(), "", "\t")
			if err != nil {
				return err
			}
			file, err := os.OpenFile(filepath.Join(bundle, "config.json"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
			if errors.Is(err, os.ErrExist) {
				err = fmt.Errorf("%w: %w", err, errdefs.ErrAlreadyExists)
			}
			if err != nil {
				return err
			}
			_, err = file.Write(append(data, '\n'))
			return errors.Join(err, file.Close())
		}),
	}
	cmd.Flags().StringVarP(&bundle, "bundle", "b", "", "directory for it, the working directory if empty")
	cmd.Flags().BoolVar(&rootless, "rootless", false, "refused")
	return cmd
}

func runtimeFeatures(*runtimeFlags) *cobra.Command {
	return &cobra.Command{
		Use: "features", Short: "print what configurations may ask for", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return printJSON(runtime.Features()) },
	}
}
