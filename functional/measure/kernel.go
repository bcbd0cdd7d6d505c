package measure

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// KiB is the figure of one line of a file such as /proc/meminfo and
// /proc/PID/smaps_rollup; name has the colon.
func KiB(path, name string) (float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 1 && f[0] == name {
			return strconv.ParseFloat(f[1], 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// PSS is the proportional set size of all these processes in MiB.
func PSS(pids []int) (mib float64, err error) {
	for _, pid := range pids {
		kib, err := KiB(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
		if err != nil {
			return 0, err
		}
		mib += kib / 1024
	}
	return mib, nil
}

// Load is the first three figures of /proc/loadavg: what else the machine did.
func Load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	f := strings.Fields(string(text))
	return strings.Join(f[:min(3, len(f))], " ")
}
