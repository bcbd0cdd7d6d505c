package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/internal/daemon"
)

func engineCommand() *cobra.Command {
	o := daemon.EngineOptions{Version: version, Failpoints: os.Getenv("GANTRY_FAILPOINTS")}
	cmd := &cobra.Command{
		Use:   "engine --store-path DIR",
		Short: "run the container engine alone, without OpenStack",
		Long: "Runs the container engine with its socket, without OpenStack.\n" +
			"Containers outlive it: stop or kill it, start it again, and they are adopted.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.StorePath, err = filepath.Abs(o.StorePath); err != nil {
				return err
			}
			return daemon.Engine(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.StorePath, "store-path", envOr("GANTRY_STORE_PATH", defaultStore), "directory of everything that must survive")
	f.StringVar(&o.Socket, "socket", "", "socket to serve; default: engine.sock in the store path")
	f.StringVar(&o.Cgroup, "cgroup", "gantry", "name of the control group of all containers")
	f.StringVar(&o.Snapshotter, "snapshotter", "auto", "what keeps disks: auto, overlay, btrfs or copy")
	f.StringVar(&o.DiskLimit, "disk-limit", "auto", "what bounds disks: auto, quota, loop or none")
	f.StringVar(&o.GuestView, "guest-view", "off", "what containers see of processors, memory, uptime and load: theirs (full, files) or the host's (off)")
	f.BoolVar(&o.Debug, "debug", false, "log at debug level")
	return cmd
}
