// Package keeper lets instances survive the service: a small process for the
// host, the keeper, owns their first processes and the masters of their
// consoles. Killing or upgrading the service ends no instance, loses no exit
// status and no console output.
//
// The keeper (Serve) is the in-process runner of engine/process behind a local
// socket; the service talks to it by Client, which is a process.Runner.
// Ensure finds or starts the keeper, below a guard (process.StartGuard) that
// restarts it. Who dies:
//
//   - a client: nothing happens to processes; a start under way is finished;
//   - the keeper: the guard starts another, which goes on with all processes,
//     their consoles and exits; clients wait for it (Client);
//   - the guard: the keeper makes another of itself, which starts a keeper;
//   - both before one has made the other again, some 50 ms: instances run on
//     without a console, their exits are not seen, and the next keeper does not
//     know them; their owner finds them by their control groups.
//
// docs/keeper.md says how. The package imports engine/process and internal
// packages only.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
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
	// Build names Command's program. A keeper of another build (or of another
	// version of the protocol) is replaced by Command, under running processes.
	// "" replaces only for the protocol's version.
	Build string
}

// startLimit bounds how long a started keeper may take to answer.
const startLimit = 10 * time.Second

// Ensure returns a client of the keeper, which it starts, detached from the
// calling process, if none answers. Several callers at once end up with one
// keeper. The client stays connected, which keeps an idle keeper from ending;
// Close it when done. errdefs.ErrUnsupported when a keeper answers that speaks
// another version of the protocol and cannot be replaced.
func Ensure(ctx context.Context, o Options) (*Client, error) {
	c := &Client{socket: o.Socket, ensure: &o}
	h, err := c.Hello(ctx)
	switch {
	case errors.Is(err, errdefs.ErrUnavailable):
		if err := c.restart(ctx); err != nil {
			return nil, err
		}
		return c, nil
	case errors.Is(err, errdefs.ErrUnsupported), err == nil && o.Build != "" && h.Build != o.Build:
		err = c.Replace(ctx, o.Command, o.Env)
	}
	if err != nil {
		return nil, err
	}
	err = c.attach()
	if errors.Is(err, errdefs.ErrUnavailable) { // it has just ended, being idle
		err = c.restart(ctx)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Replace makes the keeper become command, whose first word is an absolute
// path, and that the guard's command from now on. It returns when the new one
// answers; processes run on meanwhile, and other clients wait.
// errdefs.ErrInvalid when the command cannot be executed, or ends before it
// serves: then the keeper is what it was. errdefs.ErrUnsupported when the keeper
// has no guard.
func (c *Client) Replace(ctx context.Context, command, env []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit,
		fmt.Errorf("no answer after %s: %w", startLimit, errdefs.ErrUnavailable))
	defer cancel()
	old, _ := c.helloOnce(ctx) // of another version: nothing
	if _, err := c.call(ctx, &request{Op: opReplace, Command: command, Env: env}, nil); err != nil {
		return fmt.Errorf("replace keeper: %w", err)
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		now, err := c.helloOnce(ctx)
		if err == nil && !now.Started.Equal(old.Started) {
			if slices.Equal(now.Command, command) {
				return nil
			}
			return fmt.Errorf("replace keeper: %s ended before it served, the keeper of before is back: %w", command[0], errdefs.ErrInvalid)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("replace keeper: %w", errors.Join(context.Cause(ctx), err))
		case <-tick.C:
		}
	}
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
	lock, err := awaitGuardLock(ctx, o.Socket)
	if lock == nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	name := o.LogFile
	if name == "" {
		name = os.DevNull
	}
	output, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }()
	guard, err := process.StartGuard(ctx, process.GuardOptions{Command: o.Command, Env: o.Env, Output: output, Lock: lock})
	if err != nil {
		return err
	}
	defer func() { _ = guard.Close() }()
	if err := awaitKeeper(ctx, o.Socket, guard.CommandEnded); err != nil {
		return errors.Join(err, guard.Kill())
	}
	return nil
}

// pollInterval is how often the start of a keeper is looked at.
const pollInterval = 2 * time.Millisecond

// awaitTurn returns a lock that lets one caller at a time start a keeper, or
// nil and the outcome when a keeper answers meanwhile.
func awaitTurn(ctx context.Context, socket string) (*os.File, error) {
	if err := prepareDirectory(socket); err != nil {
		return nil, err
	}
	c := &Client{socket: socket}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		lock, err := takeLock(socket + ".start")
		if err != nil && !errors.Is(err, errdefs.ErrAlreadyExists) {
			return nil, err
		}
		if _, err := c.helloOnce(ctx); !errors.Is(err, errdefs.ErrUnavailable) {
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

// awaitGuardLock returns the lock that says that no guard lives, or nil and the
// outcome when a keeper answers meanwhile.
func awaitGuardLock(ctx context.Context, socket string) (*os.File, error) {
	c := &Client{socket: socket}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		lock, err := takeGuardLock(socket)
		if !errors.Is(err, errdefs.ErrAlreadyExists) {
			return lock, err
		}
		if _, err := c.helloOnce(ctx); !errors.Is(err, errdefs.ErrUnavailable) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("a guard lives, but its keeper does not answer: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// awaitKeeper asks until a keeper answers or ended, if any, says that it has
// ended instead.
func awaitKeeper(ctx context.Context, socket string, ended func() (bool, error)) error {
	c := &Client{socket: socket}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		_, err := c.helloOnce(ctx)
		if !errors.Is(err, errdefs.ErrUnavailable) {
			return err
		}
		if ended != nil {
			if gone, lookErr := ended(); gone || lookErr != nil {
				return fmt.Errorf("it ended at once: %w", errors.Join(err, lookErr))
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
