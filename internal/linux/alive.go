package linux

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Alive reports whether the process of this pid was started at start (see
// StartTime) and has not ended. One that has ended and that nobody has waited
// for counts as ended.
func Alive(pid int, start uint64) bool {
	data, err := ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	got, err := parseStartTime(data)
	if err != nil || got != start {
		return false
	}
	_, rest, _ := bytes.Cut(data[bytes.LastIndexByte(data, ')'):], []byte(" "))
	return len(rest) > 0 && rest[0] != 'Z' && rest[0] != 'X' && rest[0] != 'x'
}

// Capabilities returns the calling thread's permitted set, a bit for each
// number of linux/capability.h.
func Capabilities() (uint64, error) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return 0, os.NewSyscallError("capget", err)
	}
	return uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted), nil
}
