// Command gantry makes a Linux host an OpenStack hypervisor whose instances
// are containers. Each verb has a file of its own; what they run is put
// together in internal/daemon.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/cmd/internal/cli"
	"github.com/gantry-project/gantry/cmd/internal/runtimecmd"
)

// version is set by the linker.
var version = "unknown"

func main() { cli.Main(root(os.Args[1:])) }

// root makes the command for these arguments.
func root(args []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:           "gantry",
		Short:         "OpenStack instances as containers",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	cli.Add(cmd, args[:min(len(args), 1)], verbs(args))
	arrange(cmd)
	return cmd
}

// verbs are the commands by their names, for these arguments.
func verbs(args []string) map[string]func() *cobra.Command {
	return map[string]func() *cobra.Command{
		"cloud": cloudCommand, "compute": computeCommand, "config": configCommand, "doctor": doctorCommand, "keeper": keeperCommand, "view": viewCommand,
		"runtime": func() *cobra.Command { return runtimecmd.Command("runtime", args) }, "unpack": unpackCommand, "version": versionCommand,

		// over the engine's socket
		"engine": engineCommand, "ps": psCommand, "run": runCommand, "start": startCommand, "stop": stopCommand,
		"kill": killCommand, "rm": rmCommand, "wait": waitCommand, "pause": pauseCommand, "resume": resumeCommand,
		"checkpoint": checkpointCommand, "restore": restoreCommand,
		"update": updateCommand, "exec": execCommand, "attach": attachCommand, "logs": logsCommand, "top": topCommand,
		"stats": statsCommand, "events": eventsCommand, "cp": cpCommand, "commit": commitCommand, "diff": diffCommand, "export": exportCommand, "history": historyCommand,
		"import": imageImportCommand, "images": imagesCommand, "image": imageCommand,
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version)
			return err
		},
	}
}
