package linux

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// OwnThread runs fn in a thread that ends with it, and whatever fn changed of
// it: credentials, namespaces. It is never the first thread of the process,
// which could not end, and which is what /proc/self shows. fn must not start
// goroutines that rely on what it changed.
func OwnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- fn()
			return // without unlocking: the thread ends
		}
		// while this goroutine keeps the first thread another cannot get it
		done <- OwnThread(fn)
		runtime.UnlockOSThread()
	}()
	return <-done
}

// WithFSIDs runs fn by OwnThread with the file system ids uid and gid and the
// capabilities of the process but for those in without (CAP_…, below 32): what
// fn makes on a file system belongs to those ids.
func WithFSIDs(uid, gid int, fn func() error, without ...int) error {
	return OwnThread(func() error {
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capget(&head, &caps[0]); err != nil {
			return fmt.Errorf("read capabilities: %w", err)
		}
		if err := errors.Join(unix.Setfsgid(gid), unix.Setfsuid(uid)); err != nil {
			return fmt.Errorf("set file system ids: %w", err)
		}
		for _, c := range without {
			caps[0].Effective &^= 1 << c
		}
		// giving up the file system id 0 has dropped capabilities
		if err := unix.Capset(&head, &caps[0]); err != nil {
			return fmt.Errorf("keep capabilities: %w", err)
		}
		return fn()
	})
}
