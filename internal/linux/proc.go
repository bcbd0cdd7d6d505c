package linux

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// StartTime returns field 22 of /proc/PID/stat: when the process was started,
// in clock ticks since boot. With the pid and BootID it names a process beyond
// reuse of the pid.
func StartTime(pid int) (uint64, error) {
	data, err := ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseStartTime(data)
}

// parseStartTime reads proc_pid_stat(5). The second field is the command's
// name in parentheses, which may hold spaces and parentheses itself.
func parseStartTime(stat []byte) (uint64, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, fmt.Errorf("process stat %q: no command name", stat)
	}
	fields := strings.Fields(string(stat[end+1:]))
	const index = 22 - 3 // the first field after the name is number 3
	if len(fields) <= index {
		return 0, fmt.Errorf("process stat %q: too few fields", stat)
	}
	t, err := strconv.ParseUint(fields[index], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("process stat start time: %w", err)
	}
	return t, nil
}

// BootID returns the identifier of the running boot of the kernel.
func BootID() (string, error) {
	data, err := ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(data)), nil
}

// UnifiedCgroups reports whether /sys/fs/cgroup is a pure cgroup v2 tree.
func UnifiedCgroups() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && int64(st.Type) == unix.CGROUP2_SUPER_MAGIC
}
