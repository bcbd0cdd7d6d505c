package identity

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// defaultCost of password hashes: some 50 ms of one processor.
const defaultCost = 10

// mostKnown is how many passwords are known to be right at a time.
const mostKnown = 1024

// secrets hashes and compares passwords: bcrypt of a SHA-384, as bcrypt alone
// looks at 72 bytes.
//
// What was compared once is remembered under a key of this process, together
// with the hash: a changed password has another hash, so it is not remembered.
type secrets struct {
	cost int
	slot chan struct{} // as many hashes at a time as there are processors
	key  [32]byte
	none []byte // the hash of no password

	mu sync.Mutex
	// +checklocks:mu
	known map[[32]byte]struct{}
}

func newSecrets(cost, workers int) *secrets {
	if cost == 0 {
		cost = defaultCost
	}
	s := &secrets{cost: cost, slot: make(chan struct{}, workers), known: map[[32]byte]struct{}{}}
	_, _ = rand.Read(s.key[:]) // never fails
	// cost and salt of a real one, and a digest that nothing has
	s.none = fmt.Appendf(nil, "$2a$%02d$%s", cost, "......................"+"...............................")
	return s
}

func folded(password string) []byte {
	sum := sha512.Sum384([]byte(password))
	return base64.RawStdEncoding.AppendEncode(nil, sum[:]) // 64 bytes
}

// hash makes what is stored of a password. A random one, which nobody can
// guess, is hashed as cheaply as can be.
func (s *secrets) hash(ctx context.Context, password string, random bool) (string, error) {
	cost := s.cost
	if random {
		cost = bcrypt.MinCost
	}
	if err := s.enter(ctx); err != nil {
		return "", err
	}
	defer s.leave()
	h, err := bcrypt.GenerateFromPassword(folded(password), cost)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return string(h), nil
}

// matches reports whether the password is the one of that hash. No hash, for a
// user that does not exist, takes as long as a wrong password.
func (s *secrets) matches(ctx context.Context, hash, password string) (bool, error) {
	mac := hmac.New(sha256.New, s.key[:])
	_, _ = fmt.Fprintf(mac, "%d:%s%s", len(hash), hash, password)
	var id [32]byte
	mac.Sum(id[:0])
	s.mu.Lock()
	_, known := s.known[id]
	s.mu.Unlock()
	if known {
		return true, nil
	}
	if err := s.enter(ctx); err != nil {
		return false, err
	}
	defer s.leave()
	stored := []byte(hash)
	if hash == "" {
		stored = s.none
	}
	err := bcrypt.CompareHashAndPassword(stored, folded(password))
	if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) || hash == "" {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("compare password: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= mostKnown {
		clear(s.known)
	}
	s.known[id] = struct{}{}
	return true, nil
}

func (s *secrets) enter(ctx context.Context) error {
	select {
	case s.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *secrets) leave() { <-s.slot }

// random is n random bytes as text.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}
