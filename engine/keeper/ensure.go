// Package keeper lets instances survive the service: a small process for the
// host, the keeper, owns their first processes and the masters of their
// consoles. Killing or upgrading the service ends no instance, loses no exit
// status and no console output.
//
// The keeper (Serve) is the in-process runner of engine/process behind a local
// socket; the service talks to it by Client, which is a process.Runner.
// Ensure finds or starts the keeper. Who dies:
//
//   - a client: nothing happens to processes; a start under way is finished;
//   - the keeper: instances run on without a console, their exits are not seen.
//     A new keeper does not know them; their owner finds them by their control
//     groups. So a keeper is small, does nothing else, and is not restarted
//     when the service is upgraded.
//
// The package imports engine/process and internal packages only.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// Options of Ensure.
type Options struct {
	// Socket is the absolute path that the keeper serves.
	Socket string
	// Command starts a keeper that serves Socket (Serve with OwnsProcess);
	// Command[0] is an absolute path.
	Command []string
	// Env is the environment of a keeper that is started. It should hold no
	// secrets.
	Env []string
	// LogFile receives the keeper's output, appended; empty for /dev/null.
	LogFile string
}

// startLimit bounds how long a started keeper may take to answer.
const startLimit = 10 * time.Second

// Ensure returns a client of the keeper, which it starts, detached from the
// calling process (process.Detach), if none answers. Several callers at once
// end up with one keeper.
func Ensure(ctx context.Context, o Options) (*Client, error) {
	c, err := Dial(ctx, o.Socket)
	if !errors.Is(err, errdefs.ErrUnavailable) {
		return c, err
	}
	if c, err = startKeeper(ctx, o); err != nil {
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	return c, nil
}

func startKeeper(ctx context.Context, o Options) (*Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit,
		fmt.Errorf("no answer after %s: %w", startLimit, errdefs.ErrUnavailable))
	defer cancel()
	name := o.LogFile
	if name == "" {
		name = os.DevNull
	}
	output, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = output.Close() }()
	_, pidfd, err := process.Detach(ctx, o.Command, o.Env, output)
	if err != nil {
		return nil, err
	}
	defer func() { _ = pidfd.Close() }()
	return awaitKeeper(ctx, o.Socket, pidfd)
}

// awaitKeeper asks until a keeper answers. The one that was started may end
// early because another was faster; then that one answers soon.
func awaitKeeper(ctx context.Context, socket string, pidfd *os.File) (*Client, error) {
	ended := make(chan struct{})
	go func() { // ends at the latest when the caller closes pidfd
		defer close(ended)
		_ = linux.AwaitPidfd(pidfd)
	}()
	const pause, triesAfterEnd = 2 * time.Millisecond, 500
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for tries := 0; ; {
		c, err := Dial(ctx, socket)
		if !errors.Is(err, errdefs.ErrUnavailable) {
			return c, err
		}
		select {
		case <-ended:
			if tries++; tries > triesAfterEnd {
				return nil, fmt.Errorf("it ended at once: %w", err)
			}
		default:
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}
