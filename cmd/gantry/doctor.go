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

// unhealthy is the status of a doctor that has found something; 1 is one that
// could not look.
const unhealthy cli.Status = 2

// doctorCommand prints what is wrong: nothing else is printed as an error then.
func doctorCommand() *cobra.Command {
	var o daemon.DoctorOptions
	var s settings
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "check the host, or the engine's storage, and say what is wrong and what it costs",
		Long: "Without --storage: what this host lacks for running instances, and what that costs. Nothing is changed.\n" +
			"With --config-file, a service's configuration: also whether it reaches the broker, Keystone, Placement, Neutron and Glance with its accounts,\n" +
			"and whether Neutron's agent and Nova's record of this host are as they should be. It may run meanwhile.\n" +
			"With --storage: what a crash or a power cut has left of the engine's state; no service may run, instances may.\n\n" +
			"Exit status 0: healthy, though there may be warnings. 2: a line fail, or something is left that was not mended. 1: the check was not possible.\n" +
			"78: the configuration cannot be used.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := filepath.Abs(o.StorePath)
			if err != nil {
				return err
			}
			o.StorePath = root
			if len(s.files) > 0 {
				if o.Config, err = s.load(); err != nil {
					return unusable(err)
				}
			}
			report, err := daemon.Doctor(cmd.Context(), o)
			if err != nil {
				return unusable(err)
			}
			if asJSON {
				err = jsonTo(cmd.OutOrStdout(), report)
			} else {
				err = printReport(cmd.OutOrStdout(), report)
			}
			if err == nil && !report.Healthy() {
				return unhealthy
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&s.files, "config-file", nil, "the configuration of the service, which says more than the options of the store below; may be given several times, later ones win")
	f.StringArrayVar(&s.set, "set", nil, "override one option of it: SECTION.KEY=VALUE")
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
		if h.Remedy != "" {
			rows = append(rows, "\t\t  remedy: "+h.Remedy)
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
