//go:build functional

package functional

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

// limit is the memory limit of the guest as the kernel has it.
func limit(t *testing.T, id string) string {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/memory/*/" + id + "/memory.limit_in_bytes", "/sys/fs/cgroup/memory/*/*/" + id + "/memory.limit_in_bytes", "/sys/fs/cgroup/*/" + id + "/memory.max"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 1 {
			raw, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(string(raw))
		}
	}
	t.Fatal("no memory limit is found")
	return ""
}

// TestResizeHere: Nova resizes a server on its own host as it runs, reverts and
// confirms; Placement holds what it should.
func TestResizeHere(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{})
	pid := c.firstPid(t, id)
	same := func(what, memory string) {
		t.Helper()
		if now := c.firstPid(t, id); now != pid {
			t.Errorf("%s: the first process is %d, was %d", what, now, pid)
		}
		if got := limit(t, id); got != memory {
			t.Errorf("%s: memory limit %s, want %s", what, got, memory)
		}
	}
	small := servers.ResizeOpts{FlavorRef: c.flavorID(t, "c1.small")}
	resize := func() {
		t.Helper()
		if err := servers.Resize(t.Context(), c.demo.compute, id, small).ExtractErr(); err != nil {
			t.Fatal(err)
		}
		c.waitStatus(t, id, "VERIFY_RESIZE")
	}
	same("before", "67108864")
	resize()
	same("resized", "268435456")
	if err := servers.RevertResize(t.Context(), c.demo.compute, id).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(t, id, "ACTIVE")
	same("reverted", "67108864")
	resize()
	if err := servers.ConfirmResize(t.Context(), c.demo.compute, id).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(t, id, "ACTIVE")
	same("confirmed", "268435456")
	c.openstack(t, c.admin, "server", "migration", "list", "-f", "value")
}
