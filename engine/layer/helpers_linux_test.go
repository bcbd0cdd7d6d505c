package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var epoch = time.Unix(1_700_000_000, 0)

// item is one entry of a test layer; the zero type is a file.
type item struct {
	name, link, data string
	typ              byte
	mode             int64
	uid, gid         int
	major, minor     int64
	pax              map[string]string
	mtime            time.Time
}

func dirItem(name string) item       { return item{name: name, typ: tar.TypeDir, mode: 0o755} }
func file(name, data string) item    { return item{name: name, data: data} }
func symlink(name, link string) item { return item{name: name, typ: tar.TypeSymlink, link: link} }
func hardlink(name, to string) item  { return item{name: name, typ: tar.TypeLink, link: to} }

func makeTar(t testing.TB, items ...item) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, it := range items {
		hdr := &tar.Header{
			Name: it.name, Linkname: it.link, Typeflag: it.typ, Mode: it.mode, Uid: it.uid, Gid: it.gid,
			Size: int64(len(it.data)), Devmajor: it.major, Devminor: it.minor, PAXRecords: it.pax, ModTime: epoch,
		}
		if it.typ == 0 {
			hdr.Typeflag = tar.TypeReg
		}
		if hdr.Mode == 0 {
			hdr.Mode = 0o644
		}
		if !it.mtime.IsZero() {
			hdr.ModTime = it.mtime
		}
		if it.pax != nil {
			hdr.Format = tar.FormatPAX
		}
		if err := tw.WriteHeader(hdr); err != nil {
			t.Fatalf("entry %q: %v", it.name, err)
		}
		if _, err := tw.Write([]byte(it.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// rawHeader makes a ustar block that archive/tar would refuse to write.
func rawHeader(name string, typ byte, change func(b []byte)) []byte {
	b := make([]byte, 512)
	copy(b[0:100], name)
	copy(b[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	b[156] = typ
	copy(b[257:], "ustar\x0000")
	if change != nil {
		change(b)
	}
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// jail is a target directory beside a host canary.
type jail struct {
	dir    *os.File
	root   string
	canary string
}

func newJail(t testing.TB) *jail {
	t.Helper()
	host := t.TempDir()
	j := &jail{root: filepath.Join(host, "a", "b", "layer"), canary: filepath.Join(host, "canary")}
	if err := os.MkdirAll(j.root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(j.canary, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(j.root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	j.dir = d
	return j
}

// intact fails t if anything outside of the target changed.
func (j *jail) intact(t testing.TB) {
	t.Helper()
	host := filepath.Dir(j.canary)
	err := filepath.WalkDir(host, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(host, p)
		switch {
		case err != nil:
			return err
		case rel == "a/b/layer":
			return filepath.SkipDir
		case rel != "." && rel != "a" && rel != "a/b" && rel != "canary":
			t.Errorf("appeared on the host: %s", rel)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(j.canary, &st); err != nil || st.Mode != unix.S_IFREG|0o600 || st.Nlink != 1 || st.Uid != 0 {
		t.Errorf("canary: mode %o, %d links, owner %d, %v", st.Mode, st.Nlink, st.Uid, err)
	}
	if data, err := os.ReadFile(j.canary); err != nil || string(data) != "untouched" {
		t.Errorf("canary: %q, %v", data, err)
	}
}

func (j *jail) apply(t testing.TB, opts Options, data []byte) (Result, error) {
	t.Helper()
	return Apply(t.Context(), j.dir, bytes.NewReader(data), opts)
}

// tree renders a directory, one line an entry: type, mode, owner, name, rest.
func (j *jail) tree(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	inodes := map[uint64]string{}
	err := filepath.WalkDir(j.root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(j.root, p)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %04o %d:%d %s", typeName(&st), st.Mode&0o7777, st.Uid, st.Gid, rel)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if first, ok := inodes[st.Ino]; ok {
				fmt.Fprintf(&b, " = %s", first)
			} else {
				inodes[st.Ino] = rel
				fmt.Fprintf(&b, " %.40q", data)
			}
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " -> %s", to)
		case unix.S_IFDIR:
			v := make([]byte, 8)
			if n, err := unix.Lgetxattr(p, OpaqueXattr, v); err == nil {
				fmt.Fprintf(&b, " opaque=%s", v[:n])
			}
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func typeName(st *unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "dir"
	case unix.S_IFREG:
		return "file"
	case unix.S_IFLNK:
		return "link"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			return "gone"
		}
	}
	return "odd"
}
