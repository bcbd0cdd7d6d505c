package linux

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// WithFSIDs runs fn on a thread of its own whose file system ids are uid and
// gid and which has all capabilities that the process has: what fn makes on a
// file system belongs to those ids. The thread is given up afterwards. fn must
// not start goroutines that rely on the ids.
func WithFSIDs(uid, gid int, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// not unlocked: the thread ends with the goroutine and takes its
		// credentials along
		runtime.LockOSThread()
		done <- func() error {
			head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var caps [2]unix.CapUserData
			if err := unix.Capget(&head, &caps[0]); err != nil {
				return fmt.Errorf("read capabilities: %w", err)
			}
			if err := errors.Join(unix.Setfsgid(gid), unix.Setfsuid(uid)); err != nil {
				return fmt.Errorf("set file system ids: %w", err)
			}
			// giving up the file system id 0 has dropped capabilities
			if err := unix.Capset(&head, &caps[0]); err != nil {
				return fmt.Errorf("keep capabilities: %w", err)
			}
			return fn()
		}()
	}()
	return <-done
}
