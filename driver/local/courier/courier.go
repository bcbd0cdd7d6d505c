// Package courier carries the disk of an instance from one host to another.
//
// The host that has it serves (Server), the host that wants it fetches
// (Source): HTTP/1.1 over TLS 1.3, in which each side knows the other by its
// public key and by nothing else. Both make a key for each move; only the public
// halves travel before, over a way that need not be secret. There are no
// certificate authorities and no names that could be mistaken: the certificates
// are shells for the keys.
//
//	GET /v1/WHAT?from=N          TLS server name: the instance
//	200, body: zstd (RFC 8878) of the stream's bytes from N on
//	trailers Gantry-Length and Gantry-Sha256: of the whole stream, from byte 0
//
// A connection that breaks is made again and goes on where it was; the digest
// tells in the end whether all came from one and the same stream. A status of
// 4xx is final: 404 for what is not offered, 409 for what cannot be read now.
// docs/migration.md has the protocol.
//
// It imports errdefs and logging of ours.
package courier

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// The trailers that end a stream.
const (
	lengthTrailer = "Gantry-Length"
	digestTrailer = "Gantry-Sha256"
)

const keyPrefix = "ed25519:"

// Key is what one side of one move knows itself by. The zero value is none.
type Key struct{ private ed25519.PrivateKey }

// NewKey makes a key.
func NewKey() (Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("make a key: %w", err)
	}
	return Key{private}, nil
}

// MarshalText is the secret.
func (k Key) MarshalText() ([]byte, error) { return encode(k.private.Seed()), nil }

// UnmarshalText reads what MarshalText made; anything else is errdefs.ErrInvalid.
func (k *Key) UnmarshalText(text []byte) error {
	seed, err := decode(text, ed25519.SeedSize)
	if err != nil {
		return err
	}
	k.private = ed25519.NewKeyFromSeed(seed)
	return nil
}

// Public is the half that the other side is told.
func (k Key) Public() PublicKey {
	public, _ := k.private.Public().(ed25519.PublicKey)
	return PublicKey{public}
}

// PublicKey is what one side knows the other by. The zero value is nobody's.
type PublicKey struct{ key ed25519.PublicKey }

// String is the key as text of 51 bytes.
func (p PublicKey) String() string { return string(encode(p.key)) }

// MarshalText is String.
func (p PublicKey) MarshalText() ([]byte, error) { return encode(p.key), nil }

// UnmarshalText reads what MarshalText made; anything else is errdefs.ErrInvalid.
func (p *PublicKey) UnmarshalText(text []byte) (err error) {
	p.key, err = decode(text, ed25519.PublicKeySize)
	return err
}

// ParsePublicKey is UnmarshalText of a string.
func ParsePublicKey(text string) (p PublicKey, err error) {
	return p, p.UnmarshalText([]byte(text))
}

func encode(raw []byte) []byte {
	return base64.RawURLEncoding.Strict().AppendEncode([]byte(keyPrefix), raw)
}

func decode(text []byte, size int) ([]byte, error) {
	rest, ok := strings.CutPrefix(string(text), keyPrefix)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if !ok || err != nil || len(raw) != size {
		return nil, fmt.Errorf("not a key: %w", errdefs.ErrInvalid) // it may be a secret one
	}
	return raw, nil
}

// certificate is a shell for the key. Its dates say nothing: hosts may disagree
// about the time, and a key ends with its move.
func (k Key) certificate() (tls.Certificate, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(253402300799, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.private.Public(), k.private)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k.private}, nil
}

// errStranger says that the other side has another key.
var errStranger = fmt.Errorf("the other host has another key than this move's: %w", errdefs.ErrForbidden)

// only accepts who has the key. TLS has seen to it that the other side has the
// private half of what its certificate shows.
func (p PublicKey) only(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 1 && len(p.key) == ed25519.PublicKeySize {
		key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
		if ok && subtle.ConstantTimeCompare(key, p.key) == 1 {
			return nil
		}
	}
	return errStranger
}

// config is that of a side which shows k and accepts only peer.
func config(k Key, peer PublicKey) (*tls.Config, error) {
	cert, err := k.certificate()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"},
		// the key is pinned instead: chains, names and dates mean nothing here
		InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert, VerifyConnection: peer.only,
		SessionTicketsDisabled: true,
	}, nil
}
