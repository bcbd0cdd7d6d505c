//go:build functional

package cloud

import (
	"crypto/ed25519"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"golang.org/x/crypto/ssh"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// guestImage is Debian with systemd, sshd, cron, sudo and cloud-init, as
// make-image makes it.
func guestImage(t *testing.T, p *cloudtest.Cloud) string {
	t.Helper()
	file := filepath.Join(os.Getenv("GANTRY_CONTROLPLANE"), "images", "guest.tar")
	return p.OpenStack(t, "demo", "image", "create", "--disk-format", "raw", "--container-format", "bare", "--file", file, "guest", "-f", "value", "-c", "id")
}

// eventually polls what a command in the server prints.
func eventually(t *testing.T, p *cloudtest.Cloud, id, want string, command ...string) {
	t.Helper()
	cloudtest.Eventually(t, strings.Join(command, " ")+" is "+want, func() (bool, error) {
		out, err := inside(t, p, id, append([]string{"sh", "-c", `"$@" || true`, "sh"}, command...)...)
		return out == want, err
	})
}

// settled waits until cloud-init and systemd are done. They do the waiting: who
// polls takes the processor from them.
func settled(t *testing.T, p *cloudtest.Cloud, id string) {
	t.Helper()
	cloudtest.Eventually(t, "the guest comes up", func() (bool, error) {
		out, err := inside(t, p, id, "cloud-init", "status", "--wait")
		return strings.HasSuffix(out, "status: done"), err
	})
	eventually(t, p, id, "running", "systemctl", "is-system-running", "--wait")
}

const cloudConfig = `#cloud-config
locale: C.UTF-8
runcmd:
  - echo ran >> /root/told
write_files:
  - path: /etc/written
    content: by cloud-init
`

// TestDebianGuest: unmodified systemd and cloud-init, by config drive and by the
// metadata service; the guest's own reboot and power-off.
func TestDebianGuest(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := as(t, p, "demo")
	image := guestImage(t, p)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keypairs.Create(t.Context(), c.Compute, keypairs.CreateOpts{Name: "mine", PublicKey: string(ssh.MarshalAuthorizedKey(key))}).Extract(); err != nil {
		t.Fatal(err)
	}
	boot := func(name string, drive bool) string {
		t.Helper()
		made, err := servers.Create(t.Context(), c.Compute, keypairs.CreateOptsExt{KeyName: "mine", CreateOptsBuilder: servers.CreateOpts{
			Name: name, ImageRef: image, FlavorRef: "1", Networks: "auto", UserData: []byte(cloudConfig), ConfigDrive: &drive,
		}}, nil).Extract()
		if err != nil {
			t.Fatal(err)
		}
		return made.ID
	}
	drive, service := boot("by-drive", true), boot("by-service", false)
	for id, source := range map[string]string{drive: "ConfigDrive", service: "OpenStack"} {
		s := c.await(t, id, "ACTIVE")
		settled(t, p, id)
		eventually(t, p, id, s.Name, "hostname")
		eventually(t, p, id, "by cloud-init", "cat", "/etc/written")
		eventually(t, p, id, "ran", "cat", "/root/told")
		eventually(t, p, id, "1", "sh", "-c", "grep -c DataSource"+source+" /run/cloud-init/status.json")
		for _, unit := range []string{"ssh", "cron", "systemd-journald", "systemd-logind"} {
			eventually(t, p, id, "active", "systemctl", "is-active", unit)
		}
		if out, err := inside(t, p, id, "sh", "-c", "umask 077; cat > /root/key <<'END'\n"+string(pem.EncodeToMemory(block))+"END\n"+
			"ssh -i /root/key -o StrictHostKeyChecking=no -o BatchMode=yes debian@localhost sudo id -un 2>/dev/null"); err != nil || out != "root" {
			t.Errorf("%s: ssh and sudo: %q, %v", s.Name, out, err)
		}
	}
	// its own reboot: another boot, the same server, user data not again
	id := drive
	first, err := inside(t, p, id, "cat", "/proc/sys/kernel/random/boot_id")
	if err != nil || first == "" {
		t.Errorf("boot id %q, %v", first, err)
	}
	if _, err := inside(t, p, id, "sh", "-c", "touch /run/before; systemctl reboot"); err != nil {
		t.Logf("the session ended with the guest: %v", err)
	}
	cloudtest.Eventually(t, "the next boot", func() (bool, error) {
		if s, err := servers.Get(t.Context(), c.Compute, id).Extract(); err != nil || s.Status != "ACTIVE" {
			t.Fatalf("a server that reboots is %+v, %v", s, err)
		}
		out, err := inside(t, p, id, "sh", "-c", "[ -e /run/before ] || echo next")
		return out == "next", err
	})
	settled(t, p, id)
	eventually(t, p, id, "ran", "cat", "/root/told")
	if _, err := inside(t, p, id, "systemctl", "poweroff"); err != nil {
		t.Logf("the session ended with the guest: %v", err)
	}
	c.await(t, id, "SHUTOFF")
	c.delete(t, id)
	c.delete(t, service)
}
