package readahead_test

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/gantry-project/gantry/internal/readahead"
)

func TestContent(t *testing.T) {
	for _, size := range []int{0, 1, 256 << 10, 256<<10 + 1, 5 << 20} {
		want := bytes.Repeat([]byte("some text, "), size/11+1)[:size]
		for name, src := range map[string]io.Reader{"whole": bytes.NewReader(want), "pieces": iotest.HalfReader(bytes.NewReader(want)), "late end": iotest.DataErrReader(bytes.NewReader(want))} {
			r := readahead.New(src)
			got, err := io.ReadAll(iotest.OneByteReader(io.LimitReader(r, 100)))
			rest, err2 := io.ReadAll(r)
			if got = append(got, rest...); !bytes.Equal(got, want) || errors.Join(err, err2, r.Close(), r.Close()) != nil {
				t.Errorf("%s: %d bytes of %d, %v, %v", name, len(got), size, err, err2)
			}
		}
	}
}

// TestError comes after all that was read before it, and stays.
func TestError(t *testing.T) {
	broken := errors.New("broken")
	r := readahead.New(io.MultiReader(bytes.NewReader(make([]byte, 700_000)), iotest.ErrReader(broken)))
	defer r.Close()
	data, err := io.ReadAll(r)
	if len(data) != 700_000 || err != broken {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != broken {
		t.Errorf("again: %d, %v", n, err)
	}
}

// TestBounds: it reads ahead, no more than it has room for, and not after
// Close.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var taken atomic.Int64
		r := readahead.New(endless(func(p []byte) { taken.Add(int64(len(p))) }))
		synctest.Wait()
		if n := taken.Load(); n != 1<<20 {
			t.Errorf("%d bytes ahead", n)
		}
		if _, err := io.CopyN(io.Discard, r, 600_000); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := taken.Load(); n <= 1<<20 || n > 600_000+1<<20 {
			t.Errorf("%d bytes taken for 600,000", n)
		}
		_ = r.Close()
		before := taken.Load()
		synctest.Wait()
		if taken.Load() != before {
			t.Error("it goes on")
		}
	})
}

// endless is a source that never ends.
type endless func(p []byte)

// Read implements io.Reader.
func (e endless) Read(p []byte) (int, error) {
	e(p)
	return len(p), nil
}
