package metadata_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/gantry-project/gantry/driver/metadata"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// openSSH is a public key as a key pair has it.
func openSSH(t *testing.T, public any) string {
	t.Helper()
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " me@home"
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestEncrypt(t *testing.T) {
	key := rsaKey(t)
	public := openSSH(t, &key.PublicKey)
	for _, password := range []string{"", "secret", "käse: 7", strings.Repeat("x", 245)} {
		sealed, err := metadata.Encrypt(public, password)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(sealed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := rsa.DecryptPKCS1v15(rand.Reader, key, raw) //nolint:staticcheck // as clients do
		if err != nil || string(got) != password {
			t.Errorf("%q became %q, %v", password, got, err)
		}
	}
}

func TestEncryptForOtherKeys(t *testing.T) {
	key := rsaKey(t)
	public := openSSH(t, &key.PublicKey)
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const secret = "very secret"
	for name, c := range map[string]struct {
		key, password string
		class         error
	}{
		"Ed25519":             {openSSH(t, edwards), secret, errdefs.ErrUnsupported},
		"ECDSA":               {openSSH(t, &curve.PublicKey), secret, errdefs.ErrUnsupported},
		"none":                {"", secret, errdefs.ErrInvalid},
		"words":               {"no key at all", secret, errdefs.ErrInvalid},
		"cut off":             {public[:40], secret, errdefs.ErrInvalid},
		"cut off in base64":   {"ssh-rsa AAAAB3NzaC1yc2E=", secret, errdefs.ErrInvalid},
		"a certificate":       {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", secret, errdefs.ErrInvalid},
		"a password too long": {public, secret + strings.Repeat("x", 246), errdefs.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			sealed, err := metadata.Encrypt(c.key, c.password)
			if !errors.Is(err, c.class) || sealed != "" || strings.Contains(err.Error(), secret) {
				t.Errorf("%q, %v", sealed, err)
			}
		})
	}
}

func FuzzEncrypt(f *testing.F) {
	f.Add("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==", "secret")
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==", "")
	f.Fuzz(func(t *testing.T, key, password string) {
		sealed, err := metadata.Encrypt(key, password)
		if err != nil && (sealed != "" || !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, errdefs.ErrUnsupported)) {
			t.Errorf("%q, %v", sealed, err)
		}
	})
}

func TestPasswordOfAnInstance(t *testing.T) {
	i := objects.NewInstance()
	if err := metadata.PutPassword(i, "x"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("without system metadata: %v", err)
	}
	i.Set("system_metadata", map[string]string{"image_os_distro": "debian"})
	long := strings.Repeat("é", metadata.MaxPassword)
	for _, text := range []string{"", "short", long, "short again", ""} {
		if err := metadata.PutPassword(i, text); err != nil || metadata.Password(i) != text {
			t.Errorf("%.20q: %.20q, %v", text, metadata.Password(i), err)
		}
	}
	for _, text := range []string{long + "x", "\xff"} {
		if err := metadata.PutPassword(i, text); !errors.Is(err, errdefs.ErrInvalid) || metadata.Password(i) != "" {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	if got := i.SystemMetadata(); got["image_os_distro"] != "debian" || len(got) != 5 {
		t.Errorf("%v", got)
	}
}
