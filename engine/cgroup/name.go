package cgroup

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// validName accepts one path element that cannot be a file of the kernel's.
func validName(name string) error {
	if name == "" || len(name) > 128 || name[0] == '.' || strings.ContainsAny(name, "/\x00\n") ||
		slices.ContainsFunc(reserved[:], func(p string) bool { return strings.HasPrefix(name, p) }) {
		return fmt.Errorf("control group %q: not a name: %w", name, errdefs.ErrInvalid)
	}
	return nil
}

var reserved = [...]string{
	"cgroup.", "cpu.", "cpuacct.", "cpuset.", "memory.", "pids.", "freezer.", "devices.", "blkio.", "io.", "hugetlb.", "misc.", "rdma.",
	"tasks", "notify_on_release", "release_agent",
}
