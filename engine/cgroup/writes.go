package cgroup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// current reads a file of the group that is to be changed, "" if there is none.
// It is nil for a new group, whose files have the kernel's defaults.
type current func(file string) string

// list collects writes for one version.
type list struct {
	f      features
	now    current
	writes []write
}

// old is the value that a file has now, "" when new or absent.
func (l *list) old(file string) string {
	if l.now == nil {
		return ""
	}
	return l.now(file)
}

// put writes a value, if the controller is here.
func (l *list) put(controller string, limit Limit, file string, value any) {
	if l.f.Controllers[controller] {
		l.writes = append(l.writes, write{controller, file, fmt.Sprint(value), limit})
	}
}

// set writes a value when want, and the default when the file may hold another.
func (l *list) set(controller string, limit Limit, file string, want bool, value, reset any) {
	switch old := l.old(file); {
	case want:
		l.put(controller, limit, file, value)
	case old != "" && !same(old, fmt.Sprint(reset)):
		l.put(controller, limit, file, reset)
	}
}

// same compares what was read with what would be written: a limit of v1 that
// is -1 reads as a huge number, or as -1.
func same(old, value string) bool {
	if value == "-1" {
		return number(old) < 0
	}
	return old == value || value == "max" && strings.HasPrefix(old, "max ")
}

// number reads a limit; none, or what is no number, is -1.
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n >= 1<<62 {
		return -1
	}
	return n
}

// deviceKey is "major:minor".
func deviceKey(major, minor int64) string { return fmt.Sprintf("%d:%d", major, minor) }

// keys lists the first words of the lines of a keyed file that name devices
// ("8:0 1048576"), each once, in order.
func keys(text string) []string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		key, _, ok := strings.Cut(strings.TrimSpace(line), " ")
		if major, _, isDevice := strings.Cut(key, ":"); ok && isDevice && number(major) >= 0 && !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	return out
}
