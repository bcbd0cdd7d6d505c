package cgroup

import (
	"strconv"
	"strings"
)

// flatKey reads one number of a "flat keyed" file (cgroup-v2.rst, Format): a
// key, a space and a value on each line. Absent or unreadable is 0.
func flatKey(text, key string) int64 {
	for line := range strings.SplitSeq(text, "\n") {
		if k, v, ok := strings.Cut(line, " "); ok && k == key {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
