package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/internal/daemon"
)

// unpackCommand is started by the engine, never by a person.
func unpackCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "unpack",
		Short:              "unpack a layer of an image, in a jail",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if daemon.Unpack(cmd.Context(), args) != 0 {
				return errors.New("unpack: ended with an error")
			}
			return nil
		},
	}
}
