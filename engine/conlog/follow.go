package conlog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A watcher tells that a log has changed, by inotify(7); where the host has no
// watches left it tells so now and then. The directory is watched for segments
// that come and go, the segment itself for what is written to it: the other
// logs of the directory wake nobody. All methods but watch may be called on nil.
type watcher struct {
	path    string
	f       *os.File // nil without a watch
	segment int      // the watch of the segment that was looked at last
	poke    chan struct{}
	kicked  atomic.Bool
}

const (
	// lookAnyway bounds how long a change of which the kernel did not tell
	// (a network file system's) stays unseen.
	lookAnyway = time.Second
	// lookOften is for a watcher without a watch.
	lookOften = 50 * time.Millisecond
)

func watch(path string) (*watcher, error) {
	w := &watcher{path: path, poke: make(chan struct{}, 1)}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		const what = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_ONLYDIR
		if _, err = unix.InotifyAddWatch(fd, filepath.Dir(path), what); err != nil {
			_ = unix.Close(fd)
		} else {
			w.f = os.NewFile(uintptr(fd), "inotify")
		}
	}
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
		err = nil
	}
	return w, os.NewSyscallError("inotify", err)
}

// renew watches the segment that has the log's name now. It reports whether
// that is another than before: then something may have been written to it that
// nothing tells of.
func (w *watcher) renew() (changed bool) {
	raw, err := w.f.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		wd, err := unix.InotifyAddWatch(int(fd), w.path, unix.IN_MODIFY|unix.IN_DONT_FOLLOW)
		if err == nil && wd != w.segment {
			w.segment, changed = wd, true
		}
	})
	return err == nil && changed
}

// wait returns when the log may have changed, or with ctx's cause.
func (w *watcher) wait(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if w.f == nil {
		timer := time.NewTimer(lookOften)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.poke:
		case <-timer.C:
		}
		return nil
	}
	if w.kicked.Swap(false) || w.renew() {
		return nil
	}
	_ = w.f.SetReadDeadline(time.Now().Add(lookAnyway))
	if w.kicked.Load() { // between the two: the deadline must be that of kick
		_ = w.f.SetReadDeadline(time.Now())
	}
	stop := context.AfterFunc(ctx, func() { _ = w.f.SetReadDeadline(time.Now()) })
	defer stop()
	_, err := w.f.Read(make([]byte, 4096))
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, os.ErrClosed):
		return nil // the reader looks itself
	}
	return err
}

// kick ends a wait.
func (w *watcher) kick() {
	if w == nil {
		return
	}
	w.kicked.Store(true)
	if w.f != nil {
		_ = w.f.SetReadDeadline(time.Now())
	}
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

func (w *watcher) close() error {
	if w == nil {
		return nil
	}
	w.kick()
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}
