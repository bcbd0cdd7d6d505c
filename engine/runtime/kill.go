package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

const sigkill = int(unix.SIGKILL)

// signal sends to the first process and to nobody else: its descriptor is
// checked after it was opened. errdefs.ErrConflict when it has ended.
func (r *Runtime) signal(rec *record, sig int) error {
	pidfd, err := r.open(rec)
	if err != nil {
		return err
	}
	defer func() { _ = pidfd.Close() }()
	err = linux.PidfdSignal(pidfd, sig)
	switch {
	case errors.Is(err, unix.ESRCH):
		return notRunning(rec.ID)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("kill container %s: signal %d: %w", rec.ID, sig, errdefs.ErrInvalid)
	case err != nil:
		return fmt.Errorf("kill container %s: %w", rec.ID, err)
	}
	return nil
}

// open returns a descriptor of the first process.
func (r *Runtime) open(rec *record) (*os.File, error) {
	if rec.Process.Pid == 0 || rec.Process.BootID != r.bootID {
		return nil, notRunning(rec.ID)
	}
	pidfd, err := linux.PidfdOpen(rec.Process.Pid)
	if err != nil {
		return nil, notRunning(rec.ID)
	}
	if !r.alive(rec) {
		_ = pidfd.Close()
		return nil, notRunning(rec.ID)
	}
	return pidfd, nil
}

// Kill sends a signal to the first process, or to all processes of the
// container. It does not wait for an effect. errdefs.ErrConflict when the first
// process has ended; with all, that is no error.
func (r *Runtime) Kill(ctx context.Context, id string, sig int, all bool) error {
	rec, err := r.load(id)
	if err != nil {
		return err
	}
	if sig < 0 || sig > 64 {
		return fmt.Errorf("kill container %s: signal %d: %w", id, sig, errdefs.ErrInvalid)
	}
	if !all {
		return r.signal(rec, sig)
	}
	g, err := r.group(ctx, rec)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if sig == sigkill {
		return g.Kill(ctx)
	}
	pids, err := g.Pids(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.Signal(sig)); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("signal %d: %w", pid, err))
		}
	}
	return join("kill", id, errs...)
}

// Delete removes a stopped container, or one whose creation was cut off, and
// runs the poststop hooks. With force it ends a running one first, and an unknown
// one is nil; without, errdefs.ErrConflict and errdefs.ErrNotFound. A container
// whose record is damaged can be deleted by force.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) error {
	lock, err := r.lock(id)
	if errors.Is(err, errdefs.ErrNotFound) && force {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	rec, err := r.load(id)
	switch {
	case errors.Is(err, errdefs.ErrCorrupt) && force:
		r.log.Warn().Err(err).Str("container", id).Msg("its control group may be left")
		rec = &record{ID: id, Group: id}
	case err != nil:
		return err
	}
	// One that is being created by nobody any more (the lock is ours) goes too.
	if status := r.status(ctx, rec); !force && status != Stopped && status != Creating {
		return fmt.Errorf("cannot delete container %s that is not stopped: %s: %w", id, status, errdefs.ErrConflict)
	}
	return r.remove(ctx, rec)
}

// remove ends what runs of a container and forgets it. The caller holds the
// lock.
func (r *Runtime) remove(ctx context.Context, rec *record) error {
	var poststop []process.Hook
	if rec.Poststop {
		var err error
		if _, poststop, err = r.hooks(rec); err != nil {
			r.log.Warn().Err(err).Str("container", rec.ID).Msg("poststop hooks are lost")
		}
	}
	if err := r.end(ctx, rec); err != nil {
		return join("delete", rec.ID, err)
	}
	// The record goes last, and at once: until then delete can be repeated.
	if err := r.forget(rec.ID); err != nil {
		return join("delete", rec.ID, err)
	}
	r.poststop(ctx, rec, poststop)
	return nil
}

// end kills all processes and removes the control group.
func (r *Runtime) end(ctx context.Context, rec *record) error {
	pidfd, err := r.open(rec)
	if err == nil {
		defer func() { _ = pidfd.Close() }()
	}
	g, gerr := r.group(ctx, rec)
	switch {
	case gerr == nil:
		if err := g.Kill(ctx); err != nil {
			return err
		}
	case !errors.Is(gerr, errdefs.ErrNotFound):
		return gerr
	}
	if err == nil {
		if err := linux.PidfdSignal(pidfd, sigkill); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		if err := linux.AwaitPidfd(pidfd); err != nil {
			return err
		}
	}
	if gerr == nil {
		return g.Delete(ctx)
	}
	return nil
}

// forget removes the directory, under a name that no container has first.
func (r *Runtime) forget(id string) error {
	trash := r.dir("." + id)
	err := os.Rename(r.dir(id), trash)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) { // cut off the last time
		if err = os.RemoveAll(trash); err == nil {
			err = os.Rename(r.dir(id), trash)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// What is there as a rule; RemoveAll would have to look.
	for _, file := range []string{recordFile, configFile} {
		_ = unix.Unlink(filepath.Join(trash, file))
	}
	if unix.Rmdir(trash) == nil {
		return nil
	}
	return os.RemoveAll(trash)
}
