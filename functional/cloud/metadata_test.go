//go:build functional

package cloud

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// inside runs a command in a server and returns what it printed.
func inside(t *testing.T, p *cloudtest.Cloud, id string, command ...string) (string, error) {
	t.Helper()
	socket := filepath.Join(p.State, "compute", "engine", "engine.sock")
	out, err := exec.CommandContext(t.Context(), os.Getenv("GANTRY_BINARY"), append([]string{"exec", "--socket", socket, id}, command...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%v: %w: %s", command, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// asks is what a server finds at the address of metadata.
func asks(t *testing.T, p *cloudtest.Cloud, id, path string) string {
	t.Helper()
	out, err := inside(t, p, id, "wget", "-qO-", "http://169.254.169.254"+path)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMetadata(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := as(t, p, "demo")
	const script = "#!/bin/sh\necho hello"
	made, err := servers.Create(t.Context(), c.Compute, servers.CreateOpts{
		Name: "asking", ImageRef: c.image1(t), FlavorRef: "1", Networks: "auto", UserData: []byte(script), Metadata: map[string]string{"role": "db"},
	}, nil).Extract()
	if err != nil {
		t.Fatal(err)
	}
	s, other := c.await(t, made.ID, "ACTIVE"), c.server(t, "other")
	var md struct {
		UUID, Name string
		Project    string `json:"project_id"`
		Meta       map[string]string
	}
	check := func(s *servers.Server, role string) {
		t.Helper()
		if text := asks(t, p, s.ID, "/openstack/latest/meta_data.json"); json.Unmarshal([]byte(text), &md) != nil || md.UUID != s.ID ||
			md.Name != s.Name || md.Project != s.TenantID || md.Meta["role"] != role {
			t.Errorf("%s is told %s", s.Name, text)
		}
		md.Meta = nil
	}
	check(s, "db")
	check(other, "")
	if got := asks(t, p, s.ID, "/openstack/latest/user_data"); got != script {
		t.Errorf("user data %q", got)
	}
	if got := asks(t, p, s.ID, "/latest/meta-data/security-groups"); got != "default" {
		t.Errorf("security groups %q", got)
	}
	address, err := inside(t, p, s.ID, "sh", "-c", "ip -o -4 address show dev eth0")
	if got := asks(t, p, s.ID, "/latest/meta-data/local-ipv4"); err != nil || !strings.Contains(address, " "+got+"/") {
		t.Errorf("told %q, has %q, %v", got, address, err)
	}
	// DHCP says the same.
	said, err := inside(t, p, s.ID, "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s", "/bin/true")
	if got := asks(t, p, s.ID, "/latest/meta-data/local-ipv4"); err != nil || !strings.Contains(said, "lease of "+got+" obtained from 10.0.3.254") {
		t.Errorf("has %s, DHCP: %q, %v", got, said, err)
	}
	// Names of the network are known to all of it.
	for _, name := range []string{"asking", "asking.openstacklocal", "ip-" + strings.ReplaceAll(asks(t, p, s.ID, "/latest/meta-data/local-ipv4"), ".", "-")} {
		if out, err := inside(t, p, other.ID, "ping", "-c", "1", "-w", "5", name); err != nil {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	// The address is not the host's, and another cloud of this host knows nobody of this one.
	two := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	d := as(t, two, "demo")
	theirs := d.server(t, "theirs")
	if text := asks(t, two, theirs.ID, "/openstack/latest/meta_data.json"); json.Unmarshal([]byte(text), &md) != nil || md.UUID != theirs.ID {
		t.Errorf("told %s", text)
	}
	d.delete(t, theirs.ID)
	// A cloud that is killed answers when it is back.
	p.Stop(t, syscall.SIGKILL)
	p.Start(t)
	cloudtest.Eventually(t, "metadata after a restart", func() (bool, error) {
		out, err := inside(t, p, s.ID, "wget", "-qO-", "http://169.254.169.254/latest/meta-data/hostname")
		return out == "asking", err
	})
	c.delete(t, s.ID)
	c.delete(t, other.ID)
}
