package compute_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/metadata"
	"github.com/gantry-project/gantry/driver/objects"
)

// shown is what os-server-password shows of the instance, decrypted; "" if nothing.
func (r *rig) shown(inst *objects.Object, key *rsa.PrivateKey) string {
	r.t.Helper()
	row, err := objects.AsInstance(r.row(inst))
	if err != nil {
		r.t.Fatal(err)
	}
	sealed, err := base64.StdEncoding.DecodeString(metadata.Password(row))
	if err != nil {
		r.t.Fatal(err)
	}
	if len(sealed) == 0 {
		return ""
	}
	password, err := rsa.DecryptPKCS1v15(rand.Reader, key, sealed) //nolint:staticcheck // as clients do
	if err != nil {
		r.t.Fatal(err)
	}
	return string(password)
}

// TestAdminPasswordIsShown to who has the private key: that of the build, of a
// change, and of a rebuild.
func TestAdminPasswordIsShown(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, noWait)
	r.images.serve(driver.Image{ID: "new", Name: "alpine", DiskFormat: "raw"})
	inst := r.instance()
	inst.Set("key_data", strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))))
	r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("key_data", inst.String("key_data")) })
	r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
	r.waitState(inst, "active")
	if got := r.shown(inst, key); got != "secret" {
		t.Errorf("of the build: %q", got)
	}
	if meta := r.row(inst).Strings("system_metadata"); meta["image_os_shutdown_timeout"] != "1" || meta["boot_roles"] == "" {
		t.Errorf("the build's own system metadata: %v", meta)
	}

	r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", "updating_password") })
	rc := r.context(inst.String("uuid"), "changePassword")
	if err := r.call(rc, "set_admin_password", map[string]any{"instance": r.row(inst), "new_pass": "changed"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := r.shown(inst, key); got != "changed" {
		t.Errorf("of the change: %q", got)
	}
	// longer than the key can take: it is set, and what is shown stays
	long := strings.Repeat("x", 600)
	r.db.Update(inst.String("uuid"), func(row objects.Instance) { row.Set("task_state", "updating_password") })
	rc = r.context(inst.String("uuid"), "changePassword")
	if err := r.call(rc, "set_admin_password", map[string]any{"instance": r.row(inst), "new_pass": long}, nil); err != nil {
		t.Fatal(err)
	}
	if got := r.shown(inst, key); got != "changed" || r.drv.Password(uuidOf(inst)) != long {
		t.Errorf("of one too long: %q", got)
	}

	r.rebuild(inst, nil)
	if got := r.shown(inst, key); got != "fresh" {
		t.Errorf("of the rebuild: %q", got)
	}
}

// TestAdminPasswordOfOtherKeys: nothing is kept that nobody could read.
func TestAdminPasswordOfOtherKeys(t *testing.T) {
	r := newRig(t, noWait)
	inst := r.active()
	for key := range r.row(inst).Strings("system_metadata") {
		if strings.HasPrefix(key, "password_") {
			t.Errorf("%s is there", key)
		}
	}
}
