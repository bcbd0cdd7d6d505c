package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// ServeOptions of Serve.
type ServeOptions struct {
	// Socket is an absolute path. Its directory is made with mode 0700 if
	// absent, and refused if others than its owner may enter it.
	Socket string
	Log    zerolog.Logger
	// IdleExit ends Serve when no process has been known and no client been
	// connected for so long; 0 never. A client from Ensure stays connected.
	IdleExit time.Duration
	// OwnsProcess says that the calling process does nothing else: Serve then
	// tunes the garbage collector for little memory, and uses the guard that
	// has started the process, if one has.
	OwnsProcess bool
	// Foreign, if any, starts processes by other runtimes.
	Foreign process.Foreign
	// Restore, if any, brings back processes from checkpoints.
	Restore process.Restorer
	// Build names the program, for Options.Build of Ensure.
	Build string
}

// leaveGrace is how long requests under way may take when a keeper is to make
// room for another.
const leaveGrace = 10 * time.Second

// lockGrace is how long the lock of a keeper that was killed may outlive it.
const lockGrace = 5 * time.Second

// Serve keeps processes for the clients of a socket until ctx ends or it has
// been idle for long enough; then it returns nil. If another keeper serves the
// socket the error is errdefs.ErrAlreadyExists.
//
// With a guard, processes that still run are the next keeper's, which the guard
// starts as soon as the calling process has ended; if none is known the guard
// ends too. When the guard is killed, or a client asks for another program,
// Serve does not return: the process becomes that. Without a guard, processes
// run on, but their consoles end.
//
// Only root and the keeper's own user are served.
func Serve(ctx context.Context, o ServeOptions) error {
	if err := serve(ctx, o); err != nil {
		return fmt.Errorf("serve keeper on %s: %w", o.Socket, err)
	}
	return nil
}

func serve(ctx context.Context, o ServeOptions) error {
	var guard *process.Guard
	if o.OwnsProcess {
		tune()
		var err error
		if guard, err = process.InheritGuard(); err != nil {
			return err
		}
	}
	if err := prepareDirectory(o.Socket); err != nil {
		return err
	}
	lock, err := takeLock(o.Socket + ".lock")
	if guard != nil && errors.Is(err, errdefs.ErrAlreadyExists) {
		// A child that the keeper before this one had just forked holds the
		// lock until it executes something.
		if lock, err = awaitLock(ctx, o.Socket+".lock"); err != nil {
			err = errors.Join(err, guard.End()) // it would try for ever
		}
	}
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	runner, err := process.New(process.Options{Log: o.Log, Guard: guard, Foreign: o.Foreign, Restore: o.Restore, Resident: true})
	if err != nil {
		return err
	}
	if guard != nil {
		guard.Confirm()
	}
	if o.OwnsProcess {
		if err := linux.CalmMonitor(); err != nil {
			o.Log.Warn().Err(err).Msg("the runtime's monitor is as busy as ever")
		}
		if err := linux.Shed(); err != nil {
			o.Log.Warn().Err(err).Msg("memory of the start is kept")
		}
	}
	s := newServer(o, runner, guard)
	why, err := s.serve(ctx)
	switch {
	case guard == nil:
		return errors.Join(err, runner.Close())
	case err != nil:
		return err // the guard starts another
	case why == leftForAnother:
		return s.makeRoom(guard.Exec)
	case why == leftByGuard:
		return s.makeRoom(guard.Renew)
	}
	if list, err := runner.List(ctx); err == nil && len(list) == 0 {
		return guard.End()
	}
	return nil
}

// makeRoom turns this process into something else, which become does.
func (s *server) makeRoom(become func() error) error {
	s.runner.Suspend(leaveGrace)
	const tries = 10 // memory may be short
	var err error
	for range tries {
		err = become()
		s.log.Error().Err(err).Msg("keeper cannot make room")
		<-time.After(100 * time.Millisecond)
	}
	return err
}

func prepareDirectory(socket string) error {
	if !filepath.IsAbs(socket) {
		return fmt.Errorf("socket %q is not an absolute path: %w", socket, errdefs.ErrInvalid)
	}
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("directory %s has mode %#o, want 0700: %w", dir, info.Mode().Perm(), errdefs.ErrForbidden)
	}
	return nil
}

// takeLock locks a file for as long as it is open, by any process;
// errdefs.ErrAlreadyExists and nil when somebody else holds the lock.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errdefs.ErrAlreadyExists
		}
		return nil, err
	}
	return f, nil
}

// awaitLock waits a while for a lock.
func awaitLock(ctx context.Context, path string) (*os.File, error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for deadline := time.Now().Add(lockGrace); ; {
		lock, err := takeLock(path)
		if !errors.Is(err, errdefs.ErrAlreadyExists) || time.Now().After(deadline) {
			return lock, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// guardLock is the file that guard and keeper hold locked together: by an open
// file description lock (fcntl(2)), which can be asked for without taking it.
func guardLock(socket string) string { return socket + ".guard" }

func wholeFile() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK, Whence: 0} }

// takeGuardLock returns errdefs.ErrAlreadyExists while a guard or a keeper of
// one lives.
func takeGuardLock(socket string) (*os.File, error) {
	f, err := os.OpenFile(guardLock(socket), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, wholeFile()); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = errdefs.ErrAlreadyExists
		}
		return nil, err
	}
	return f, nil
}

// guarded reports whether a guard or a keeper of one lives.
func guarded(socket string) bool {
	f, err := os.OpenFile(guardLock(socket), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	lock := wholeFile()
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, lock) == nil && lock.Type != unix.F_UNLCK
}

// tune trades processor time, of which a keeper uses next to none, for memory. One
// processor is enough: what it does is system calls, and the runtime spends more on
// handing goroutines to a second one, and on looking after that, than it gains.
func tune() {
	debug.SetGCPercent(20)
	runtime.GOMAXPROCS(1)
	linux.GrowFiles(1000)
}

// listen makes the socket anew.
func listen(socket string) (*net.UnixListener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
}
