//go:build linux

package cgroup_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/cgroup/cgrouptest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// The owner of a delegated group makes a bounded number of groups, and changes
// no limit; a process is found where it is, and only inside.
func TestDelegate(t *testing.T) {
	const owner = 1000000
	eachLayout(t, func(t *testing.T, tree cgroup.Tree) {
		g := create(t, tree, cgrouptest.Limits())
		if !tree.Supports(cgroup.LimitUnified) {
			_, unfound := g.DirOf(os.Getpid())
			if err := g.Delegate(t.Context(), owner, 2); !errors.Is(err, errdefs.ErrUnsupported) || !errors.Is(unfound, errdefs.ErrUnsupported) {
				t.Errorf("without cgroup v2: %v, %v", err, unfound)
			}
			return
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := g.Delegate(ended, owner, 2); !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v", err)
		}
		check(t, g.Delegate(t.Context(), owner, 2))
		_, cmd := start(t, g, "sleep")
		dir, err := g.DirOf(cmd.Process.Pid)
		check(t, err)
		defer dir.Close()
		files, err := os.ReadDir(dir.Name())
		check(t, err)
		owned := map[string]bool{}
		for _, f := range files {
			info, err := f.Info()
			check(t, err)
			if info.Sys().(*syscall.Stat_t).Uid == owner {
				owned[f.Name()] = true
			}
		}
		if len(owned) != 3 || !owned["cgroup.procs"] || !owned["cgroup.threads"] || !owned["cgroup.subtree_control"] {
			t.Errorf("the owner has %v", owned)
		}
		for n, name := range []string{"a", "a/b", "c"} {
			if err := os.Mkdir(filepath.Join(dir.Name(), name), 0o755); (err == nil) != (n < 2) {
				t.Errorf("group %d of 2: %v", n+1, err)
			}
		}
		if _, err := g.DirOf(os.Getpid()); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("a process that is not inside: %v", err)
		}
		check(t, g.Kill(t.Context()))
		check(t, g.Delete(t.Context()))
		if err := g.Delegate(t.Context(), owner, 2); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("a group that is gone: %v", err)
		}
	})
}
