package runtimecmd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/runtime"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// birthFlags are those of create and run.
type birthFlags struct {
	req      runtime.CreateRequest
	preserve int
	noPivot  bool
	ignored  bool
}

func (b *birthFlags) flags(f *pflag.FlagSet) {
	f.StringVarP(&b.req.Bundle, "bundle", "b", "", "directory with config.json, the working directory if empty")
	f.StringVar(&b.req.ConsoleSocket, "console-socket", "", "listening unix socket that receives the terminal")
	f.StringVar(&b.req.PidFile, "pid-file", "", "file to write the number of the first process to")
	f.IntVar(&b.preserve, "preserve-fds", 0, "number of further descriptors, from 3 on, to pass on")
	f.BoolVar(&b.noPivot, "no-pivot", false, "refused: the root is always changed by pivot_root")
	f.BoolVar(&b.ignored, "no-new-keyring", false, "ignored: a new session key ring is always made")
}

func (b *birthFlags) request(id string) (runtime.CreateRequest, error) {
	if b.noPivot {
		return b.req, fmt.Errorf("--no-pivot: a root that is not changed by pivot_root can be left: %w", errdefs.ErrUnsupported)
	}
	b.req.ID, b.req.Stdio = id, stdio()
	var err error
	b.req.Preserve, b.req.Listen, err = inherited(b.preserve)
	return b.req, err
}

func runtimeCreate(f *runtimeFlags) *cobra.Command {
	var b birthFlags
	cmd := &cobra.Command{
		Use: "create ID", Short: "make a container that waits for start", Args: cobra.ExactArgs(1),
		RunE: f.do(func(ctx context.Context, r *runtime.Runtime, args []string) error {
			req, err := b.request(args[0])
			if err != nil {
				return err
			}
			return r.Create(ctx, req)
		}),
	}
	b.flags(cmd.Flags())
	return cmd
}

func runtimeStart(f *runtimeFlags) *cobra.Command {
	return &cobra.Command{
		Use: "start ID", Short: "let a created container run its command", Args: cobra.ExactArgs(1),
		RunE: f.do(func(ctx context.Context, r *runtime.Runtime, args []string) error { return r.Start(ctx, args[0]) }),
	}
}

func runtimeRun(f *runtimeFlags) *cobra.Command {
	var b birthFlags
	var detach, keep, reaper bool
	cmd := &cobra.Command{
		Use: "run ID", Short: "create and start a container, wait for its end and delete it", Args: cobra.ExactArgs(1),
		RunE: f.do(func(ctx context.Context, r *runtime.Runtime, args []string) error {
			create, err := b.request(args[0])
			if err != nil {
				return err
			}
			req := runtime.RunRequest{CreateRequest: create, Detach: detach, Keep: keep, Terminal: terminal()}
			if !detach {
				ctx = context.WithoutCancel(ctx) // signals are the container's
				req.Signals = allSignals()
			}
			return ended(r.Run(ctx, req))
		}),
	}
	b.flags(cmd.Flags())
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "return when the command runs")
	cmd.Flags().BoolVar(&keep, "keep", false, "do not delete the container at its end")
	cmd.Flags().BoolVar(&reaper, "no-subreaper", false, "ignored: orphans are never adopted")
	return cmd
}

// To take all 64 signals takes 2 ms, as much as a tenth of a start. A program
// that still runs takes the usual ones after usualAfter, and after restAfter
// those that hardly anybody sends.
const (
	usualAfter = 50 * time.Millisecond
	restAfter  = time.Second
)

// allSignals are to be passed on; those that would end this program are so from
// the beginning.
func allSignals() <-chan os.Signal {
	c := make(chan os.Signal, 64)
	signal.Notify(c, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	time.AfterFunc(usualAfter, func() {
		signal.Notify(c, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP, unix.SIGALRM)
	})
	time.AfterFunc(restAfter, func() { signal.Notify(c) })
	return c
}

func runtimeState(f *runtimeFlags) *cobra.Command {
	return &cobra.Command{
		Use: "state ID", Short: "print the state of a container", Args: cobra.ExactArgs(1),
		RunE: f.do(func(ctx context.Context, r *runtime.Runtime, args []string) error {
			s, err := r.State(ctx, args[0])
			if err != nil {
				return err
			}
			return printJSON(s)
		}),
	}
}

// printJSON writes v for people and programs.
func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func runtimeKill(f *runtimeFlags) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "kill ID [SIGNAL]", Short: "send a signal (TERM) to the first process", Args: cobra.RangeArgs(1, 2),
		RunE: f.do(func(ctx context.Context, r *runtime.Runtime, args []string) error {
			name := "TERM"
			if len(args) > 1 {
				name = args[1]
			}
			sig, err := signalNumber(name)
			if err != nil {
				return err
			}
			return r.Kill(ctx, args[0], sig, all)
		}),
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "to all processes of the container")
	return cmd
}

// signalNumber takes a number, or a name with or without SIG.
func signalNumber(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n <= 64 {
		return n, nil
	}
	upper := strings.ToUpper(name)
	if !strings.HasPrefix(upper, "SIG") {
		upper = "SIG" + upper
	}
	if n := unix.SignalNum(upper); n != 0 {
		return int(n), nil
	}
	for prefix, sign := range map[string]int{"SIGRTMIN+": 34, "SIGRTMAX-": -64} {
		if rest, ok := strings.CutPrefix(upper, prefix); ok {
			if n, err := strconv.Atoi(rest); err == nil && n >= 0 && n <= 30 {
				return max(sign+n, -sign-n), nil
			}
		}
	}
	switch upper {
	case "SIGRTMIN":
		return 34, nil
	case "SIGRTMAX":
		return 64, nil
	}
	return 0, fmt.Errorf("unknown signal %q: %w", name, errdefs.ErrInvalid)
}

func runtimeDelete(f *runtimeFlags) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "delete ID", Short: "remove a container that has ended", Args: cobra.ExactArgs(1),
		RunE: f.do(func(ctx context.Context, r *runtime.Runtime, args []string) error {
			return r.Delete(ctx, args[0], force)
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "end a running one first; an unknown one is no error")
	return cmd
}
