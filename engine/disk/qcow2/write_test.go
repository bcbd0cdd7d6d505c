package qcow2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// parts is a disk of zeros with bytes at places of it.
type parts struct {
	size int64
	at   []int64
}

const partLen = 3000

// ReadAt implements io.ReaderAt.
func (p parts) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	for _, at := range p.at {
		for i := max(at, off); i < min(at+partLen, off+int64(len(b)), p.size); i++ {
			b[i-off] = byte(i%251) + 1
		}
	}
	return len(b), nil
}

func (p parts) segments(from int64) (int64, int64, error) {
	for _, at := range p.at {
		if at+partLen > from {
			return max(at, from), at + partLen, nil
		}
	}
	return 0, 0, io.EOF
}

// TestWriter: what is written is what QEMU reads, and this package.
func TestWriter(t *testing.T) {
	const gib = 1 << 30
	for name, p := range map[string]parts{
		"empty":          {size: 10 << 20},
		"nothing at all": {},
		"one sector":     {size: 512, at: []int64{0}},
		"odd end":        {size: 1<<20 + 512, at: []int64{1 << 20}},
		"pieces":         {size: 5 * gib, at: []int64{0, 65535, 200000, 512 << 20, 2*gib - 10, 5*gib - 1000}},
		"many tables":    {size: 3 << 40, at: []int64{4096, 1 << 40, 2 << 40, 3<<40 - 4096}},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := NewWriter(p, p.size, p.segments)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := w.Write(t.Context(), &out); err != nil || int64(out.Len()) != w.Size() {
				t.Fatalf("%d bytes, said to be %d: %v", out.Len(), w.Size(), err)
			}
			img, err := Open(bytes.NewReader(out.Bytes()), int64(out.Len()))
			if err != nil || img.Size() != p.size {
				t.Fatalf("%+v: %v", img, err)
			}
			for _, at := range append([]int64{0, p.size / 2}, p.at...) {
				n := int(min(10000, p.size-at))
				want, got := make([]byte, n), make([]byte, n)
				_, _ = p.ReadAt(want, at)
				if k, err := img.ReadAt(got, at); k < n || !bytes.Equal(want, got) {
					t.Errorf("at %d: %v, or other bytes", at, err)
				}
			}
			file := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			if text, err := exec.Command("qemu-img", "check", "-f", "qcow2", file).CombinedOutput(); err != nil {
				t.Errorf("qemu-img check: %v\n%s", err, text)
			}
			if p.size > 10*gib || p.size == 0 {
				return
			}
			raw := filepath.Join(t.TempDir(), "raw")
			if text, err := exec.Command("qemu-img", "convert", "-f", "qcow2", "-O", "raw", file, raw).CombinedOutput(); err != nil {
				t.Fatalf("qemu-img convert: %v\n%s", err, text)
			}
			f, err := os.Open(raw)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for _, at := range p.at {
				n := int(min(10000, p.size-at))
				want, got := make([]byte, n), make([]byte, n)
				_, _ = p.ReadAt(want, at)
				if k, err := f.ReadAt(got, at); k < n || !bytes.Equal(want, got) {
					t.Errorf("QEMU reads other bytes at %d: %v", at, err)
				}
			}
		})
	}
}

// TestWriterFails with the errors of disk and output, and when its time is over.
func TestWriterFails(t *testing.T) {
	p := parts{size: 1 << 20, at: []int64{0}}
	for name, segments := range map[string]Segments{
		"backwards":  func(from int64) (int64, int64, error) { return from, from, nil },
		"unreadable": func(int64) (int64, int64, error) { return 0, 0, errdefs.ErrCorrupt },
	} {
		if _, err := NewWriter(p, p.size, segments); !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewWriter(p, 1<<62, p.segments); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("too large: %v", err)
	}
	w, err := NewWriter(p, p.size, p.segments)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Write(ended, io.Discard); !errors.Is(err, errdefs.ErrAborted) {
		t.Errorf("cancelled: %v", err)
	}
	r, pw := io.Pipe()
	_ = r.CloseWithError(errdefs.ErrExhausted)
	if err := w.Write(t.Context(), pw); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("an output that is full: %v", err)
	}
}
