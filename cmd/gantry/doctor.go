package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/cmd/internal/cli"
	"github.com/gantry-project/gantry/internal/daemon"
)

// doctorCommand ends with status 1 when something is wrong, and prints what it
// was: nothing else is printed as an error then.
func doctorCommand() *cobra.Command {
	var o daemon.DoctorOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "check the host, or the engine's storage, and say what is wrong and what it costs",
		Long: "Without --storage: what this host lacks for running instances, and what that costs. Nothing is changed.\n" +
			"With --storage: what a crash or a power cut has left of the engine's state; no service may run, instances may.\n" +
			"Exit status 1: something that instances need is missing, or something is left that was not mended.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := filepath.Abs(o.StorePath)
			if err != nil {
				return err
			}
			o.StorePath = root
			report, err := daemon.Doctor(cmd.Context(), o)
			if err != nil {
				return err
			}
			if asJSON {
				err = jsonTo(cmd.OutOrStdout(), report)
			} else {
				err = printReport(cmd.OutOrStdout(), report)
			}
			if err == nil && !report.Healthy() {
				return cli.Status(1)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.StorePath, "store-path", envOr("GANTRY_STORE_PATH", defaultStore), "root of the engine")
	f.StringVar(&o.Cgroup, "cgroup", "gantry", "name of the control group of all instances")
	f.StringVar(&o.Snapshotter, "snapshotter", "auto", "the option snapshotter of the service")
	f.StringVar(&o.DiskLimit, "disk-limit", "auto", "the option disk_limit of the service")
	f.BoolVar(&o.Storage, "storage", false, "check the engine's state")
	f.BoolVar(&o.Repair, "repair", false, "mend what can be without losing anybody's data; with --storage")
	f.BoolVar(&o.Deep, "deep", false, "read all content and compare digests; with --storage")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printReport(w io.Writer, r daemon.DoctorReport) error {
	var rows []string
	for _, h := range r.Host {
		rows = append(rows, strings.Join([]string{string(h.Level), h.Name, h.Found}, "\t"))
		if h.Costs != "" {
			rows = append(rows, "\t\t  "+h.Costs)
		}
	}
	if len(rows) > 0 {
		return rowsTo(w, "LEVEL\tCHECK\tFOUND", rows)
	}
	if len(r.Storage) == 0 {
		_, err := fmt.Fprintln(w, "nothing is wrong")
		return err
	}
	for _, f := range r.Storage {
		mended := "no"
		if f.Mended {
			mended = "yes"
		}
		rows = append(rows, strings.Join([]string{f.Kind, f.What, mended, f.Detail}, "\t"))
	}
	return rowsTo(w, "KIND\tWHAT\tMENDED\tDETAIL", rows)
}
