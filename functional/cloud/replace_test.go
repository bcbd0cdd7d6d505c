//go:build functional

package cloud

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// runs demands that a command in the server prints that.
func runs(t *testing.T, p *cloudtest.Cloud, id, want string, command ...string) {
	t.Helper()
	cloudtest.Eventually(t, "server has "+want, func() (bool, error) {
		out, err := inside(t, p, id, command...)
		return err == nil && strings.Contains(out, want), err
	})
}

// TestRebuild: another guest under the same name and addresses, by the stock
// client; an image that cannot boot leaves the old one running.
func TestRebuild(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := as(t, p, "demo")
	s := c.server(t, "one")
	addresses := p.OpenStack(t, "demo", "server", "show", s.ID, "-f", "value", "-c", "addresses")
	runs(t, p, s.ID, "kept", "sh", "-c", "echo kept > /mark; cat /mark")

	p.OpenStack(t, "demo", "image", "create", "--disk-format", "raw", "--container-format", "bare", "--file", "/etc/hostname", "no-disk")
	bad := p.OpenStack(t, "demo", "image", "show", "no-disk", "-f", "value", "-c", "id")
	if _, err := servers.Rebuild(t.Context(), c.Compute, s.ID, servers.RebuildOpts{ImageRef: bad}).Extract(); err != nil {
		t.Fatal(err)
	}
	cloudtest.Eventually(t, "the rebuild to be refused", func() (bool, error) {
		now, err := servers.Get(t.Context(), c.Compute, s.ID).Extract()
		return err == nil && now.Status == "ACTIVE" && now.Image["id"] == c.image1(t), err
	})
	runs(t, p, s.ID, "kept", "cat", "/mark")

	p.OpenStack(t, "demo", "server", "rebuild", "--wait", "--image", "busybox", "--name", "again", s.ID)
	c.await(t, s.ID, "ACTIVE")
	runs(t, p, s.ID, "no mark", "sh", "-c", "test -e /mark || echo no mark")
	if got := p.OpenStack(t, "demo", "server", "show", s.ID, "-f", "value", "-c", "addresses"); got != addresses {
		t.Errorf("addresses %q, were %q", got, addresses)
	}
	if err := servers.Stop(t.Context(), c.Compute, s.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.await(t, s.ID, "SHUTOFF")
	p.OpenStack(t, "demo", "server", "rebuild", "--image", "busybox", s.ID)
	c.await(t, s.ID, "SHUTOFF")
	c.delete(t, s.ID)
}

// TestShelveAndUnshelve: what a server has written is there again when it
// comes back, and nothing of it is on the host meanwhile.
func TestShelveAndUnshelve(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := as(t, p, "demo")
	s := c.server(t, "one")
	addresses := p.OpenStack(t, "demo", "server", "show", s.ID, "-f", "value", "-c", "addresses")
	runs(t, p, s.ID, "kept", "sh", "-c", "echo kept > /mark; cat /mark")
	p.OpenStack(t, "demo", "server", "shelve", s.ID)
	c.await(t, s.ID, "SHELVED_OFFLOADED")
	if _, err := inside(t, p, s.ID, "true"); err == nil {
		t.Error("an offloaded server runs")
	}
	// the host counts after it has told of the state
	cloudtest.Eventually(t, "no server is counted", func() (bool, error) {
		return p.OpenStack(t, "admin", "hypervisor", "stats", "show", "-f", "value", "-c", "running_vms") == "0", nil
	})
	p.OpenStack(t, "demo", "server", "unshelve", s.ID)
	c.await(t, s.ID, "ACTIVE")
	runs(t, p, s.ID, "kept", "cat", "/mark")
	if got := p.OpenStack(t, "demo", "server", "show", s.ID, "-f", "value", "-c", "addresses"); got != addresses {
		t.Errorf("addresses %q, were %q", got, addresses)
	}
	cloudtest.Eventually(t, "the image is gone", func() (bool, error) {
		return p.OpenStack(t, "demo", "image", "list", "--private", "-f", "value", "-c", "Name") == "", nil
	})
	p.OpenStack(t, "demo", "server", "shelve", s.ID)
	c.await(t, s.ID, "SHELVED_OFFLOADED")
	c.delete(t, s.ID)
	if got := p.OpenStack(t, "demo", "image", "list", "--private", "-f", "value", "-c", "Name"); got != "" {
		t.Errorf("images left by a delete: %q", got)
	}
}

// TestBackups: the oldest go when there are more than the rotation allows.
func TestBackups(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := as(t, p, "demo")
	s := c.server(t, "one")
	for _, name := range []string{"mon", "tue", "wed"} {
		id := p.OpenStack(t, "demo", "server", "backup", "create", "--name", name, "--type", "daily", "--rotate", "2", "-f", "value", "-c", "id", s.ID)
		cloudtest.Eventually(t, name+" is active", func() (bool, error) {
			i, err := images.Get(t.Context(), c.Image, id).Extract()
			return err == nil && i.Status == images.ImageStatusActive, err
		})
		cloudtest.Eventually(t, "task is over", func() (bool, error) {
			return p.OpenStack(t, "demo", "server", "show", s.ID, "-f", "value", "-c", "OS-EXT-STS:task_state") == "None", nil
		})
	}
	cloudtest.Eventually(t, "two backups", func() (bool, error) {
		return p.OpenStack(t, "demo", "image", "list", "--private", "--sort", "name", "-f", "value", "-c", "Name") == "tue\nwed", nil
	})
	c.delete(t, s.ID)
}
