//go:build functional

package functional

import (
	"debug/elf"
	"path/filepath"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

// TestOtherVerbs: a real Nova suspends and resumes a server, has its memory kept,
// deletes it softly, restores it, and lets the host reclaim it.
func TestOtherVerbs(t *testing.T) {
	c := the
	t.Cleanup(func() { c.restart(t, false) })
	c.restart(t, false, "gantry.suspend=freeze")
	id := c.active(t, bootOpts{})
	addr, pid := c.address(t, id), c.firstPid(t, id)
	c.act(t, id, map[string]any{"suspend": nil})
	c.waitStatus(t, id, "SUSPENDED")
	c.restart(t, true, "gantry.suspend=freeze")
	c.waitStatus(t, id, "SUSPENDED")
	c.act(t, id, map[string]any{"resume": nil})
	c.waitStatus(t, id, "ACTIVE")
	c.tell(t, addr, "resumed")

	c.act(t, id, map[string]any{"trigger_crash_dump": nil})
	dump := filepath.Join(c.state, "gantry/engine/crash-dumps", id+".core")
	eventually(t, bootLimit, dump, func() bool {
		f, err := elf.Open(dump)
		if err != nil {
			return false
		}
		defer f.Close()
		return f.Type == elf.ET_CORE
	})
	c.tell(t, addr, "dumped")
	if now := c.firstPid(t, id); now != pid {
		t.Errorf("the first process is %d, was %d", now, pid)
	}

	// from here on a delete is a soft one
	t.Cleanup(func() { c.control(t, "restart", "nova-api") })
	t.Setenv("RECLAIM", "3600")
	c.control(t, "restart", "nova-api")
	softly := func() {
		t.Helper()
		if err := servers.Delete(t.Context(), c.demo.compute, id).ExtractErr(); err != nil {
			t.Fatal(err)
		}
		c.waitStatus(t, id, "SOFT_DELETED")
	}
	softly()
	c.act(t, id, map[string]any{"restore": nil})
	c.waitStatus(t, id, "ACTIVE")
	if got := c.guestFile(t, id, "/root/told"); got != "resumed\ndumped\n" {
		t.Errorf("the restored server was told %q", got)
	}
	softly()
	c.restart(t, false, "DEFAULT.reclaim_instance_interval=1")
	c.nothingOf(t, id)
}
