package cgroup

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	maxNameDepth = 16
	maxNameBytes = 1024
)

// resolve turns the name of a group into its path below the root of each
// hierarchy, for a tree at a path. It accepts elements that cannot be files of
// the kernel's, and refuses the tree itself and what it lies in.
func resolve(tree, name string) (path string, err error) {
	path, absolute := strings.CutPrefix(name, "/")
	if !absolute {
		path = tree + "/" + name
	}
	elements := strings.Split(path, "/")
	if len(name) > maxNameBytes || len(elements) > maxNameDepth || slices.ContainsFunc(elements, badElement) ||
		strings.HasPrefix(tree+"/", path+"/") {
		return "", fmt.Errorf("control group %q: not a name: %w", name, errdefs.ErrInvalid)
	}
	return path, nil
}

// badElement refuses what is no name of a directory of ours.
func badElement(s string) bool {
	return s == "" || len(s) > 128 || s[0] == '.' || strings.ContainsAny(s, "/\x00\n") ||
		slices.ContainsFunc(reserved[:], func(p string) bool { return strings.HasPrefix(s, p) })
}

// validTree accepts the path of a tree below the root of each hierarchy.
func validTree(path string) error {
	if len(path) > maxNameBytes || slices.ContainsFunc(strings.Split(path, "/"), badElement) {
		return fmt.Errorf("control group %q: not a name: %w", path, errdefs.ErrInvalid)
	}
	return nil
}

var reserved = [...]string{
	"cgroup.", "cpu.", "cpuacct.", "cpuset.", "memory.", "pids.", "freezer.", "devices.", "blkio.", "io.", "hugetlb.", "misc.", "rdma.",
	"net_cls.", "net_prio.", "irq.", "dmem.", "tasks", "notify_on_release", "release_agent",
}
