package runtimecmd

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/engine/oci"
	"github.com/gantry-project/gantry/engine/runtime"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// execFlags are those of exec.
type execFlags struct {
	req                     runtime.ExecRequest
	file, cwd, user, label  string
	apparmor                string
	env, caps               []string
	groups                  []uint
	tty, noNewPrivs, paused bool
	preserve                int
}

func runtimeExec(f *runtimeFlags) *cobra.Command {
	var e execFlags
	cmd := &cobra.Command{
		Use: "exec ID COMMAND [ARGUMENT...]", Short: "run a process in a container", Args: cobra.MinimumNArgs(1),
		PreRun: func(*cobra.Command, []string) { f.detached = e.req.Detach },
		RunE: f.do(func(ctx context.Context, r *runtime.Runtime, args []string) error {
			req, err := e.request(args)
			if err != nil {
				return err
			}
			if !req.Detach {
				ctx = context.WithoutCancel(ctx)
				req.Signals = allSignals()
			}
			return ended(r.Exec(ctx, req))
		}),
	}
	fl := cmd.Flags()
	fl.SetInterspersed(false)
	fl.StringVarP(&e.file, "process", "p", "", "file with the process object; it replaces the other flags and the command")
	fl.StringVar(&e.cwd, "cwd", "", "working directory")
	fl.StringArrayVarP(&e.env, "env", "e", nil, "NAME=VALUE to add")
	fl.StringVarP(&e.user, "user", "u", "", "UID[:GID]")
	fl.UintSliceVarP(&e.groups, "additional-gids", "g", nil, "further groups")
	fl.StringSliceVarP(&e.caps, "cap", "c", nil, "capability to add")
	fl.BoolVarP(&e.tty, "tty", "t", false, "give the process a terminal")
	fl.BoolVar(&e.noNewPrivs, "no-new-privs", false, "forbid to gain rights by execve")
	fl.StringVar(&e.apparmor, "apparmor", "", "profile of AppArmor")
	fl.StringVar(&e.label, "process-label", "", "label of SELinux")
	fl.BoolVar(&e.paused, "ignore-paused", false, "refused: a process cannot begin in a paused container")
	fl.BoolVarP(&e.req.Detach, "detach", "d", false, "return when the process runs")
	fl.StringVar(&e.req.PidFile, "pid-file", "", "file to write the process's number to")
	fl.StringVar(&e.req.ConsoleSocket, "console-socket", "", "listening unix socket that receives the terminal")
	fl.IntVar(&e.preserve, "preserve-fds", 0, "number of further descriptors, from 3 on, to pass on")
	return cmd
}

func (e *execFlags) request(args []string) (runtime.ExecRequest, error) {
	e.req.ID, e.req.Stdio, e.req.Terminal = args[0], stdio(), terminal()
	if e.paused {
		return e.req, fmt.Errorf("--ignore-paused: %w", errdefs.ErrUnsupported)
	}
	if e.file == "" && len(args) < 2 {
		return e.req, fmt.Errorf("exec: neither a command nor --process: %w", errdefs.ErrInvalid)
	}
	var err error
	if e.req.Preserve, e.req.Listen, err = inherited(e.preserve); err != nil {
		return e.req, err
	}
	e.req.Process = func(own *specs.Process) (*specs.Process, error) {
		if e.file != "" {
			return processFile(e.file)
		}
		return own, e.change(own, args[1:])
	}
	return e.req, nil
}

func processFile(name string) (*specs.Process, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--process: %w: %w", err, errdefs.ErrInvalid)
	}
	defer func() { _ = f.Close() }()
	return oci.ParseProcess(f)
}

// change makes the container's own process object that of the session.
func (e *execFlags) change(p *specs.Process, command []string) error {
	p.Args, p.Terminal = command, e.tty
	if !e.tty {
		p.ConsoleSize = nil
	}
	p.NoNewPrivileges = p.NoNewPrivileges || e.noNewPrivs
	p.Env = append(p.Env, e.env...)
	if e.cwd != "" {
		p.Cwd = e.cwd
	}
	if e.apparmor != "" {
		p.ApparmorProfile = e.apparmor
	}
	if e.label != "" {
		p.SelinuxLabel = e.label
	}
	for _, g := range e.groups {
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(g))
	}
	if p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	for _, name := range e.caps {
		if !slices.Contains(oci.Capabilities(), name) {
			return fmt.Errorf("--cap %q: %w", name, errdefs.ErrInvalid)
		}
		c := p.Capabilities
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
			*set = append(*set, name)
		}
	}
	if e.user == "" {
		return nil
	}
	uid, gid, both := strings.Cut(e.user, ":")
	n, err := strconv.ParseUint(uid, 10, 31)
	if err != nil {
		return fmt.Errorf("--user %q: %w", e.user, errdefs.ErrInvalid)
	}
	p.User.UID = uint32(n)
	if both {
		if n, err = strconv.ParseUint(gid, 10, 31); err != nil {
			return fmt.Errorf("--user %q: %w", e.user, errdefs.ErrInvalid)
		}
		p.User.GID = uint32(n)
	}
	return nil
}
