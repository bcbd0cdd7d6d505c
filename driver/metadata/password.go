package metadata

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// A server's password is kept in parts in the system metadata, of which a value
// has 255 characters (nova/api/metadata/password.py).
const (
	passwordKey    = "password_"
	passwordParts  = 4
	passwordLength = 255
	// MaxPassword (characters) is what can be kept.
	MaxPassword = passwordParts * passwordLength
)

// Password is what is kept as the password of an instance, which is what
// os-server-password shows: an encrypted one, or "" for none.
func Password(i objects.Instance) string {
	var w strings.Builder
	all := i.SystemMetadata()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(key, passwordKey) {
			w.WriteString(all[key])
		}
	}
	return w.String()
}

// PutPassword keeps text as the password of an instance; "" is none. Nothing is
// saved. errdefs.ErrInvalid: it is longer than MaxPassword or no text;
// errdefs.ErrConflict: the system metadata is not loaded.
func PutPassword(i objects.Instance, text string) error {
	if !utf8.ValidString(text) || utf8.RuneCountInString(text) > MaxPassword {
		return fmt.Errorf("password of %s: no text of at most %d characters: %w", i.UUID(), MaxPassword, errdefs.ErrInvalid)
	}
	rest := []rune(text)
	for part := range passwordParts {
		n := min(len(rest), passwordLength)
		if err := i.PutSystemMetadata(fmt.Sprint(passwordKey, part), string(rest[:n])); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// Encrypt makes of a password what only the owner of the key pair can read, as
// "nova get-password" wants it: RSA with the padding of PKCS #1 v1.5, in base64
// (nova/crypto.py, ssh_encrypt_text; nova/virt/libvirt/driver.py). publicKey is
// in OpenSSH's form. errdefs.ErrUnsupported: it is none of RSA;
// errdefs.ErrInvalid: it is broken, or too small for the password. No error
// holds the password.
func Encrypt(publicKey, password string) (string, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(publicKey))
	if err != nil {
		return "", fmt.Errorf("encrypt a password: key: %w: %w", errdefs.ErrInvalid, err)
	}
	c, _ := key.(ssh.CryptoPublicKey)
	if key.Type() != ssh.KeyAlgoRSA || c == nil {
		return "", fmt.Errorf("encrypt a password: a key of type %s: %w", key.Type(), errdefs.ErrUnsupported)
	}
	public, ok := c.CryptoPublicKey().(*rsa.PublicKey)
	if !ok {
		return "", fmt.Errorf("encrypt a password: a key of type %s: %w", key.Type(), errdefs.ErrInvalid)
	}
	sealed, err := rsa.EncryptPKCS1v15(rand.Reader, public, []byte(password)) //nolint:staticcheck // what clients of this API decrypt
	if err != nil {
		return "", fmt.Errorf("encrypt a password: %w: %w", errdefs.ErrInvalid, err)
	}
	return base64.StdEncoding.EncodeToString(sealed), nil
}
