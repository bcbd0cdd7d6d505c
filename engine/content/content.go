// Package content keeps blobs under the digest of their bytes.
//
// # The model
//
// A blob is immutable and named by its sha256 digest. A Writer takes the bytes
// of one new blob; nobody can read them until Commit has verified and
// published them. A reader therefore sees a whole blob or none.
//
// # A life
//
// What somebody wants to keep is written to a Writer while it streams and
// committed under the digest that was found; it is deleted when no lease names it
// any more. An archive that is needed only until its layers are on disk is no
// blob but a Spool.
//
// The package stores bytes and decides nothing: who may read a blob, and when
// it is garbage, is its callers' business. It imports internal/errdefs and
// internal/atomicfile only. Implementations: Dir and Memory; both pass
// contenttest. All methods are safe for concurrent use.
package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Provider reads blobs.
type Provider interface {
	// Open returns the blob d. errdefs.ErrNotFound if it is absent,
	// errdefs.ErrInvalid if d is not a sha256 digest.
	Open(ctx context.Context, d digest.Digest) (Blob, error)
}

// Ingester takes new blobs.
type Ingester interface {
	// Writer begins a blob. The caller must Close it.
	Writer(ctx context.Context) (Writer, error)
}

// Manager lists and deletes blobs.
type Manager interface {
	// Info describes one blob, errdefs.ErrNotFound if it is absent.
	Info(ctx context.Context, d digest.Digest) (Info, error)
	// List describes all blobs, in the order of their digests.
	List(ctx context.Context) ([]Info, error)
	// Delete removes a blob. Absent is nil. Open readers keep reading.
	Delete(ctx context.Context, d digest.Digest) error
}

// Store is all of it.
type Store interface {
	Provider
	Ingester
	Manager
}

// Blob is an open blob. ReadAt may be called concurrently.
type Blob interface {
	io.ReaderAt
	io.Closer
	// Size in bytes.
	Size() int64
}

// Info describes a blob.
type Info struct {
	Digest digest.Digest
	Size   int64 // bytes
	// Created is when the blob was committed.
	Created time.Time
}

// Writer takes the bytes of one blob. It is not safe for concurrent use.
type Writer interface {
	io.Writer
	// Size and Digest of what has been written so far.
	Size() int64
	Digest() digest.Digest
	// Commit verifies and publishes the blob, durably. A nil error means "the
	// blob is there", be it by this writer or an earlier one. With a non-empty
	// want that differs from Digest it is errdefs.ErrCorrupt and nothing is
	// published. After Commit the Writer can only be closed.
	Commit(ctx context.Context, want digest.Digest) (Info, error)
	// Close drops what was not committed. It may be called more than once.
	Close() error
}

// ReadVerified returns a reader over the whole blob d. Instead of io.EOF it
// returns errdefs.ErrCorrupt if the bytes do not match d: data counts only
// when EOF has been seen.
func ReadVerified(ctx context.Context, p Provider, d digest.Digest) (io.ReadCloser, error) {
	b, err := p.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	r := NewVerifier(io.NewSectionReader(b, 0, b.Size()), d, b.Size())
	return struct {
		io.Reader
		io.Closer
	}{r, b}, nil
}

// NewVerifier passes r through. At its end it returns errdefs.ErrCorrupt
// instead of io.EOF unless r had exactly size bytes (a negative size is not
// checked) of digest d.
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

// check refuses everything that is not a well-formed sha256 digest, so that a
// digest can be part of a file name.
func check(d digest.Digest) error {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("digest %q: %w", string(d), errdefs.ErrInvalid)
	}
	return nil
}

// sum returns the digest of what h has seen so far; h goes on unharmed.
func sum(h hash.Hash) digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, h.Sum(nil))
}

// Verify reads the whole blob d; errdefs.ErrCorrupt if its bytes do not match.
func Verify(ctx context.Context, p Provider, d digest.Digest) error {
	r, err := ReadVerified(ctx, p, d)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}
