package main

import (
	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/internal/daemon"
)

// viewCommand is started by the engine, never by a person.
func viewCommand() *cobra.Command {
	var dir, group string
	cmd := &cobra.Command{
		Use:    "view --dir PATH --cgroup NAME",
		Short:  "show guests their own processors and memory",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return daemon.View(cmd.Context(), dir, group)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "where the view is mounted")
	cmd.Flags().StringVar(&group, "cgroup", "gantry", "name of the control group of all containers")
	if err := cmd.MarkFlagRequired("dir"); err != nil {
		panic(err)
	}
	return cmd
}
