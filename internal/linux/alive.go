package linux

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Alive reports whether the process of this pid was started at start (see
// StartTime) and has not ended. One that has ended and that nobody has waited
// for counts as ended.
func Alive(pid int, start uint64) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
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
	data, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "CapPrm:"); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		}
	}
	return 0, fmt.Errorf("process status: no CapPrm")
}
