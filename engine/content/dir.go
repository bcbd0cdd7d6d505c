package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Dir is a Store in a directory of the host: blobs/sha256/HEX, and ingest/ for
// what is being written. A crash leaves files in ingest/ only; NewDir removes
// them. One process may own the directory at a time.
type Dir struct {
	blobs, ingest string
}

// NewDir opens or makes the store in root.
func NewDir(root string) (*Dir, error) {
	d := &Dir{
		blobs:  filepath.Join(root, "blobs", "sha256"),
		ingest: filepath.Join(root, "ingest"),
	}
	if err := os.RemoveAll(d.ingest); err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	for _, dir := range []string{d.blobs, d.ingest} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open content store: %w", err)
		}
	}
	return d, nil
}

func (s *Dir) path(d digest.Digest) string { return filepath.Join(s.blobs, d.Encoded()) }

// Open implements Provider.
func (s *Dir) Open(_ context.Context, d digest.Digest) (Blob, error) {
	if err := check(d); err != nil {
		return nil, err
	}
	f, err := os.Open(s.path(d))
	if err != nil {
		return nil, classify("open blob", d, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open blob %s: %w", d, err), f.Close())
	}
	return &fileBlob{f, st.Size()}, nil
}

type fileBlob struct {
	*os.File
	size int64
}

// Size implements Blob.
func (b *fileBlob) Size() int64 { return b.size }

// Info implements Manager.
func (s *Dir) Info(_ context.Context, d digest.Digest) (Info, error) {
	if err := check(d); err != nil {
		return Info{}, err
	}
	st, err := os.Stat(s.path(d))
	if err != nil {
		return Info{}, classify("stat blob", d, err)
	}
	return Info{Digest: d, Size: st.Size(), Created: st.ModTime()}, nil
}

// List implements Manager. Names that are no digests are not ours and are
// left out.
func (s *Dir) List(ctx context.Context) ([]Info, error) {
	entries, err := os.ReadDir(s.blobs)
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	var infos []Info
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		if check(d) != nil {
			continue
		}
		info, err := s.Info(ctx, d)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return infos, nil
}

// Delete implements Manager.
func (s *Dir) Delete(_ context.Context, d digest.Digest) error {
	if err := check(d); err != nil {
		return err
	}
	if err := os.Remove(s.path(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete blob %s: %w", d, err)
	}
	return nil
}

// Writer implements Ingester.
func (s *Dir) Writer(context.Context) (Writer, error) {
	f, err := os.CreateTemp(s.ingest, "blob-")
	if err != nil {
		return nil, classify("begin blob", "", err)
	}
	return &dirWriter{store: s, f: f, hash: sha256.New()}, nil
}

type dirWriter struct {
	store *Dir
	f     *os.File // nil after Commit or Close
	hash  hash.Hash
	n     int64
}

// Write implements io.Writer. A full disk is errdefs.ErrExhausted.
func (w *dirWriter) Write(p []byte) (int, error) {
	if w.f == nil {
		return 0, fmt.Errorf("write blob: writer is closed: %w", errdefs.ErrConflict)
	}
	n, err := w.f.Write(p)
	w.hash.Write(p[:n])
	w.n += int64(n)
	if err != nil {
		return n, classify("write blob", "", err)
	}
	return n, nil
}

// Size implements Writer.
func (w *dirWriter) Size() int64 { return w.n }

// Digest implements Writer.
func (w *dirWriter) Digest() digest.Digest { return sum(w.hash) }

// Commit implements Writer: fsync, rename, fsync of the folder.
func (w *dirWriter) Commit(ctx context.Context, want digest.Digest) (Info, error) {
	got := w.Digest()
	if w.f == nil {
		return Info{}, fmt.Errorf("commit blob: writer is closed: %w", errdefs.ErrConflict)
	}
	if want != "" && want != got {
		return Info{}, fmt.Errorf("commit blob: content is %s, not %s: %w", got, want, errdefs.ErrCorrupt)
	}
	name := w.f.Name()
	err := w.f.Sync()
	if err == nil {
		err = w.f.Chmod(0o400)
	}
	if err == nil {
		err = os.Rename(name, w.store.path(got))
	}
	if err == nil {
		err = atomicfile.SyncDir(w.store.blobs)
	}
	if err != nil {
		return Info{}, classify("commit blob", got, err)
	}
	err = w.f.Close()
	w.f = nil
	if err != nil {
		return Info{}, classify("commit blob", got, err)
	}
	return w.store.Info(ctx, got)
}

// Close implements Writer.
func (w *dirWriter) Close() error {
	if w.f == nil {
		return nil
	}
	name, err := w.f.Name(), w.f.Close()
	w.f = nil
	if rerr := os.Remove(name); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// classify adds operation, digest and class to an error of the file system.
func classify(op string, d digest.Digest, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s %s: %w", op, d, errdefs.ErrNotFound)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errdefs.WithPublic(fmt.Errorf("%s %s: %w: %w", op, d, errdefs.ErrExhausted, err),
			"the host has no disk space left for the image")
	}
	return fmt.Errorf("%s %s: %w", op, d, err)
}
