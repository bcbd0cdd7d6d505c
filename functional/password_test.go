//go:build functional

package functional

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"golang.org/x/crypto/ssh"
)

// rsaKey makes a key pair of the tenant's, which is removed with the test.
func (c *cloud) rsaKey(t *testing.T, name string) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	opts := keypairs.CreateOpts{Name: name, Type: "ssh", PublicKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))}
	if err := keypairs.Create(t.Context(), c.demo.compute, opts).Err; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := keypairs.Delete(context.WithoutCancel(t.Context()), c.demo.compute, name, nil).ExtractErr(); err != nil {
			t.Error(err)
		}
	})
	return key
}

// adminPassword: the password that a tenant sets is root's in the guest, and who
// has the private key reads it from Nova.
func (c *cloud) adminPassword(t *testing.T, id string, key *rsa.PrivateKey) {
	t.Helper()
	const password = "open sesame"
	before := c.guestFile(t, id, "/etc/shadow")
	c.act(t, id, map[string]any{"changePassword": map[string]string{"adminPass": password}})
	var sealed string
	eventually(t, bootLimit, "os-server-password of "+id, func() bool {
		got := servers.GetPassword(t.Context(), c.demo.compute, id)
		if got.Err != nil {
			t.Fatal(got.Err)
		}
		var err error
		sealed, err = got.ExtractPassword(nil)
		return err == nil && sealed != ""
	})
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := rsa.DecryptPKCS1v15(rand.Reader, key, raw); err != nil || string(got) != password { //nolint:staticcheck // as nova get-password does
		t.Errorf("nova get-password: %q, %v", got, err)
	}
	c.waitStatus(t, id, "ACTIVE")
	if now := c.guestFile(t, id, "/etc/shadow"); now == before || !strings.HasPrefix(now, "root:$6$") {
		t.Errorf("/etc/shadow is %.40q", now)
	}
}
