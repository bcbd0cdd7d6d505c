// Package content takes the bytes of archives while they are read: a Spool for
// what is read at random, and readers that verify digests.
//
// It keeps nothing: what becomes of an archive are layers (engine/snapshot). It
// imports internal/errdefs only.
package content

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// NewVerifier passes r through. At its end it returns errdefs.ErrCorrupt
// instead of io.EOF unless r had exactly size bytes (a negative size is not
// checked) of digest d: data counts only when EOF has been seen.
func NewVerifier(r io.Reader, d digest.Digest, size int64) io.Reader {
	return &verifier{r: r, want: d, size: size, hash: sha256.New()}
}

type verifier struct {
	r    io.Reader
	want digest.Digest
	size int64
	hash hash.Hash
	n    int64
}

// Read implements io.Reader.
func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	v.n += int64(n)
	if v.size >= 0 && v.n > v.size {
		return n, fmt.Errorf("%s: longer than %d bytes: %w", v.want, v.size, errdefs.ErrCorrupt)
	}
	if err != io.EOF {
		return n, err
	}
	if v.size >= 0 && v.n != v.size {
		return n, fmt.Errorf("%s: %d bytes instead of %d: %w", v.want, v.n, v.size, errdefs.ErrCorrupt)
	}
	if got := digest.NewDigest(digest.SHA256, v.hash); got != v.want {
		return n, fmt.Errorf("%s: content is %s: %w", v.want, got, errdefs.ErrCorrupt)
	}
	return n, io.EOF
}

// classify adds the operation and the class to an error of the file system.
func classify(op string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errdefs.WithPublic(fmt.Errorf("%s: %w: %w", op, errdefs.ErrExhausted, err), "the host has no disk space left for the image")
	}
	return fmt.Errorf("%s: %w", op, err)
}
