// Command gantry-runtime is the part of gantry that starts soon: with little in
// it, a start costs half of what it does in the program of the services.
//
// As gantry-runtime it is gantry runtime in one word, for engines. Under the
// name gantry, which make build and make install give it too, it is all of
// gantry: it runs gantry runtime itself and becomes gantry-host, the program of
// all verbs (cmd/gantry), for the others. That lies beside it.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/cmd/internal/cli"
	"github.com/gantry-project/gantry/cmd/internal/runtimecmd"
)

// version is set by the linker.
var version = "unknown"

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	var cmd *cobra.Command
	switch {
	case name != "gantry":
		cmd = runtimecmd.Command("gantry-runtime", args)
		cmd.Version = version
	case len(args) > 0 && args[0] == "runtime":
		cmd = &cobra.Command{Use: name}
		cmd.CompletionOptions.DisableDefaultCmd = true
		cmd.AddCommand(runtimecmd.Command("runtime", args))
	default:
		fmt.Fprintln(os.Stderr, "gantry:", become("gantry-host"))
		os.Exit(1)
	}
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cli.Main(cmd)
}

// become executes the program of that name beside this one, with the same
// arguments. It returns on errors only.
func become(name string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	path := filepath.Join(filepath.Dir(self), name)
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, os.Args, os.Environ()))
}
