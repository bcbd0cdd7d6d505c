//go:build functional

package cloud

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// TestResize: a server gets another flavor as it runs, its old one again, and
// the other for good, by the stock client.
func TestResize(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := as(t, p, "demo")
	s := c.server(t, "one")
	runs(t, p, s.ID, "kept", "sh", "-c", "echo kept > /dev/shm/mark; cat /dev/shm/mark")
	p.OpenStack(t, "admin", "flavor", "create", "--ram", "768", "--disk", "12", "--vcpus", "2", "c.other")
	p.OpenStack(t, "admin", "flavor", "create", "--ram", "768", "--disk", "1", "--vcpus", "1", "c.flat")
	flavor := func() string {
		return p.OpenStack(t, "demo", "server", "show", s.ID, "-f", "value", "-c", "flavor")
	}
	before := flavor()

	p.OpenStack(t, "demo", "server", "resize", "--flavor", "c.other", s.ID)
	c.await(t, s.ID, "VERIFY_RESIZE")
	runs(t, p, s.ID, "kept", "cat", "/dev/shm/mark") // in memory: nothing was restarted
	if got := flavor(); !strings.Contains(got, "c.other") {
		t.Errorf("flavor %q", got)
	}
	p.OpenStack(t, "demo", "server", "resize", "revert", s.ID)
	c.await(t, s.ID, "ACTIVE")
	runs(t, p, s.ID, "kept", "cat", "/dev/shm/mark")
	if got := flavor(); got != before {
		t.Errorf("flavor %q, was %q", got, before)
	}

	p.OpenStack(t, "demo", "server", "resize", "--flavor", "c.other", s.ID)
	c.await(t, s.ID, "VERIFY_RESIZE")
	p.OpenStack(t, "demo", "server", "resize", "confirm", s.ID)
	c.await(t, s.ID, "ACTIVE")
	runs(t, p, s.ID, "kept", "cat", "/dev/shm/mark")
	if got := flavor(); !strings.Contains(got, "c.other") {
		t.Errorf("flavor %q", got)
	}
	if got := p.OpenStack(t, "admin", "server", "migration", "list", "-f", "value", "-c", "Status"); !strings.Contains(got, "reverted") || !strings.Contains(got, "confirmed") {
		t.Errorf("migrations %q", got)
	}

	// a smaller disk is refused, and the server is what it was
	p.OpenStack(t, "demo", "server", "resize", "--flavor", "c.flat", s.ID)
	cloudtest.Eventually(t, "the resize to be refused", func() (bool, error) {
		return strings.Contains(p.OpenStack(t, "demo", "server", "event", "list", s.ID, "-f", "value"), "resize") &&
			p.OpenStack(t, "demo", "server", "show", s.ID, "-f", "value", "-c", "status", "-c", "OS-EXT-STS:task_state") == "None\nACTIVE", nil
	})
	runs(t, p, s.ID, "kept", "cat", "/dev/shm/mark")

	// a server is deleted in the middle of it
	p.OpenStack(t, "admin", "flavor", "create", "--ram", "768", "--disk", "13", "--vcpus", "1", "c.last")
	p.OpenStack(t, "demo", "server", "resize", "--flavor", "c.last", s.ID)
	c.await(t, s.ID, "VERIFY_RESIZE")
	c.delete(t, s.ID)
	cloudtest.Eventually(t, "nothing is allocated", func() (bool, error) {
		return p.OpenStack(t, "admin", "hypervisor", "stats", "show", "-f", "value", "-c", "memory_mb_used") == "512" ||
			p.OpenStack(t, "admin", "hypervisor", "stats", "show", "-f", "value", "-c", "running_vms") == "0", nil
	})
}
