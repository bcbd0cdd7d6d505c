//go:build functional

package functional

import (
	"path/filepath"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
)

// act posts an action that the client has no function for.
func (c *cloud) act(t *testing.T, id string, body map[string]any) {
	t.Helper()
	actAs(t, c.demo, id, body)
}

func actAs(t *testing.T, who clients, id string, body map[string]any) {
	t.Helper()
	resp, err := who.compute.Post(t.Context(), who.compute.ServiceURL("servers", id, "action"), body, nil,
		&gophercloud.RequestOpts{OkCodes: []int{200, 202}})
	if err != nil {
		t.Fatalf("action %v: %v", body, err)
	}
	resp.Body.Close()
}

// A rebuild keeps the name, the address and the place in placement, and ends
// what the old guest wrote.
func TestFunctionalRebuild(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{})
	addr := c.address(t, id)
	before := c.firstPid(t, id)
	c.tell(t, addr, "old guest")
	image := c.upload(t, t.Name()+"-new", "bare", filepath.Join(c.state, "images/busybox.tar.gz"), nil)
	_, err := servers.Rebuild(t.Context(), c.demo.compute, id, servers.RebuildOpts{ImageRef: image}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	c.waitStatus(t, id, "ACTIVE")
	eventually(t, bootLimit, "another guest", func() bool { return c.firstPid(t, id) != before })
	s := c.waitStatus(t, id, "ACTIVE")
	if s.Image["id"] != image {
		t.Errorf("image of the rebuilt server %v", s.Image)
	}
	if got := c.address(t, id); got != addr {
		t.Errorf("address changed from %s to %s", addr, got)
	}
	c.tell(t, addr, "new guest")

	// A rebuild that can never be costs the guest nothing.
	before = c.firstPid(t, id)
	bad := c.upload(t, t.Name(), "bare", file(t, []byte("this is no image")), nil)
	if _, err := servers.Rebuild(t.Context(), c.demo.compute, id, servers.RebuildOpts{ImageRef: bad}).Extract(); err != nil {
		t.Fatal(err)
	}
	eventually(t, bootLimit, "the refused rebuild is told in the events", func() bool {
		var events []map[string]any
		c.openstackJSON(t, &events, c.admin, "server", "event", "list", "--long", id)
		for _, e := range events {
			if e["Action"] == "rebuild" && e["Message"] == "Error" {
				return true
			}
		}
		return false
	})
	if s := c.waitStatus(t, id, "ACTIVE"); s.Image["id"] != image {
		t.Errorf("image after the refused rebuild %v", s.Image)
	}
	c.tell(t, addr, "still here")
	if got := c.firstPid(t, id); got != before {
		t.Errorf("the guest of pid %d became %d", before, got)
	}
}

// A shelved server leaves its host, keeps its disk as an image and comes back
// with it.
func TestFunctionalShelve(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{})
	addr := c.address(t, id)
	c.tell(t, addr, "remember me")
	c.act(t, id, map[string]any{"shelve": nil})
	s := c.waitStatus(t, id, "SHELVED_OFFLOADED")
	if s.HostID != "" {
		t.Errorf("host of the offloaded server %q", s.HostID)
	}
	c.nothingOf(t, id)
	c.noAllocation(t, id)
	c.act(t, id, map[string]any{"unshelve": nil})
	c.waitStatus(t, id, "ACTIVE")
	if got := c.address(t, id); got != addr {
		t.Errorf("address changed from %s to %s", addr, got)
	}
	c.waitConsole(t, id, "guest: was told remember me")
}

// A backup of rotation 1 leaves one image of its kind.
func TestFunctionalBackup(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{network: "none"})
	for _, name := range []string{"backup-1", "backup-2"} {
		c.act(t, id, map[string]any{"createBackup": map[string]any{"name": name, "backup_type": "daily", "rotation": 1}})
		var last []string
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("after %s there were %q", name, last)
			}
		})
		eventually(t, bootLimit, name+" is the only one", func() bool {
			var err error
			if last, err = c.backups(t, id); err != nil {
				return false
			}
			return len(last) == 1 && last[0] == name+" active"
		})
		eventually(t, bootLimit, "no task", func() bool { return c.server(t, id).TaskState == "" })
	}
	pages, err := images.List(c.demo.image, images.ListOpts{Name: "backup-2"}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := images.ExtractImages(pages)
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range all {
		c.openstackCleanup(t, "image", "delete", img.ID)
	}
}

// backups are the names and states of the images that daily backups made.
func (c *cloud) backups(t *testing.T, id string) (out []string, err error) {
	t.Helper()
	pages, err := images.List(c.demo.image, images.ListOpts{}).AllPages(t.Context())
	if err != nil {
		return nil, err
	}
	all, err := images.ExtractImages(pages)
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range all {
		if img.Properties["instance_uuid"] == id && img.Properties["backup_type"] == "daily" {
			out = append(out, img.Name+" "+string(img.Status))
		}
	}
	return out, nil
}
