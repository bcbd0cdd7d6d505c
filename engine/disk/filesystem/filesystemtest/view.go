package filesystemtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
)

// entry is one name as somebody shows it.
type entry struct {
	Mode, UID, GID, Links, Major, Minor uint32
	Size                                int64
	Atime, Mtime, Ctime                 string
	Target                              string
	Xattrs                              map[string]string
	// Segments with data; neighbours are one. Digest of the content.
	Segments []segment
	Digest   string
	// Same holds the first path, in order of paths, of the same inode.
	Same string
}

type segment struct{ Offset, End int64 }

// Compare compares each entry that fs shows with what the kernel shows of the
// same file system, mounted at dir without atimes: type, mode, owner, links,
// size, device, times, target, attributes, holes, content and names of one
// inode.
func Compare(t testing.TB, fs filesystem.FileSystem, dir string) {
	t.Helper()
	want, got := kernelView(t, dir), readerView(t, fs)
	if len(want) < 2 {
		t.Fatalf("the kernel shows %d entries", len(want))
	}
	all := maps.Clone(want)
	maps.Copy(all, got)
	bad := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		w, inKernel := want[name]
		g, inReader := got[name]
		switch {
		case !inKernel:
			t.Errorf("%q is not there for the kernel: %+v", name, g)
		case !inReader:
			t.Errorf("%q is missing", name)
		default:
			if d := cmp.Diff(w, g); d != "" {
				t.Errorf("%q (-kernel +reader):\n%s", name, d)
			} else {
				continue
			}
		}
		if bad++; bad == 20 {
			t.Fatal("and so on")
		}
	}
}

func kernelView(t testing.TB, dir string) map[string]entry {
	t.Helper()
	out, same := map[string]entry{}, map[[2]uint64]string{}
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		e := entry{
			Mode: st.Mode, UID: st.Uid, GID: st.Gid, Links: uint32(st.Nlink), Size: st.Size,
			Atime: stamp(time.Unix(st.Atim.Unix())), Mtime: stamp(time.Unix(st.Mtim.Unix())), Ctime: stamp(time.Unix(st.Ctim.Unix())),
		}
		id := [2]uint64{st.Dev, st.Ino}
		first, again := same[id]
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if again {
				// Once read, what was allocated and never written is no hole any more.
				e.Segments, e.Digest = out[first].Segments, out[first].Digest
				break
			}
			err = kernelContent(p, st.Size, &e)
		case unix.S_IFLNK:
			e.Target, err = os.Readlink(p)
		case unix.S_IFCHR, unix.S_IFBLK:
			e.Major, e.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
		}
		if err != nil {
			return err
		}
		if !again {
			same[id] = name
		}
		e.Same = same[id]
		e.Xattrs, err = kernelXattrs(p)
		out[name] = e
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func kernelContent(p string, size int64, e *entry) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	for at := int64(0); at < size; {
		start, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		end, err := f.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		e.Segments = append(e.Segments, segment{start, end})
		at = end
	}
	return digest(f, size, e)
}

// digest reads what is in the segments, and what is beside them in the same
// pages. It is of the pages that are not all zeros.
func digest(r io.ReaderAt, size int64, e *entry) error {
	if len(e.Segments) == 0 {
		return nil
	}
	h := sha256.New()
	buf, next := make([]byte, min(64*pageSize, size+pageSize)), int64(0)
	for _, s := range e.Segments {
		for at := max(next, s.Offset-s.Offset%pageSize); at < s.End; at = next {
			next = min(at+int64(len(buf)), s.End+(pageSize-s.End%pageSize)%pageSize)
			b := buf[:min(next, size)-at]
			if n, err := r.ReadAt(b, at); n < len(b) {
				return fmt.Errorf("%d bytes at %d: %d read: %w", len(b), at, n, err)
			}
			for page := range slices.Chunk(b, pageSize) {
				if page = bytes.TrimRight(page, "\x00"); len(page) > 0 {
					_, _ = fmt.Fprintf(h, "%d:", at)
					_, _ = h.Write(page)
				}
				at += pageSize
			}
		}
	}
	e.Digest = hex.EncodeToString(h.Sum(nil))
	return nil
}

func kernelXattrs(p string) (map[string]string, error) {
	n, err := unix.Llistxattr(p, nil)
	if err != nil || n == 0 {
		return nil, err
	}
	buf := make([]byte, n)
	if n, err = unix.Llistxattr(p, buf); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, name := range slices.Collect(splitNUL(buf[:n])) {
		if strings.HasPrefix(name, "trusted.SGI_ACL_") {
			continue // XFS shows root its access control lists twice
		}
		value := make([]byte, 65536)
		n, err := unix.Lgetxattr(p, name, value)
		if err != nil {
			return nil, err
		}
		out[name] = string(value[:n])
	}
	return out, nil
}

func splitNUL(b []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for start, i := 0, 0; i < len(b); i++ {
			if b[i] == 0 {
				if !yield(string(b[start:i])) {
					return
				}
				start = i + 1
			}
		}
	}
}

// readerView is the same by a reader. A subvolume below is a directory like
// others.
func readerView(t testing.TB, fs filesystem.FileSystem) map[string]entry {
	t.Helper()
	out, nodes := map[string]entry{}, map[string]filesystem.Node{}
	var visit func(name string, n filesystem.Node)
	visit = func(name string, n filesystem.Node) {
		e, err := readerEntry(fs, n)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if _, twice := out[name]; twice {
			t.Fatalf("%q is there twice", name)
		}
		out[name], nodes[name] = e, n
		if e.Mode&unix.S_IFMT != unix.S_IFDIR {
			return
		}
		children := map[string]filesystem.Node{}
		if err := fs.ReadDir(n, func(base string, child filesystem.Node) error { children[base] = child; return nil }); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		for base, child := range children {
			visit(path.Join(name, base), child)
		}
	}
	visit(".", fs.Root())
	same := map[filesystem.Node]string{}
	// in the order of filepath.WalkDir
	for _, name := range slices.SortedFunc(maps.Keys(out), byWalk) {
		n := nodes[name]
		if _, ok := same[n]; !ok {
			same[n] = name
		}
		e := out[name]
		e.Same = same[n]
		out[name] = e
	}
	return out
}

func readerEntry(fs filesystem.FileSystem, n filesystem.Node) (entry, error) {
	a, err := fs.Stat(n)
	if err != nil {
		return entry{}, err
	}
	e := entry{
		Mode: a.Mode, UID: a.UID, GID: a.GID, Links: a.Links, Size: a.Size, Major: a.Major, Minor: a.Minor,
		Atime: stamp(a.Atime), Mtime: stamp(a.Mtime), Ctime: stamp(a.Ctime),
	}
	if e.Xattrs, err = fs.Xattrs(n); err != nil {
		return e, err
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		e.Target, err = fs.Readlink(n)
	case unix.S_IFREG:
		var f filesystem.File
		if f, err = fs.Open(n); err == nil {
			err = errors.Join(segments(f, a.Size, &e), digest(f, a.Size, &e))
		}
	}
	return e, err
}

// segments checks the order that File promises.
func segments(f filesystem.File, size int64, e *entry) error {
	last := int64(0)
	return f.Segments(func(offset, length int64) error {
		if offset < last || length <= 0 || offset+length > size || offset+length < offset {
			return fmt.Errorf("segment %d+%d after %d of %d", offset, length, last, size)
		}
		if k := len(e.Segments); k > 0 && last == offset {
			e.Segments[k-1].End = offset + length
		} else {
			e.Segments = append(e.Segments, segment{offset, offset + length})
		}
		last = offset + length
		return nil
	})
}

// byWalk orders paths as filepath.WalkDir visits them.
func byWalk(a, b string) int {
	split := func(s string) []string {
		if s == "." {
			return nil
		}
		return strings.Split(s, "/")
	}
	return slices.Compare(split(a), split(b))
}
