package doctor

import (
	"errors"
	"strconv"
	"strings"
)

// effective returns the effective capabilities of this process (proc_pid_status(5)).
func effective(h *Host) (uint64, error) {
	status, err := h.read("proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(status, "\n") {
		if value, found := strings.CutPrefix(line, "CapEff:"); found {
			return strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	return 0, errors.New("proc/self/status: no CapEff")
}
