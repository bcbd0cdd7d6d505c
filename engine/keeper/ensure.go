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
// end up with one keeper. The client stays connected, which keeps an idle
// keeper from ending; Close it when done.
func Ensure(ctx context.Context, o Options) (*Client, error) {
	_, err := Dial(ctx, o.Socket)
	if errors.Is(err, errdefs.ErrUnavailable) {
		if err = startKeeper(ctx, o); err != nil {
			err = fmt.Errorf("start keeper: %w", err)
		}
	}
	if err != nil {
		return nil, err
	}
	c := &Client{socket: o.Socket, ensure: &o}
	if err := c.attach(); err != nil {
		return nil, err
	}
	return c, nil
}

// startKeeper returns when a keeper answers.
func startKeeper(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit,
		fmt.Errorf("no answer after %s: %w", startLimit, errdefs.ErrUnavailable))
	defer cancel()
	turn, err := awaitTurn(ctx, o.Socket)
	if turn == nil {
		return err // somebody else has started one
	}
	defer func() { _ = turn.Close() }()
	name := o.LogFile
	if name == "" {
		name = os.DevNull
	}
	output, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }()
	_, pidfd, err := process.Detach(ctx, o.Command, o.Env, output)
	if err != nil {
		return err
	}
	defer func() { _ = pidfd.Close() }()
	return awaitKeeper(ctx, o.Socket, pidfd)
}

// pollInterval is how often the start of a keeper is looked at.
const pollInterval = 2 * time.Millisecond

// awaitTurn returns a lock that lets one caller at a time start a keeper, or
// nil and the outcome when a keeper answers meanwhile.
func awaitTurn(ctx context.Context, socket string) (*os.File, error) {
	if err := prepareDirectory(socket); err != nil {
		return nil, err
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		lock, err := takeLock(socket + ".start")
		if err != nil && !errors.Is(err, errdefs.ErrAlreadyExists) {
			return nil, err
		}
		if _, err := Dial(ctx, socket); !errors.Is(err, errdefs.ErrUnavailable) {
			linux.CloseAll([]*os.File{lock})
			return nil, err
		}
		if lock != nil {
			return lock, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// awaitKeeper asks until the keeper of pidfd answers or has ended.
func awaitKeeper(ctx context.Context, socket string, pidfd *os.File) error {
	ended := make(chan struct{})
	go func() { // ends at the latest when the caller closes pidfd
		defer close(ended)
		_ = linux.AwaitPidfd(pidfd)
	}()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		_, err := Dial(ctx, socket)
		if !errors.Is(err, errdefs.ErrUnavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ended:
			return fmt.Errorf("it ended at once: %w", err)
		case <-tick.C:
		}
	}
}
