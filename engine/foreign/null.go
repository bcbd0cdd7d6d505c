package foreign

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openNull opens a null device that is nobody else's: crun and others give
// what they inherit as stdin, stdout and stderr to the container's user, and
// the host's /dev/null must stay the host's. It lies on a file system that is
// mounted nowhere and goes with the last descriptor.
func openNull() (*os.File, error) {
	fail := func(step string, err error) (*os.File, error) {
		return nil, fmt.Errorf("null device: %s: %w", step, err)
	}
	config, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fail("fsopen", err)
	}
	defer func() { _ = unix.Close(config) }()
	if err := unix.FsconfigCreate(config); err != nil {
		return fail("fsconfig", err)
	}
	dir, err := unix.Fsmount(config, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fail("fsmount", err)
	}
	defer func() { _ = unix.Close(dir) }()
	if err := unix.Mknodat(dir, "null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		return fail("mknod", err)
	}
	fd, err := unix.Openat(dir, "null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail("open", err)
	}
	return os.NewFile(uintptr(fd), "null"), nil
}
