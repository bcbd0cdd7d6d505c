package processtest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/linux"
)

func tail(t *testing.T, log string) string {
	t.Helper()
	out, err := conlog.Tail(log, 0, 0)
	must(t, err)
	return string(out)
}

// testControlGroupMounts: the container sees its own part of each tree, and
// cannot write to it.
func testControlGroupMounts(t *testing.T, r real) {
	tree := "/sys/fs/cgroup/pids"
	if linux.UnifiedCgroups() {
		tree = "/sys/fs/cgroup"
	}
	group, err := os.MkdirTemp(tree, "gantry-test-")
	must(t, err)
	t.Cleanup(func() {
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	must(t, os.Chmod(group, 0o755))
	must(t, os.Mkdir(filepath.Join(group, "own"), 0o755))
	t.Cleanup(func() {
		if err := os.Remove(filepath.Join(group, "own")); err != nil {
			t.Error(err)
		}
	})
	procs, err := os.OpenFile(filepath.Join(group, "cgroup.procs"), os.O_WRONLY, 0)
	must(t, err)
	defer func() { must(t, procs.Close()) }()
	joined := func(s *process.Spec) { s.CgroupFiles = []*os.File{procs} }
	script := "ls -d " + tree + "/own; mkdir " + tree + "/x 2>/dev/null || echo ro"
	r.expect(t, script, tree+"/own\nro\n", joined)
	// All trees of the host, without a namespace of their own.
	all := func(s *process.Spec) {
		s.Mounts = slices.Clone(s.Mounts)
		s.Mounts[6].Options = []string{"ro", "nosuid", "nodev", "noexec"}
	}
	r.expect(t, script, tree+"/own\nro\n", joined, all)
	r.expect(t, script, tree+"/own\nro\n", joined, all, func(s *process.Spec) {
		s.Namespaces = slices.DeleteFunc(slices.Clone(s.Namespaces), func(n process.Namespace) bool { return n.Kind == process.CgroupNamespace })
	})
	if linux.UnifiedCgroups() {
		return
	}
	entries, err := os.ReadDir("/sys/fs/cgroup")
	must(t, err)
	var want []string
	for _, e := range entries {
		want = append(want, e.Name())
	}
	r.expect(t, "ls -1 /sys/fs/cgroup", strings.Join(want, "\n")+"\n", all)
	r.expect(t, "ls -1 /sys/fs/cgroup", "cpu\ncpuacct\nmemory\npids\n")
	r.expect(t, "ls /sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/cgroup.procs\n", func(s *process.Spec) {
		s.Mounts = slices.Clone(s.Mounts)
		s.Mounts[6].Type, s.Mounts[6].Options = "cgroup2", []string{"ro"}
	})
}
