//go:build functional

package cloud

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// TestNesting: a flavor lets its servers run containers: in namespaces within
// the server's, with a proc, a root and a network of their own.
func TestNesting(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := as(t, p, "demo")
	boot := func(flavor string, properties ...string) string {
		args := []string{"flavor", "create", "--ram", "128", "--disk", "1", "--vcpus", "1", "-f", "value", "-c", "id", flavor}
		for _, property := range properties {
			args = append(args, "--property", property)
		}
		ref := p.OpenStack(t, "admin", args...)
		made, err := servers.Create(t.Context(), c.Compute, servers.CreateOpts{Name: flavor, ImageRef: c.image1(t), FlavorRef: ref, Networks: "none"}, nil).Extract()
		if err != nil {
			t.Fatal(err)
		}
		return made.ID
	}
	nesting, contrary := boot("nesting", "gantry:nesting=true"), boot("contrary", "gantry:nesting=true", "gantry:profile=instance")
	c.await(t, nesting, "ACTIVE")
	// a process 1, root, with a name of its own and no interface but lo
	runs(t, p, nesting, "1 0 inner 1", "/bin/busybox", "unshare", "-Urmpniuf", "--mount-proc", "/bin/busybox", "sh", "-c",
		`B=/bin/busybox; $B mkdir -p /tmp && $B mount -t tmpfs x /tmp && $B mkdir /tmp/bin /tmp/proc && $B cp $B /tmp/bin && $B mount -t proc x /tmp/proc &&
		$B hostname inner && exec $B chroot /tmp $B sh -c 'echo $$ $('$B' id -u) $('$B' hostname) $('$B' grep -c : /proc/net/dev)'`)
	if s := c.await(t, contrary, "ERROR"); !strings.Contains(s.Fault.Message, "gantry:nesting") {
		t.Errorf("the fault is %+v", s.Fault)
	}
	c.delete(t, nesting)
	c.delete(t, contrary)
}
