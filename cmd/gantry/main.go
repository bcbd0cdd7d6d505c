// Command gantry makes a Linux host an OpenStack hypervisor whose instances
// are containers. Each verb has a file of its own; what they run is put
// together in internal/daemon.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := root(os.Args[1:]).ExecuteContext(ctx)
	stop()
	if status, ok := errors.AsType[exitStatus](err); ok {
		os.Exit(int(status))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gantry:", err)
		os.Exit(1)
	}
}

// root makes the command for these arguments.
func root(args []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:           "gantry",
		Short:         "OpenStack instances as containers",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	add(cmd, args[:min(len(args), 1)], verbs(args))
	return cmd
}

// add adds the verbs whose names are among the words, or all if none is. Making
// all takes as long as many a verb.
func add(cmd *cobra.Command, words []string, verbs map[string]func() *cobra.Command) {
	found := false
	for _, word := range words {
		if v, ok := verbs[word]; ok {
			found = true
			cmd.AddCommand(v())
			delete(verbs, word)
		}
	}
	if found {
		cmd.CompletionOptions.DisableDefaultCmd = true
		return
	}
	for _, v := range verbs {
		cmd.AddCommand(v()) // sorted by cobra
	}
}

// verbs are the commands by their names, for these arguments.
func verbs(args []string) map[string]func() *cobra.Command {
	return map[string]func() *cobra.Command{
		"cloud": cloudCommand, "compute": computeCommand, "config": configCommand, "doctor": doctorCommand, "keeper": keeperCommand,
		"runtime": func() *cobra.Command { return runtimeCommand(args) }, "unpack": unpackCommand, "version": versionCommand,

		// over the engine's socket
		"engine": engineCommand, "ps": psCommand, "run": runCommand, "start": startCommand, "stop": stopCommand,
		"kill": killCommand, "rm": rmCommand, "wait": waitCommand, "pause": pauseCommand, "resume": resumeCommand,
		"checkpoint": checkpointCommand, "restore": restoreCommand,
		"update": updateCommand, "exec": execCommand, "attach": attachCommand, "logs": logsCommand, "top": topCommand,
		"stats": statsCommand, "events": eventsCommand, "cp": cpCommand, "images": imagesCommand, "image": imageCommand,
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
