//go:build functional

package functional

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

// stockHost starts a nova-compute with Nova's fake driver beside gantry and
// returns its host name, which is that of its node too.
func (c *cloud) stockHost(t *testing.T) string {
	t.Helper()
	name := "stock-" + strconv.FormatInt(time.Now().UnixNano(), 36) // Nova does not map a host again whose service was deleted
	control := func(ctx context.Context, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, filepath.Join(controlplane(), "compute-fake"), args...)
		// no agent: its servers have no ports
		cmd.Env = append(os.Environ(), "STATE="+c.state, "FAKE_HOST="+name, "WITH_NEUTRON=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("compute-fake %v: %v: %s", args, err, out)
		}
	}
	id := ""
	t.Cleanup(func() {
		control(context.WithoutCancel(t.Context()), "stop")
		if id != "" {
			c.openstackCleanup(t, "--os-compute-api-version", "2.92", "compute", "service", "delete", id)
		}
	})
	control(t.Context())
	id = strings.TrimSpace(c.openstack(t, c.admin, "compute", "service", "list", "--host", name, "-f", "value", "-c", "ID"))
	return name
}

// on boots a server on the host.
func (c *cloud) on(t *testing.T, host, name string) string {
	t.Helper()
	var made struct{ ID string }
	c.openstackJSON(t, &made, c.admin, "server", "create", "--image", "busybox", "--flavor", "c1.tiny", "--network", "none", "--host", host, "--wait", name)
	t.Cleanup(func() { c.remove(t, made.ID) })
	return made.ID
}

// TestMixedCloud: beside a stock nova-compute servers go where their image or
// flavor belongs, and no move takes them to a hypervisor of another kind.
func TestMixedCloud(t *testing.T) {
	c := the
	stock := c.stockHost(t)
	file := filepath.Join(c.state, "images/busybox.tar")
	c.flavorWith(t, "mixed.container", 64, flavors.ExtraSpecsOpts{"trait:CUSTOM_HV_CONTAINER": "required"})
	c.flavorWith(t, "mixed.machine", 64, flavors.ExtraSpecsOpts{"trait:CUSTOM_HV_CONTAINER": "forbidden"})
	// what decides, and the host that it decides for
	for _, tc := range []struct{ what, image, flavor, host string }{
		{"image for containers", c.upload(t, "mixed-docker", "bare", file, map[string]string{"hypervisor_type": "docker"}), "c1.tiny", host},
		{"image for another hypervisor", c.upload(t, "mixed-fake", "bare", file, map[string]string{"hypervisor_type": "fake"}), "c1.tiny", stock},
		{"flavor that requires the trait", "busybox", "mixed.container", host},
		{"flavor that forbids the trait", "busybox", "mixed.machine", stock},
	} {
		// the weights of the hosts change with each server, the answer does not
		for range 2 {
			id := c.active(t, bootOpts{name: "mixed", image: tc.image, flavor: tc.flavor, network: "none"})
			if got := c.server(t, id).Host; got != tc.host {
				t.Errorf("%s: on %s, want %s", tc.what, got, tc.host)
			}
		}
	}

	ours, theirs := c.on(t, host, "mixed-ours"), c.on(t, stock, "mixed-theirs")
	pid := c.firstPid(t, ours)
	for _, move := range []struct{ id, from, to string }{{ours, host, stock}, {theirs, stock, host}} {
		actAs(t, c.admin, move.id, map[string]any{"migrate": map[string]any{"host": move.to}})
		c.failedMove(t, move.id)
		eventually(t, bootLimit, "the server is as before", func() bool {
			s := c.server(t, move.id)
			return s.Status == "ACTIVE" && s.TaskState == "" && s.Host == move.from && s.PowerState == servers.RUNNING
		})
		eventually(t, bootLimit, "it holds in placement what it held", func() bool { return c.memoryOf(t, move.id) == 64 })
	}
	if now := c.firstPid(t, ours); now != pid {
		t.Errorf("the server's process was %d and is %d", pid, now)
	}
	if left := c.traces(theirs); len(left) != 0 {
		t.Errorf("left of the other host's server: %q", left)
	}
}

// failedMove waits until the last migration of the server has failed.
func (c *cloud) failedMove(t *testing.T, id string) {
	t.Helper()
	eventually(t, bootLimit, "the migration of "+id+" fails", func() bool {
		out, err := c.tryOpenstack(t, c.admin, "server", "migration", "list", "--server", id, "-f", "value", "-c", "Status")
		return err == nil && strings.TrimSpace(out) == "error"
	})
}
