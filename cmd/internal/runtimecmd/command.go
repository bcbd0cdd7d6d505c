// Package runtimecmd is the command line of engine/runtime, with runc's verbs,
// flags and meanings (docs/runtime.md): gantry runtime, and gantry-runtime for
// those who want a small program of one word.
package runtimecmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/cmd/internal/cli"
	"github.com/gantry-project/gantry/engine/runtime"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// runtimeFlags are those before the verb, with runc's names and meanings
// (docs/runtime.md).
type runtimeFlags struct {
	root, log, logFormat string
	debug, systemd       bool
	rootless             string
	detached             bool // the verb leaves a process behind
}

// verb is what a verb of gantry runtime does.
type verb func(ctx context.Context, r *runtime.Runtime, args []string) error

// Command makes the command by this name for these arguments: of its verbs only
// those that occur among them, as cli.Add does.
func Command(name string, args []string) *cobra.Command {
	var f runtimeFlags
	cmd := &cobra.Command{
		Use:   name,
		Short: "run containers by the OCI runtime specification",
		Long: "Runs containers from bundles of the OCI runtime specification, with the verbs and flags of runc,\n" +
			"by itself or for another engine. It has nothing to do with the service and its instances.",
		Args: cobra.NoArgs,
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.root, "root", runtime.DefaultRoot, "directory of the containers' records")
	flags.StringVar(&f.log, "log", "", "file for warnings and errors, standard error if empty")
	flags.StringVar(&f.logFormat, "log-format", "text", `"text" or "json"`)
	flags.BoolVar(&f.debug, "debug", false, "log at debug level")
	flags.BoolVar(&f.systemd, "systemd-cgroup", false, "refused: control groups are made without systemd")
	flags.StringVar(&f.rootless, "rootless", "auto", `"auto" or "false"; "true" is refused`)
	verbs := map[string]func() *cobra.Command{}
	for name, v := range runtimeVerbs() {
		verbs[name] = func() *cobra.Command { return v(&f) }
	}
	cli.Add(cmd, args, verbs)
	return cmd
}

func runtimeVerbs() map[string]func(*runtimeFlags) *cobra.Command {
	return map[string]func(*runtimeFlags) *cobra.Command{
		"create": runtimeCreate, "start": runtimeStart, "run": runtimeRun, "state": runtimeState, "kill": runtimeKill,
		"delete": runtimeDelete, "exec": runtimeExec, "list": runtimeList, "ps": runtimePs, "pause": runtimePause,
		"resume": runtimeResume, "update": runtimeUpdate, "events": runtimeEvents, "spec": runtimeSpec, "features": runtimeFeatures,
	}
}

// do makes a cobra function of a verb: it opens the runtime and the log, which
// gets the verb's error too.
func (f *runtimeFlags) do(v verb) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		log, done, err := f.logger()
		if err != nil {
			return err
		}
		defer done()
		err = f.open(cmd.Context(), log, v, args)
		if _, ok := errors.AsType[cli.Status](err); err != nil && !ok {
			if f.log != "" {
				log.Error().Msg(err.Error())
			}
		}
		return err
	}
}

func (f *runtimeFlags) open(ctx context.Context, log zerolog.Logger, v verb, args []string) error {
	if f.systemd {
		return fmt.Errorf("--systemd-cgroup: control groups are made without systemd: %w", errdefs.ErrUnsupported)
	}
	if f.rootless == "true" {
		return fmt.Errorf("--rootless: root is needed: %w", errdefs.ErrUnsupported)
	}
	r, err := runtime.New(ctx, runtime.Options{Root: f.root, LeaveEnded: f.detached, Log: log})
	if err != nil {
		return err
	}
	return v(ctx, r, args)
}

// ended is the result of a verb that waited for a process.
func ended(status int, err error) error {
	if err == nil && status != 0 {
		return cli.Status(status)
	}
	return err
}

// stdio are the program's own.
func stdio() [3]*os.File { return [3]*os.File{os.Stdin, os.Stdout, os.Stderr} }

// terminal is the caller's, nil if standard input is none.
func terminal() *os.File {
	if _, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return os.Stdin
}

// inherited returns the descriptors to pass on: those of LISTEN_FDS, then n
// more.
func inherited(n int) (files []*os.File, listen int, err error) {
	if s := os.Getenv("LISTEN_FDS"); s != "" {
		if listen, err = strconv.Atoi(s); err != nil || listen < 0 {
			return nil, 0, fmt.Errorf("LISTEN_FDS=%q: %w", s, errdefs.ErrInvalid)
		}
	}
	if n < 0 || listen+n > 1<<16 {
		return nil, 0, fmt.Errorf("--preserve-fds %d: %w", n, errdefs.ErrInvalid)
	}
	for fd := 3; fd < 3+listen+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, 0, fmt.Errorf("descriptor %d to preserve: %w: %w", fd, err, errdefs.ErrInvalid)
		}
		files = append(files, os.NewFile(uintptr(fd), "preserved "+strconv.Itoa(fd)))
	}
	return files, listen, nil
}
