package main

import (
	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/internal/daemon"
)

// keeperCommand is started by the engine, never by a person.
func keeperCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:    "keeper --socket PATH",
		Short:  "hold the processes and consoles of this host's containers",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return daemon.Keeper(cmd.Context(), socket)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "socket to listen on")
	if err := cmd.MarkFlagRequired("socket"); err != nil {
		panic(err)
	}
	return cmd
}
