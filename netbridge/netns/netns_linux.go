package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Open opens the network namespace that is pinned at path (a bind mount of it,
// or /proc/PID/ns/net). Anything else there, or nothing, is
// errdefs.ErrNotFound: the namespace does not exist. The caller closes it.
func Open(path string) (*os.File, error) {
	// O_NONBLOCK: a pipe at this path must not block us.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open network namespace %s: %w", path, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		_ = f.Close()
		return nil, fmt.Errorf("open network namespace %s: not one: %w", path, errdefs.ErrNotFound)
	}
	return f, nil
}

// Do runs fn on a thread that is inside the namespace ns, or inside the
// caller's when ns is nil, and returns its error. fn must not start goroutines
// that rely on the namespace.
func Do(ns *os.File, fn func() error) error {
	if ns == nil {
		return fn()
	}
	return away(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// New makes a network namespace that lives as long as the returned file, or
// longer if something is put inside or pins it. The file's path as
// /proc/self/fd/N is a path for Open.
func New() (f *os.File, err error) {
	err = away(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return f, err
}

// away runs fn, which may change the thread's network namespace, on a thread
// of its own, and brings that thread back. One that cannot go back stays
// locked, and so ends with its goroutine. That is not the normal way: the
// process's first thread would never end, and would hold the namespace.
func away(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open own network namespace: %w", err)
			return
		}
		defer own.Close()
		err = fn()
		if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
