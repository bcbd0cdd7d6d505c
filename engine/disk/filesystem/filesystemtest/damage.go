package filesystemtest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// What one look at a small image may cost before it counts as one without end.
const (
	mostReads   = 2_000_000
	mostEntries = 20_000
	mostMemory  = 32 << 20
)

// damage changes a few bytes at a time, at places that a seed chooses.
func damage(t *testing.T, base *Image, open filesystem.Opener, rounds int) {
	refused := 0
	for seed := range rounds {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		s := base.patched()
		for range 1 + random.IntN(30) {
			hit(s, random)
		}
		if err := look(s, s.size, open); err != nil {
			if err := promised(err); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			refused++
		}
	}
	t.Logf("%d of %d images refused or partly refused", refused, rounds)
}

// hit changes up to 8 bytes of metadata, near something that is not zero.
func hit(s *Image, random *rand.Rand) {
	page := s.meta[random.IntN(len(s.meta))]
	at := random.IntN(pageSize)
	for k := 0; k < pageSize && s.pages[page][at] == 0; k++ {
		at = (at + 1) % pageSize
	}
	at = max(0, at-random.IntN(4))
	b := make([]byte, min(1+random.IntN(8), pageSize-at))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	s.set(page, at, b)
}

// truncated cuts the image off.
func truncated(t *testing.T, base *Image, open filesystem.Opener) {
	sizes := []int64{0, 1, 1023, 1024, 2000, 4096, 65535, 65536, 70000, 1 << 20, base.size - 1, base.size / 2}
	for i := range int64(30) {
		page := base.order[int(i)*(len(base.order)-1)/29]
		sizes = append(sizes, page*pageSize, page*pageSize+100)
	}
	for _, size := range sizes {
		s := base.patched()
		s.size = size
		if err := promised(look(s, size, open)); err != nil {
			t.Errorf("%d of %d bytes: %v", size, base.size, err)
		}
	}
}

// failing has a disk that fails after some reads.
func failing(t *testing.T, base *Image, open filesystem.Opener) {
	broken := errors.New("the disk is broken")
	all := &counted{r: base, most: mostReads}
	if err := lookAt(all, base.size, open); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		r := &counted{r: base, most: i * all.reads / 40, err: broken}
		if err := lookAt(r, base.size, open); !errors.Is(err, broken) {
			t.Errorf("after %d reads: %v, want the error of the disk", r.most, err)
		}
	}
}

// promised returns err if it is none of those that the contract promises.
func promised(err error) error {
	for _, class := range []error{nil, errdefs.ErrCorrupt, errdefs.ErrUnsupported, errdefs.ErrNotFound} {
		if errors.Is(err, class) {
			return nil
		}
	}
	return err
}

var errEndless = errors.New("it reads without end")

// counted fails after some reads.
type counted struct {
	r           io.ReaderAt
	reads, most int
	err         error
}

// ReadAt implements io.ReaderAt.
func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	if c.reads++; c.reads > c.most {
		return 0, c.err
	}
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	return c.r.ReadAt(p, off)
}

func look(s *Image, size int64, open filesystem.Opener) error {
	return lookAt(&counted{r: s, most: mostReads, err: errEndless}, size, open)
}

// lookAt reads all that fs shows as far as it goes, and returns the first error
// (which does not end it), or that a promise was broken.
func lookAt(r *counted, size int64, open filesystem.Opener) error {
	l := &looker{start: allocated()}
	l.before = l.start
	l.call("open", func() (err error) { l.fs, err = open(r, size); return err })
	if l.fs == nil {
		return l.result()
	}
	l.fs.Info()
	seen := map[filesystem.Node]bool{}
	queue := []filesystem.Node{l.fs.Root()}
	for len(queue) > 0 && l.broken == nil && r.reads <= r.most {
		n := queue[0]
		queue = queue[1:]
		if seen[n] {
			continue
		}
		seen[n] = true
		l.node(n)
		l.call("readdir", func() error {
			left := mostEntries - len(queue)
			return l.fs.ReadDir(n, func(_ string, child filesystem.Node) error {
				if left--; left < 0 {
					return errEnough
				}
				queue = append(queue, child)
				return nil
			})
		})
		if len(seen) > mostEntries {
			break
		}
	}
	if err := l.kept(); err != nil {
		return err
	}
	return l.result()
}

var errEnough = errors.New("enough")

type looker struct {
	fs            filesystem.FileSystem
	start, before uint64
	first, broken error
}

func (l *looker) result() error {
	if l.broken != nil {
		return l.broken
	}
	return l.first
}

// kept says so if the reader keeps too much.
func (l *looker) kept() error {
	if l.before-l.start < mostMemory {
		return nil // it allocated less, and so keeps less
	}
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	keep := stats.HeapAlloc
	runtime.KeepAlive(l.fs)
	l.fs = nil
	runtime.GC()
	runtime.ReadMemStats(&stats)
	if keep > stats.HeapAlloc+mostMemory {
		return fmt.Errorf("it keeps %d bytes", keep-stats.HeapAlloc)
	}
	return nil
}

// call runs one method; it must not allocate without bounds.
func (l *looker) call(what string, f func() error) {
	err := f()
	now := allocated()
	if now-l.before > 2*mostMemory && l.broken == nil {
		l.broken = fmt.Errorf("%s allocates %d bytes", what, now-l.before)
	}
	l.before = now
	switch {
	case err == nil, errors.Is(err, errEnough), errors.Is(err, errdefs.ErrInvalid):
	case promised(err) != nil && l.broken == nil:
		l.broken = err
	case l.first == nil:
		l.first = err
	}
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// node reads one inode but for its entries.
func (l *looker) node(n filesystem.Node) {
	var a filesystem.Attr
	l.call("stat", func() (err error) {
		if a, err = l.fs.Stat(n); err == nil && a.Size < 0 {
			l.broken = fmt.Errorf("%v has size %d", n, a.Size)
		}
		return err
	})
	l.call("xattrs", func() error { _, err := l.fs.Xattrs(n); return err })
	l.call("readlink", func() error {
		target, err := l.fs.Readlink(n)
		if len(target) > 4095 {
			l.broken = fmt.Errorf("target of %d bytes", len(target))
		}
		return err
	})
	l.call("open", func() error {
		f, err := l.fs.Open(n)
		if err != nil {
			return err
		}
		if a.Mode&unix.S_IFMT != unix.S_IFREG {
			return fmt.Errorf("%v of mode %o opens as a file", n, a.Mode)
		}
		return l.content(f, a.Size)
	})
}

// content reads the ends of a file's segments.
func (l *looker) content(f filesystem.File, size int64) error {
	var e entry
	buf, count := make([]byte, 8192), 0
	last := int64(0)
	err := f.Segments(func(offset, length int64) error {
		if offset < last || length <= 0 || offset+length > size || offset+length < offset {
			return fmt.Errorf("segment %d+%d after %d of %d", offset, length, last, size)
		}
		last = offset + length
		if count++; count > 200 {
			return errEnough
		}
		e.Segments = append(e.Segments, segment{offset, offset + length})
		return nil
	})
	for _, s := range e.Segments {
		for _, at := range []int64{s.Offset, max(s.Offset, s.End-int64(len(buf)))} {
			n := min(int64(len(buf)), s.End-at)
			if k, rerr := f.ReadAt(buf[:n], at); rerr != nil && (rerr != io.EOF || int64(k) != n) {
				if rerr == io.EOF {
					rerr = fmt.Errorf("%d of %d bytes at %d of %d", k, n, at, size)
				}
				err = errors.Join(err, rerr)
			}
		}
	}
	return err
}
