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

// TestResizeCutOff: a kill of the service in any step of a resize leaves the
// server with what it had before, and Placement knows it.
func TestResizeCutOff(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{network: "none"})
	pid := c.firstPid(t, id)
	small := servers.ResizeOpts{FlavorRef: c.flavorID(t, "c1.small")}
	for _, point := range []string{
		"compute.prep_resize.claimed", "compute.resize_instance.offered", "compute.finish_resize.begun",
		"compute.finish_resize.done", "compute.finish_revert_resize.begun",
	} {
		t.Run(point, func(t *testing.T) {
			c.restart(t, false, "gantry.failpoints="+point+"=kill")
			if err := servers.Resize(t.Context(), c.demo.compute, id, small).ExtractErr(); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(point, "revert") {
				c.waitStatus(t, id, "VERIFY_RESIZE")
				if err := servers.RevertResize(t.Context(), c.demo.compute, id).ExtractErr(); err != nil {
					t.Fatal(err)
				}
			}
			c.startAfter(t, point)
			eventually(t, bootLimit, "the server is what it was", func() bool {
				s := c.server(t, id)
				return s.Status == "ACTIVE" && s.TaskState == ""
			})
			if now, got := c.firstPid(t, id), limit(t, id); now != pid || got != "67108864" {
				t.Errorf("first process %d, was %d; memory limit %s", now, pid, got)
			}
			eventually(t, bootLimit, "placement holds 64 MiB for it", func() bool { return c.memoryOf(t, id) == 64 })
		})
	}
	eventually(t, bootLimit, "placement holds 64 MiB on the host: no migration has kept its own", func() bool { return c.memoryUsed(t) == 64 })
}

// memoryOf is what the server holds in placement (MiB).
func (c *cloud) memoryOf(t *testing.T, id string) (sum int) {
	t.Helper()
	var body struct {
		Allocations map[string]struct {
			Resources map[string]int `json:"resources"`
		} `json:"allocations"`
	}
	resp, err := c.admin.placement.Get(t.Context(), c.admin.placement.Endpoint+"allocations/"+id, &body, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for _, a := range body.Allocations {
		sum += a.Resources["MEMORY_MB"]
	}
	return sum
}

// memoryUsed is what everybody holds on the host of the test (MiB).
func (c *cloud) memoryUsed(t *testing.T) int {
	t.Helper()
	return c.memoryOn(t, nodeName(t))
}

// memoryOn is what everybody holds on a host (MiB).
func (c *cloud) memoryOn(t *testing.T, node string) int {
	t.Helper()
	return c.usedOn(t, node, "MEMORY_MB")
}

// usedOn is what everybody holds of a resource class on a host.
func (c *cloud) usedOn(t *testing.T, node, class string) int {
	t.Helper()
	var list struct {
		Providers []struct {
			UUID string `json:"uuid"`
			Name string `json:"name"`
		} `json:"resource_providers"`
	}
	resp, err := c.admin.placement.Get(t.Context(), c.admin.placement.Endpoint+"resource_providers?name="+node, &list, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if len(list.Providers) != 1 {
		t.Fatalf("providers called %s: %v", node, list.Providers)
	}
	var use struct {
		Usages map[string]int `json:"usages"`
	}
	resp, err = c.admin.placement.Get(t.Context(), c.admin.placement.Endpoint+"resource_providers/"+list.Providers[0].UUID+"/usages", &use, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return use.Usages[class]
}
