package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gantry-project/gantry/cmd/internal/cli"
	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/internal/daemon"
)

// settings are the flags of verbs that read the configuration.
type settings struct {
	files []string
	set   []string
	debug bool
}

func (s *settings) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&s.files, "config-file", nil, "file in nova.conf's format; may be given several times, later ones win")
	f.StringArrayVar(&s.set, "set", nil, "override one option: SECTION.KEY=VALUE")
	f.BoolVar(&s.debug, "debug", false, "log at debug level")
}

func (s *settings) load() (*config.Config, error) {
	set := s.set
	if s.debug {
		set = append(set, "DEFAULT.debug=true")
	}
	return config.Load(config.Sources{Files: s.files, Environ: os.Environ(), Overrides: set})
}

// unusable gives errors of the configuration their status.
func unusable(err error) error {
	if _, ok := errors.AsType[*config.Error](err); ok {
		return &cli.Failure{Status: cli.Configuration, Err: err}
	}
	return err
}

func computeCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "compute --config-file FILE",
		Short: "join an OpenStack as a compute host",
		Long: "Joins an existing OpenStack as a compute host, in the place of nova-compute.\n" +
			"Instances outlive the service: stop or kill it, start it again, and they are adopted.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return unusable(daemon.Compute(cmd.Context(), s.load, version))
		},
	}
	s.flags(cmd.Flags())
	return cmd
}

func configCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "config",
		Short: "print the effective configuration with the meaning of each option",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			return cfg.Write(cmd.OutOrStdout())
		},
	}
	s.flags(cmd.Flags())
	return cmd
}
