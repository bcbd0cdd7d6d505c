package content

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Memory is a Store in memory, for tests. The zero value is ready.
type Memory struct {
	mu    sync.Mutex
	blobs map[digest.Digest]memBlob // guarded by mu
}

type memBlob struct {
	data    []byte
	created time.Time
}

func (s *Memory) get(op string, d digest.Digest) (memBlob, error) {
	if err := check(d); err != nil {
		return memBlob{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[d]
	if !ok {
		return memBlob{}, fmt.Errorf("%s %s: %w", op, d, errdefs.ErrNotFound)
	}
	return b, nil
}

// Open implements Provider.
func (s *Memory) Open(_ context.Context, d digest.Digest) (Blob, error) {
	b, err := s.get("open blob", d)
	if err != nil {
		return nil, err
	}
	return memReader{bytes.NewReader(b.data)}, nil
}

type memReader struct{ *bytes.Reader }

// Close implements io.Closer.
func (memReader) Close() error { return nil }

// Info implements Manager.
func (s *Memory) Info(_ context.Context, d digest.Digest) (Info, error) {
	b, err := s.get("stat blob", d)
	if err != nil {
		return Info{}, err
	}
	return Info{Digest: d, Size: int64(len(b.data)), Created: b.created}, nil
}

// List implements Manager.
func (s *Memory) List(context.Context) ([]Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var infos []Info
	for d, b := range maps.All(s.blobs) {
		infos = append(infos, Info{Digest: d, Size: int64(len(b.data)), Created: b.created})
	}
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return infos, nil
}

// Delete implements Manager.
func (s *Memory) Delete(_ context.Context, d digest.Digest) error {
	if err := check(d); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, d)
	return nil
}

// Writer implements Ingester.
func (s *Memory) Writer(context.Context) (Writer, error) {
	return &memWriter{store: s, hash: sha256.New()}, nil
}

type memWriter struct {
	store *Memory // nil after Commit or Close
	buf   bytes.Buffer
	hash  hash.Hash
}

// Write implements io.Writer.
func (w *memWriter) Write(p []byte) (int, error) {
	if w.store == nil {
		return 0, fmt.Errorf("write blob: writer is closed: %w", errdefs.ErrConflict)
	}
	w.hash.Write(p)
	return w.buf.Write(p)
}

// Size implements Writer.
func (w *memWriter) Size() int64 { return int64(w.buf.Len()) }

// Digest implements Writer.
func (w *memWriter) Digest() digest.Digest { return sum(w.hash) }

// Commit implements Writer.
func (w *memWriter) Commit(ctx context.Context, want digest.Digest) (Info, error) {
	if w.store == nil {
		return Info{}, fmt.Errorf("commit blob: writer is closed: %w", errdefs.ErrConflict)
	}
	got := w.Digest()
	if want != "" && want != got {
		return Info{}, fmt.Errorf("commit blob: content is %s, not %s: %w", got, want, errdefs.ErrCorrupt)
	}
	s := w.store
	w.store = nil
	s.mu.Lock()
	if s.blobs == nil {
		s.blobs = map[digest.Digest]memBlob{}
	}
	if _, ok := s.blobs[got]; !ok {
		s.blobs[got] = memBlob{data: w.buf.Bytes(), created: time.Now()}
	}
	s.mu.Unlock()
	return s.Info(ctx, got)
}

// Close implements Writer.
func (w *memWriter) Close() error {
	w.store = nil
	return nil
}
