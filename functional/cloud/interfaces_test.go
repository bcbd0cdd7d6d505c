//go:build functional

package cloud

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// value is one field that the stock client shows.
func value(t *testing.T, p *cloudtest.Cloud, column string, args ...string) string {
	t.Helper()
	return p.OpenStack(t, "demo", append(args, "-f", "value", "-c", column)...)
}

// lacks waits until the output of a command in the guest does not hold the text.
func lacks(t *testing.T, p *cloudtest.Cloud, id, unwanted string, command ...string) {
	t.Helper()
	cloudtest.Eventually(t, "the guest to lack "+unwanted, func() (bool, error) {
		out, err := inside(t, p, id, command...)
		return err == nil && !strings.Contains(out, unwanted), err
	})
}

// TestInterfaces: the stock client gives a running server interfaces and takes
// them away; traffic passes while they are there.
func TestInterfaces(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := as(t, p, "demo")
	one, two := c.server(t, "one").ID, c.server(t, "two").ID
	p.OpenStack(t, "demo", "network", "create", "back")
	p.OpenStack(t, "demo", "subnet", "create", "--network", "back", "--subnet-range", "10.50.0.0/24", "--gateway", "none", "back")
	port := value(t, p, "id", "port", "create", "--network", "back", "--fixed-ip", "ip-address=10.50.0.20", "mine")

	p.OpenStack(t, "demo", "server", "add", "network", one, "back")
	p.OpenStack(t, "demo", "server", "add", "port", "--tag", "uplink", two, port)
	runs(t, p, two, "eth1    inet 10.50.0.20/24", "ip", "-o", "addr")
	runs(t, p, one, " 0% packet loss", "ping", "-c", "1", "-W", "2", "10.50.0.20")
	p.OpenStack(t, "demo", "server", "add", "fixed", "ip", "--fixed-ip-address", "10.50.0.30", one, "back")
	runs(t, p, one, "eth2    inet 10.50.0.30/24", "ip", "-o", "addr")
	runs(t, p, two, "uplink", "wget", "-qO-", "http://169.254.169.254/openstack/latest/meta_data.json")

	// a port that is in use stays where it is
	if _, err := p.TryOpenStack(t, "demo", "server", "add", "port", one, port); err == nil || !strings.Contains(err.Error(), "still in use") {
		t.Errorf("a port twice: %v", err)
	}
	// a service that dies, and a guest that starts again, have what they had
	p.OpenStack(t, "demo", "server", "reboot", "--hard", "--wait", two)
	runs(t, p, two, "eth1    inet 10.50.0.20/24", "ip", "-o", "addr")

	p.OpenStack(t, "demo", "server", "remove", "port", two, port)
	lacks(t, p, two, "eth1", "ip", "-o", "addr")
	cloudtest.Eventually(t, "the tenant's port to be free", func() (bool, error) {
		return value(t, p, "device_id", "port", "show", port) == "", nil
	})
	p.OpenStack(t, "demo", "server", "remove", "network", one, "back")
	lacks(t, p, one, "10.50.0.", "ip", "-o", "addr")
	p.OpenStack(t, "demo", "port", "delete", port)

	// a port that its owner deletes is unplugged
	p.OpenStack(t, "demo", "server", "add", "network", one, "back")
	runs(t, p, one, "inet 10.50.0.", "ip", "-o", "addr")
	made := value(t, p, "ID", "port", "list", "--network", "back", "--device-id", one)
	p.OpenStack(t, "demo", "port", "delete", made)
	lacks(t, p, one, "10.50.0.", "ip", "-o", "addr")
	c.delete(t, one)
	c.delete(t, two)
	p.OpenStack(t, "demo", "network", "delete", "back")
}
