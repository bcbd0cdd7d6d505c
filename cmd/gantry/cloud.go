package main

import (
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/internal/daemon"
)

// cloudState is where the state is when nobody says otherwise.
const cloudState = "/var/lib/gantry-cloud"

func cloudCommand() *cobra.Command {
	o := daemon.CloudOptions{Version: version}
	cmd := &cobra.Command{
		Use:   "cloud",
		Short: "run a small OpenStack of its own with this host as its compute host",
		Long: "Runs identity, image, compute, network and placement services and one compute host in this process.\n" +
			"For laptops, CI and a first look: more than one host is `gantry compute` under a real OpenStack.\n" +
			"Instances and everything that was answered outlive it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Ready, o.Program = cmd.OutOrStdout(), os.Args[0]
			return daemon.Cloud(cmd.Context(), o)
		},
	}
	f := cmd.PersistentFlags()
	f.StringVar(&o.State, "state", cloudState, "directory of everything that must survive")
	f = cmd.Flags()
	f.StringVar(&o.Listen, "listen", "127.0.0.1:8700", "address of all services; other than loopback needs a certificate")
	f.StringVar(&o.CertFile, "tls-cert", "", "file of the certificate and those that sign it")
	f.StringVar(&o.KeyFile, "tls-key", "", "file of its key")
	f.StringVar(&o.LogFile, "log-file", "", "log file; default: standard error")
	f.DurationVar(&o.KeepDeleted, "keep-deleted", 30*24*time.Hour, "how long deleted servers stay in lists that ask for them; 0: for ever")
	f.StringVar(&o.SnapshotFormat, "snapshot-format", "", "what a snapshot becomes: full, delta, tar, raw or qcow2 (docs/images.md); default: full")
	f.BoolVar(&o.Debug, "debug", false, "log at debug level")
	f.StringVar(&o.Failpoints, "failpoints", "", "for tests only: failures to inject")
	_ = f.MarkHidden("failpoints") // it is defined one line above
	cmd.AddCommand(cloudEnvCommand(&o.State), cloudPurgeCommand(&o.State))
	return cmd
}

func cloudEnvCommand(state *string) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:   "env",
		Short: "print how clients reach the cloud, for a shell",
		Long:  "Prints the settings of the openstack client for a shell: eval \"$(gantry cloud env)\".",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := daemon.CloudEnv(*state, user)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	cmd.Flags().StringVar(&user, "user", "admin", "whose: admin, or the tenant demo")
	return cmd
}

func cloudPurgeCommand(state *string) *cobra.Command {
	return &cobra.Command{
		Use:   "purge",
		Short: "end all instances of a cloud that does not run, and remove it from this host",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return daemon.PurgeCloud(cmd.Context(), *state, zerolog.Nop())
		},
	}
}
