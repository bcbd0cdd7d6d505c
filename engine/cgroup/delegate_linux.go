package cgroup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// delegated are the files of a group that its new owner writes: where its
// processes are and what its sub-groups have, but none of its limits
// (cgroup-v2.rst, Model of Delegation).
var delegated = []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}

// Delegate implements Delegator.
func (g *group) Delegate(ctx context.Context, owner uint32, subgroups int) error {
	n, ok := g.t.unified()
	if err := ctx.Err(); err != nil || !ok {
		if err == nil {
			err = fmt.Errorf("no cgroup v2: %w", errdefs.ErrUnsupported)
		}
		return g.wrap("delegate", err)
	}
	dir := g.dir(n)
	if !g.has(n) {
		return g.wrap("delegate", errdefs.ErrNotFound)
	}
	if err := writeFile(dir, "cgroup.max.descendants", strconv.Itoa(subgroups)); err != nil {
		return g.wrap("delegate", classify(err))
	}
	for _, file := range delegated {
		if err := unix.Lchown(filepath.Join(dir, file), int(owner), int(owner)); err != nil {
			return g.wrap("delegate", fmt.Errorf("chown %s: %w", file, classify(err)))
		}
	}
	return nil
}

// DirOf implements Delegator.
func (g *group) DirOf(pid int) (*os.File, error) {
	n, ok := g.t.unified()
	if !ok {
		return nil, g.wrap("find", fmt.Errorf("no cgroup v2: %w", errdefs.ErrUnsupported))
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil, g.wrap("find", fmt.Errorf("%w: %w", err, errdefs.ErrNotFound))
	}
	dir := filepath.Join(n.Path, parseMembership(string(text))["cgroup2"])
	if own := g.dir(n); dir != own && !strings.HasPrefix(dir, own+"/") {
		return nil, g.wrap("find", fmt.Errorf("process %d is in %s: %w", pid, dir, errdefs.ErrNotFound))
	}
	fd, err := linux.OpenFd(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, g.wrap("find", fmt.Errorf("%w: %w", err, errdefs.ErrNotFound))
	}
	return os.NewFile(uintptr(fd), dir), nil
}
