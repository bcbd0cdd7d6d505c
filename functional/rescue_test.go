//go:build functional

package functional

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

// guestFile reads a file as the guest's first process sees it.
func (c *cloud) guestFile(t *testing.T, id, name string) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", c.firstPid(t, id), name))
	if err != nil {
		return ""
	}
	return string(raw)
}

// TestRescue: a real Nova rescues a server and ends that; the server's disk is
// below the rescue system, which has its address; kills of the service on the way
// leave one or the other.
func TestRescue(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{})
	addr := c.address(t, id)
	c.tell(t, addr, "before")
	rescue := func() {
		t.Helper()
		c.act(t, id, map[string]any{"rescue": map[string]any{"adminPass": "let me in", "rescue_image_ref": c.imageID(t, "busybox")}})
	}
	own := func(what string, told ...string) {
		t.Helper()
		c.waitStatus(t, id, "ACTIVE")
		if got, want := c.guestFile(t, id, "/root/told"), strings.Join(told, "\n")+"\n"; got != want {
			t.Errorf("%s: the server was told %q, want %q", what, got, want)
		}
	}
	rescued := func(what string) {
		t.Helper()
		c.waitStatus(t, id, "RESCUE")
		if got := c.guestFile(t, id, "/mnt/rescue/root/told"); !strings.HasPrefix(got, "before\n") || c.guestFile(t, id, "/root/told") == got {
			t.Errorf("%s: below the rescue system %q, in it %q", what, got, c.guestFile(t, id, "/root/told"))
		}
		if links := c.guestLinks(t, id); links[addr] == "" {
			t.Errorf("%s: addresses %v, want %s", what, links, addr)
		}
	}
	rescue()
	rescued("rescued")
	pid := fmt.Sprint(c.firstPid(t, id))
	out, err := exec.CommandContext(t.Context(), "/usr/bin/nsenter", "-t", pid, "-a", "/bin/sh", "-c", "echo mended >> /mnt/rescue/root/told").CombinedOutput()
	if err != nil {
		t.Fatalf("mend: %v %s", err, out)
	}
	if err := servers.Reboot(t.Context(), c.demo.compute, id, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr(); err == nil {
		t.Error("a rescued server was rebooted")
	}
	if err := servers.Stop(t.Context(), c.demo.compute, id).ExtractErr(); err == nil {
		t.Error("a rescued server was stopped")
	}
	c.act(t, id, map[string]any{"unrescue": nil})
	own("unrescued", "before", "mended")

	// the service is killed on the way
	c.restart(t, true, "gantry.failpoints=rescue.labelled=kill")
	rescue()
	c.startAfter(t, "rescue.labelled")
	own("cut off", "before", "mended")
	c.restart(t, true, "gantry.failpoints=compute.rescue.done=kill")
	rescue()
	c.startAfter(t, "compute.rescue.done")
	rescued("completed")
	c.restart(t, true, "gantry.failpoints=unrescue.labelled=kill")
	c.act(t, id, map[string]any{"unrescue": nil})
	c.startAfter(t, "unrescue.labelled")
	own("unrescued after a kill", "before", "mended")

	// an image that cannot be booted costs nothing; a rescued server is deleted
	bad := c.upload(t, t.Name(), "bare", file(t, []byte("this is no image")), nil)
	was := c.firstPid(t, id)
	c.act(t, id, map[string]any{"rescue": map[string]any{"rescue_image_ref": bad}})
	eventually(t, bootLimit, "the refused rescue is told in the events", func() bool {
		var events []map[string]any
		c.openstackJSON(t, &events, c.admin, "server", "event", "list", "--long", id)
		for _, e := range events {
			if e["Action"] == "rescue" && e["Message"] == "Error" {
				return true
			}
		}
		return false
	})
	own("refused", "before", "mended")
	if now := c.firstPid(t, id); now != was {
		t.Errorf("the guest of pid %d became %d", was, now)
	}
	rescue()
	rescued("to be deleted")
}
