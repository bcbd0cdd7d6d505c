package content

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"

	"github.com/opencontainers/go-digest"
)

// Spool takes bytes that are read at random for a while and that nobody needs
// after a crash. It is a file without a name: nothing syncs it, and its room
// comes back with Close, or with the end of the process. ReadAt may be called
// concurrently; the other methods are not safe for concurrent use.
type Spool struct {
	f    *os.File // not embedded: what it has to copy by itself would not be counted
	hash hash.Hash
	n    int64
}

// NewSpool makes an empty spool on the file system of the directory dir.
// errdefs.ErrExhausted: the disk is full.
func NewSpool(dir string) (*Spool, error) {
	f, err := TempFile(dir)
	if err != nil {
		return nil, err
	}
	return &Spool{f: f, hash: sha256.New()}, nil
}

// Write implements io.Writer. A full disk is errdefs.ErrExhausted.
func (s *Spool) Write(p []byte) (int, error) {
	n, err := s.f.Write(p)
	s.hash.Write(p[:n])
	s.n += int64(n)
	if err != nil {
		return n, classify("write spool", err)
	}
	return n, nil
}

// ReadAt implements io.ReaderAt.
func (s *Spool) ReadAt(p []byte, off int64) (int, error) { return s.f.ReadAt(p, off) }

// Fd is the file's descriptor, for a process that reads it; valid until Close.
func (s *Spool) Fd() uintptr { return s.f.Fd() }

// Size of what has been written so far, in bytes.
func (s *Spool) Size() int64 { return s.n }

// Digest of what has been written so far.
func (s *Spool) Digest() digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, s.hash.Sum(nil))
}

// Close gives the room back. It may be called more than once.
func (s *Spool) Close() error {
	if err := s.f.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// TempFile makes an empty file on the file system of the directory dir that has
// no name, so that it goes with its last descriptor.
func TempFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "spool-")
	if err != nil {
		return nil, classify("make spool", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("make spool: %w", err), f.Close())
	}
	return f, nil
}
