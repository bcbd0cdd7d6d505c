// Package server shows each guest its own view (engine/view) of the host: one
// small process for the host serves one file system (engine/view/fuse), whose
// files are bound over those of the kernel in each guest.
//
// A guest has files of its own there, below a directory with its id, which is the
// name of its control group: the files of that group say what there is. So
// nothing has to be told to the server, a new limit shows at once, it needs no
// right but to read, and what the kernel keeps of a file is of one guest.
//
// Who dies: the server is started by a guard (engine/process) that starts it
// again, 50 ms after it has ended, and holds the mount and the memory of
// requests under way, as the server does; if the guard ends the server makes
// another. Guests wait meanwhile. Only if both end before one has made the other
// again the mount is dead: guests that have it read ENOTCONN until they are
// started anew, as Ensure makes another for those that start.
//
// The package imports engine/process for the guard; nobody but the composition
// root imports it.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/view/fuse"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// patience is how long an answer may take before the server is taken to be
// stuck: what it does takes less than a millisecond.
const patience = 10 * time.Second

// idleEvery is how often the server looks whether somebody still wants it.
const idleEvery = time.Minute

// ServeOptions of Serve.
type ServeOptions struct {
	// Dir is where Ensure has mounted the view.
	Dir string
	// Cgroup is the name of the tree that guests are in (cgroup.Options).
	Cgroup string
	// Build names the program, for EnsureOptions.Build.
	Build string
	Log   zerolog.Logger
}

// Serve serves the view that Ensure has started this process for, until the last
// mount of it is gone, or nobody has it open and there is no guest: then it
// returns nil. When ctx ends, it ends only if there is no guest. Call it early:
// a process with capabilities is executed anew without. When the guard is
// killed, or Ensure asks for another program, it does not return: the process
// becomes that. errdefs.ErrInvalid in a process that Ensure has not started.
func Serve(ctx context.Context, o ServeOptions) error {
	if err := serve(ctx, o); err != nil {
		return fmt.Errorf("serve the guests' view: %w", err)
	}
	return nil
}

func serve(ctx context.Context, o ServeOptions) error {
	if err := linux.WithoutCapabilities(); err != nil {
		return err
	}
	debug.SetGCPercent(20) // memory counts for more than time here
	guard, err := process.InheritGuard()
	if err != nil {
		return err
	}
	if guard == nil {
		return fmt.Errorf("no guard has started this process: %w", errdefs.ErrInvalid)
	}
	groups, err := cgroup.New(ctx, cgroup.Options{Name: o.Cgroup})
	if err != nil {
		return err
	}
	tree := &files{
		ctx: context.WithoutCancel(ctx), guests: &guests{groups: groups, m: map[uint64]*guest{}},
		status: Status{Pid: os.Getpid(), Build: o.Build},
	}
	conn, err := fuse.New(fuse.Options{
		Device: guard.Lock(), Memory: guard.Scratch(), Tree: tree,
		Patience: patience, Stuck: func() {
			o.Log.Error().Dur("patience", patience).Msg("the view is stuck, and is started again")
			os.Exit(1) // a wait in the kernel ends in no other way
		},
	})
	if err != nil {
		return err
	}
	hup, term := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	signal.Notify(term, unix.SIGTERM)
	guardEnded, served := make(chan error, 1), make(chan error, 1)
	go func() { guardEnded <- guard.Await() }()
	go func() { served <- conn.Serve() }()
	guard.Confirm()
	idle := time.NewTicker(idleEvery)
	defer idle.Stop()
	for {
		select {
		case err := <-served:
			if err != nil {
				return err // the guard starts another
			}
			return guard.End()
		case err := <-guardEnded:
			if err != nil {
				return err
			}
			return becomeGuard(guard, o.Log)
		case <-hup:
			o.Log.Error().Err(become(guard, o.Dir)).Msg("the view cannot make room for another program")
		case <-idle.C:
			if unwanted(ctx, o.Dir, groups) {
				return guard.End()
			}
		case <-term:
			if list, err := groups.List(context.WithoutCancel(ctx)); err == nil && len(list) == 0 {
				return guard.End()
			}
		case <-ctx.Done():
			if list, err := groups.List(context.WithoutCancel(ctx)); err != nil || len(list) > 0 {
				return fmt.Errorf("guests are left: %w", errors.Join(err, errdefs.ErrConflict)) // the guard starts another
			}
			return guard.End()
		}
	}
}

// becomeGuard makes another guard of this process, which starts the server
// again. It returns on errors only.
func becomeGuard(guard *process.Guard, log zerolog.Logger) error {
	const tries = 10 // memory may be short
	var err error
	for range tries {
		err = guard.Renew()
		log.Error().Err(err).Msg("the view cannot make another guard")
		<-time.After(100 * time.Millisecond)
	}
	return err
}

// become makes this process another program, which finds requests under way
// where this one has them. It returns on errors only.
func become(guard *process.Guard, dir string) error {
	text, err := os.ReadFile(commandFile(dir))
	if err != nil {
		return err
	}
	var command []string
	if err := json.Unmarshal(text, &command); err != nil {
		return fmt.Errorf("%s: %w: %w", commandFile(dir), err, errdefs.ErrCorrupt)
	}
	if len(command) == 0 || !filepath.IsAbs(command[0]) {
		return fmt.Errorf("%s: command %q: %w", commandFile(dir), command, errdefs.ErrInvalid)
	}
	if err := guard.Prepare(command, nil); err != nil {
		return err
	}
	return guard.Exec()
}

// unwanted reports whether no engine has the view open and no guest is there
// that could.
func unwanted(ctx context.Context, dir string, groups cgroup.Tree) bool {
	lock, err := os.OpenFile(lockFile(dir), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer func() { _ = lock.Close() }()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	list, err := groups.List(ctx)
	return err == nil && len(list) == 0
}

func commandFile(dir string) string { return dir + ".command" }
func lockFile(dir string) string    { return dir + ".lock" }
func startFile(dir string) string   { return dir + ".start" }
