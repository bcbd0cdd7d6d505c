package jail

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The received descriptor may have the number already.
func TestKeepAs(t *testing.T) {
	open := func() int {
		fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	for _, fds := range [][2]int{{open(), open()}, {open(), -1}} {
		if fds[1] < 0 {
			fds[1] = fds[0]
		}
		if err := keepAs(fds[0], fds[1]); err != nil {
			t.Errorf("%v: %v", fds, err)
		}
		if flags, err := unix.FcntlInt(uintptr(fds[1]), unix.F_GETFD, 0); err != nil || flags != 0 {
			t.Errorf("%v: flags %d, %v", fds, flags, err)
		}
	}
}
