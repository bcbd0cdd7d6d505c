package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/view/fuse"
	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// EnsureOptions of Ensure.
type EnsureOptions struct {
	// Dir is the absolute path of where the view is mounted; it is made if absent.
	// Files beside it have its name with an ending.
	Dir string
	// Command runs Serve with the same Dir; Command[0] is an absolute path. It is
	// started without an environment.
	Command []string
	// LogFile receives the server's output, appended; empty for /dev/null.
	LogFile string
	// Build names Command's program. A server of another build becomes Command,
	// under guests that read. "" takes any.
	Build string
}

// View is a view that is served. Close it when done.
type View struct {
	dir  string
	lock *os.File
}

// answerLimit bounds how long a server may take to answer, replaceLimit to become
// another program. Both are for hosts that are very busy.
const (
	answerLimit  = 30 * time.Second
	replaceLimit = 30 * time.Second
	pollEvery    = 2 * time.Millisecond
)

// Ensure finds the view that is mounted at Dir, or mounts one and starts its
// server, detached from the calling process. Several callers at once end up with
// one. errdefs.ErrUnsupported: this host has no FUSE. An error with a View says
// that the server is still of another build.
func Ensure(ctx context.Context, o EnsureOptions) (_ *View, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("show guests their own view: %w", err)
		}
	}()
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("directory %q is not an absolute path: %w", o.Dir, errdefs.ErrInvalid)
	}
	if err := os.MkdirAll(filepath.Dir(o.Dir), 0o700); err != nil {
		return nil, err
	}
	lock, err := locked(ctx, lockFile(o.Dir), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	turn, err := locked(ctx, startFile(o.Dir), unix.LOCK_EX)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	defer func() { _ = turn.Close() }()
	v := &View{dir: o.Dir, lock: lock}
	s, err := status(ctx, o.Dir)
	switch {
	case err == nil && (o.Build == "" || s.Build == o.Build):
		return v, nil
	case err == nil:
		return v, replace(ctx, o, s)
	case ctx.Err() != nil:
	default:
		err = start(ctx, o)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return v, nil
}

// Dir is where the view is mounted.
func (v *View) Dir() string { return v.dir }

// Close lets go of the view. With end, for a caller who knows that no guest has
// it, it is unmounted, and Close returns when its server has ended, or ctx has.
func (v *View) Close(ctx context.Context, end bool) error {
	var err error
	if end {
		err = endServer(ctx, v.dir)
	}
	return errors.Join(err, v.lock.Close())
}

// endServer unmounts the view and waits for its server.
func endServer(ctx context.Context, dir string) error {
	s, err := status(ctx, dir)
	if err != nil { // nobody to wait for
		return unmount(dir)
	}
	server, err := linux.PidfdOpen(s.Pid)
	if err != nil {
		return errors.Join(unmount(dir), err)
	}
	defer func() { _ = server.Close() }()
	if again, err := status(ctx, dir); err != nil || again != s {
		return unmount(dir)
	}
	if err := unmount(dir); err != nil {
		return err
	}
	// a mount namespace that was made meanwhile has a copy of the mount: the
	// server would go on for that
	if err := linux.PidfdSignal(server, int(unix.SIGTERM)); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = server.SetReadDeadline(time.Unix(1, 0)) })()
	return linux.AwaitPidfd(server)
}

// End takes the view off dir, and returns when its server has ended, or ctx has.
// It does nothing while somebody has it open.
func End(ctx context.Context, dir string) error {
	lock, err := os.OpenFile(lockFile(dir), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "lock", Path: lock.Name(), Err: err}
	}
	return endServer(ctx, dir)
}

// Remove takes the view and its files off dir, whether it is served or not.
func Remove(dir string) error {
	err := unmount(dir)
	for _, name := range []string{commandFile(dir), lockFile(dir), startFile(dir), dir} {
		if rerr := os.Remove(name); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

func unmount(dir string) error {
	const most = 16 // mounts on top of one another
	for range most {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil && st.Type != unix.FUSE_SUPER_MAGIC || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err := fuse.Unmount(dir); err != nil {
			return err
		}
	}
	return nil
}

// locked returns a file that is locked as long as it is open.
func locked(ctx context.Context, path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return nil, errors.Join(&os.PathError{Op: "lock", Path: path, Err: err}, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-tick.C:
		}
	}
}

// status is readStatus with a bound.
func status(ctx context.Context, dir string) (Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerLimit, fmt.Errorf("no answer after %s: %w", answerLimit, errdefs.ErrUnavailable))
	defer cancel()
	return readStatus(ctx, dir)
}

// start mounts a new view in the place of one that nobody serves, and returns
// when its server answers.
func start(ctx context.Context, o EnsureOptions) (err error) {
	if err := unmount(o.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	name := o.LogFile
	if name == "" {
		name = os.DevNull
	}
	output, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }()
	device, err := fuse.Mount(o.Dir)
	if err != nil {
		return err
	}
	defer func() {
		_ = device.Close() // the guard has it
		if err != nil {
			err = errors.Join(err, fuse.Unmount(o.Dir))
		}
	}()
	guard, err := process.StartGuard(ctx, process.GuardOptions{Command: o.Command, Output: output, Lock: device})
	if err != nil {
		return err
	}
	defer func() { _ = guard.Close() }()
	if err := awaitServer(ctx, o.Dir, guard); err != nil {
		return errors.Join(err, guard.Kill())
	}
	return nil
}

// awaitServer returns when the server answers, or with an error when it has
// ended instead.
func awaitServer(ctx context.Context, dir string, guard *process.StartedGuard) error {
	answered := make(chan error, 1)
	go func() {
		_, err := status(ctx, dir)
		answered <- err
	}()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-answered:
			return err
		case <-tick.C:
			if gone, err := guard.CommandEnded(); gone || err != nil {
				return fmt.Errorf("the server ended at once: %w", errors.Join(err, errdefs.ErrUnavailable))
			}
		}
	}
}

// replace makes the server become o.Command.
func replace(ctx context.Context, o EnsureOptions, s Status) error {
	text, err := json.Marshal(o.Command)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(commandFile(o.Dir), text, 0o600); err != nil {
		return err
	}
	server, err := linux.PidfdOpen(s.Pid)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	if again, err := status(ctx, o.Dir); err != nil || again != s {
		return errors.Join(err, fmt.Errorf("the server changed meanwhile: %w", errdefs.ErrConflict))
	}
	if err := linux.PidfdSignal(server, int(unix.SIGHUP)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, replaceLimit, fmt.Errorf("it is of %s after %s: %w", s.Build, replaceLimit, errdefs.ErrUnavailable))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		now, err := readStatus(ctx, o.Dir)
		if err == nil && now.Build == o.Build {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
