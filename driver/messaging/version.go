package messaging

import (
	"strconv"
	"strings"
)

// compatible reports whether an implementation of version have serves a
// request that needs version want: same major, minor not newer. A third part
// is ignored (oslo_messaging/_utils.py, version_is_compatible).
func compatible(have, want string) bool {
	hMajor, hMinor, ok1 := parseVersion(have)
	wMajor, wMinor, ok2 := parseVersion(want)
	return ok1 && ok2 && hMajor == wMajor && wMinor <= hMinor
}

func parseVersion(v string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(v, ".")
	second, _, _ := strings.Cut(rest, ".")
	if second == "" {
		second = "0"
	}
	major, err1 := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(second)
	return major, minor, err1 == nil && err2 == nil && major >= 0 && minor >= 0
}
