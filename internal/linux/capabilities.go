package linux

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// secbitNoRoot: a program that root executes has no capabilities for that
// (include/uapi/linux/securebits.h, SECBIT_NOROOT).
const secbitNoRoot = 1 << 0

// WithoutCapabilities returns nil in a process that has no capabilities, and
// otherwise executes the program anew, with the same arguments, environment and
// files, without any: it and what it executes cannot get them back by being root.
// Call it early: what the process has done so far is lost. It returns an error
// where it could do neither.
func WithoutCapabilities() error {
	have, err := Capabilities()
	if err != nil || have == 0 {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	runtime.LockOSThread() // capabilities are a thread's
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, secbitNoRoot, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_SECUREBITS", err)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	return fmt.Errorf("execute %s: %w", self, syscall.Exec(self, os.Args, os.Environ()))
}
