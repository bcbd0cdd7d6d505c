// Command gantry-runtime is gantry runtime as a program of its own: with little
// else in it, it starts sooner, and engines take it by one word.
package main

import (
	"os"

	"github.com/gantry-project/gantry/cmd/internal/cli"
	"github.com/gantry-project/gantry/cmd/internal/runtimecmd"
)

// version is set by the linker.
var version = "unknown"

func main() {
	cmd := runtimecmd.Command("gantry-runtime", os.Args[1:])
	cmd.Version, cmd.SilenceUsage, cmd.SilenceErrors = version, true, true
	cli.Main(cmd)
}
