package ext

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// fields is a superblock of 2^10 blocks of 1 KiB, with what can be written.
func fields() []byte {
	b := make([]byte, superSize)
	for at, v := range map[int]byte{
		0x0: 64, 0x5: 4, 0x14: 1, 0x21: 32, 0x25: 32, 0x28: 64, 0x38: 0x53, 0x39: 0xef, 0x3a: 1, 0x4c: 1, 0x54: 11, 0x58: 128, 0x60: 0x42,
	} {
		b[at] = v
	}
	return b
}

// discarded is an output that keeps nothing.
type discarded struct{ n *int64 }

// ReadAt implements io.ReaderAt.
func (d discarded) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// WriteAt implements io.WriterAt.
func (d discarded) WriteAt(p []byte, off int64) (int, error) {
	if off < KeptBytes || off+int64(len(p)) > MaxWritten {
		return 0, io.ErrShortWrite
	}
	if *d.n += int64(len(p)); *d.n > 64<<20 {
		return 0, errdefs.ErrExhausted
	}
	return len(p), nil
}

// few is a tree of a root, a file and a link.
func few(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range []*tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "a", Typeflag: tar.TypeReg, Size: 3000, PAXRecords: map[string]string{paxXattr + "user.x": "y"}},
		{Name: "b", Typeflag: tar.TypeLink, Linkname: "a"},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// FuzzShape: whatever a tenant's superblock says, writing in its shape ends, and
// writes nothing outside of what it may.
func FuzzShape(f *testing.F) {
	f.Add(fields(), uint32(0))
	f.Add(fields(), uint32(5000))
	tree := few(f)
	f.Fuzz(func(t *testing.T, super []byte, journal uint32) {
		s := Shape{Super: super, JournalBlocks: journal}
		if len(super) == superSize && (le32(super, 4) > 1<<16 || le32(super, 0x150) > 0) {
			return // ShapeOf has a disk of that size, and takes the time that it takes
		}
		p, err := s.plan()
		if err != nil || p.groups > 1000 {
			return
		}
		grown, err := s.For(Need{Bytes: s.Bytes(), Entries: 100}, MaxWritten)
		if err == nil && grown.Bytes() < s.Bytes() {
			t.Errorf("%d bytes have become %d", s.Bytes(), grown.Bytes())
		}
		var n int64
		_, _ = Write(t.Context(), s, bytes.NewReader(tree), discarded{&n}) // any error is fine
	})
}

// FuzzTree: a stream that is no tree is refused.
func FuzzTree(f *testing.F) {
	f.Add(few(f))
	f.Fuzz(func(t *testing.T, tree []byte) {
		for r := tar.NewReader(bytes.NewReader(tree)); ; {
			h, err := r.Next()
			if err != nil {
				break
			}
			if h.Size > 1<<20 {
				return // a file that is one hole, which takes the time that it takes
			}
		}
		var n int64
		_, _ = Write(t.Context(), Shape{Super: fields()}, bytes.NewReader(tree), discarded{&n})
	})
}

// TestWriteRefuses what is no tree, what does not fit, and goes on no longer than
// it may.
func TestWriteRefuses(t *testing.T) {
	entry := func(list ...*tar.Header) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, h := range list {
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(w, endless{}, h.Size); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	root := &tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}
	many := []*tar.Header{root}
	for i := range 60 {
		many = append(many, &tar.Header{Name: "f" + string(rune('0'+i)), Typeflag: tar.TypeReg})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx   context.Context
		tree  []byte
		class error
	}{
		"nothing":        {t.Context(), entry(), errdefs.ErrInvalid},
		"two roots":      {t.Context(), entry(root, root), errdefs.ErrInvalid},
		"no directory":   {t.Context(), entry(root, &tar.Header{Name: "a/b", Typeflag: tar.TypeReg}), errdefs.ErrInvalid},
		"upwards":        {t.Context(), entry(root, &tar.Header{Name: "..", Typeflag: tar.TypeReg}), errdefs.ErrInvalid},
		"a lost link":    {t.Context(), entry(root, &tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "b"}), errdefs.ErrInvalid},
		"an attribute":   {t.Context(), entry(root, &tar.Header{Name: "a", Typeflag: tar.TypeReg, PAXRecords: map[string]string{paxXattr + "odd": "y"}}), errdefs.ErrInvalid},
		"too large":      {t.Context(), entry(root, &tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 2 << 20}), errdefs.ErrExhausted},
		"too many":       {t.Context(), entry(many...), errdefs.ErrExhausted},
		"cut off":        {t.Context(), few(t)[:1800], io.ErrUnexpectedEOF},
		"in a time over": {ended, few(t), errdefs.ErrAborted},
	} {
		var n int64
		if _, err := Write(c.ctx, Shape{Super: fields()}, bytes.NewReader(c.tree), discarded{&n}); !errors.Is(err, c.class) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (Shape{Super: make([]byte, 3)}).For(Need{}, MaxWritten); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a short superblock: %v", err)
	}
}

// endless are bytes.
type endless struct{}

// Read implements io.Reader.
func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
