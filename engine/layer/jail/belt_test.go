package jail

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// ends are both ends of a belt in one process.
func ends(t *testing.T) (*belt, *taker) {
	t.Helper()
	b, err := newBelt()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	r, err := newTaker(b.memory, b.theirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(r.memory); err != nil {
			t.Error(err)
		}
	})
	return b, r
}

func TestBelt(t *testing.T) {
	all := make([]byte, 2*places*placeLen+1)
	for i := range all {
		all[i] = byte(i >> 8)
	}
	for _, size := range []int{0, 1, placeLen - 1, placeLen, placeLen + 1, places * placeLen, len(all)} {
		want := all[:size]
		for name, src := range map[string]io.Reader{
			"whole": bytes.NewReader(want), "pieces": iotest.HalfReader(bytes.NewReader(want)), "end with data": iotest.DataErrReader(bytes.NewReader(want)),
		} {
			b, r := ends(t)
			fed := make(chan error, 1)
			go func() { fed <- b.feed(src) }()
			got, err := io.ReadAll(r)
			if !bytes.Equal(got, want) || errors.Join(err, <-fed) != nil {
				t.Errorf("%s: %d bytes of %d, %v", name, len(got), size, err)
			}
			if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("%s: behind the end: %d, %v", name, n, err)
			}
		}
	}
}

// An error of the source is no end: who takes does not see one.
func TestBeltBroken(t *testing.T) {
	b, r := ends(t)
	broken := errors.New("broken")
	fed := make(chan error, 1)
	go func() {
		fed <- errors.Join(b.feed(io.MultiReader(bytes.NewReader(make([]byte, placeLen)), iotest.ErrReader(broken))), b.ours.Close())
	}()
	got, err := io.ReadAll(r)
	if len(got) != placeLen || err == nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := <-fed; !errors.Is(err, broken) {
		t.Error(err)
	}
}

// Who has not taken everything has gone, however much there was room for.
func TestBeltGone(t *testing.T) {
	for name, take := range map[string]int64{"at once": 0, "on the way": placeLen + 1, "before the last byte": places*placeLen - 1} {
		b, r := ends(t)
		fed := make(chan error, 1)
		go func() { fed <- b.feed(bytes.NewReader(make([]byte, places*placeLen))) }()
		_, err := io.CopyN(io.Discard, r, take)
		if err = errors.Join(err, b.theirs.Close()); err != nil {
			t.Fatal(err)
		}
		if err := <-fed; !errors.Is(err, errGone) || !errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
