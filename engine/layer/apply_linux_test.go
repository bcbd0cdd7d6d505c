package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestApplyMakesWhatTheStreamSays(t *testing.T) {
	cases := []struct {
		name  string
		items []item
		want  string
	}{
		{"all kinds", []item{
			{name: "./", typ: tar.TypeDir, mode: 0o711, uid: 1, gid: 2},
			{name: "./bin/", typ: tar.TypeDir, mode: 0o500},
			{name: "bin/su", data: "x", mode: 0o4755, gid: 8},
			{name: "bin/ping", mode: 0o2755, uid: 7},
			symlink("bin/sh", "/etc/passwd"),
			hardlink("bin/su2", "./bin/su"),
			{name: "tmp", typ: tar.TypeDir, mode: 0o1777},
			{name: "tmp/p", typ: tar.TypeFifo, mode: 0o622, uid: 5},
			{name: "big id", uid: 65535, gid: 65535},
		}, `dir 0711 1:2 .
file 0644 65535:65535 big id ""
dir 0500 0:0 bin
file 2755 7:0 bin/ping ""
link 0777 0:0 bin/sh -> /etc/passwd
file 4755 0:8 bin/su "x"
file 4755 0:8 bin/su2 = bin/su
dir 1777 0:0 tmp
fifo 0622 5:0 tmp/p
`},
		{"a later entry replaces an earlier one", []item{
			file("a", "1"), file("a", "2"), dirItem("d"), file("d/x", ""), file("d", "now a file"),
			symlink("s", "a"), dirItem("s"), file("s/in", ""), symlink("l", "a"), file("l", "not through the link"),
			dirItem("keep"), file("keep/x", "x"), dirItem("keep"),
		}, `dir 0755 0:0 .
file 0644 0:0 a "2"
file 0644 0:0 d "now a file"
dir 0755 0:0 keep
file 0644 0:0 keep/x "x"
file 0644 0:0 l "not through the link"
dir 0755 0:0 s
file 0644 0:0 s/in ""
`},
		{"whiteouts", []item{
			file("a/.wh.gone", ""), file(".wh.top", ""),
			file("o/.wh..wh..opq", ""), file("o/new", ""),
			dirItem("p"), file("p/x", ""), file("p/.wh..wh..opq", ""), // marker after entries
			file(".wh.swapped", ""), dirItem("swapped"), file("swapped/new", ""),
			file(".wh.below", ""), file("below/new", ""), // no entry for the directory itself
			file("present", "stays"), file(".wh.present", ""),
			dirItem("had"), file("had/x", ""), file(".wh.had", ""),
			file(".wh.file", ""), file("file", "again"),
		}, `dir 0755 0:0 .
dir 0755 0:0 a
gone 0000 0:0 a/gone
dir 0755 0:0 below opaque=y
file 0644 0:0 below/new ""
file 0644 0:0 file "again"
dir 0755 0:0 had opaque=y
file 0644 0:0 had/x ""
dir 0755 0:0 o opaque=y
file 0644 0:0 o/new ""
dir 0755 0:0 p opaque=y
file 0644 0:0 p/x ""
file 0644 0:0 present "stays"
dir 0755 0:0 swapped opaque=y
file 0644 0:0 swapped/new ""
gone 0000 0:0 top
`},
		{"metadata of aufs is left out", []item{
			{name: ".wh..wh.aufs"},
			dirItem(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "x"), dirItem("d/.wh..wh.orph"),
			file("x", ""),
		}, "dir 0755 0:0 .\nfile 0644 0:0 x \"\"\n"},
		{"devices are left out", []item{
			{name: "dev/null", typ: tar.TypeChar, major: 1, minor: 3},
			{name: "dev/sda", typ: tar.TypeBlock, major: 8},
			hardlink("dev/also", "dev/null"),
		}, "dir 0755 0:0 .\ndir 0755 0:0 dev\n"},
		{"hard link to a symbolic link becomes a second one", []item{
			symlink("s", "/etc/shadow"), hardlink("h", "s"), file("h2", ""), hardlink("h2", "s"),
		}, "dir 0755 0:0 .\nlink 0777 0:0 h -> /etc/shadow\nlink 0777 0:0 h2 -> /etc/shadow\nlink 0777 0:0 s -> /etc/shadow\n"},
		{"odd names are only names", []item{
			file(`a\b`, ""), file("\xff\xfe", ""), file(".wh", ""), file("...", ""), file("a b\n", ""), file(" ", ""),
		}, "dir 0755 0:0 .\nfile 0644 0:0   \"\"\nfile 0644 0:0 ... \"\"\nfile 0644 0:0 .wh \"\"\nfile 0644 0:0 a b\n \"\"\n" +
			"file 0644 0:0 a\\b \"\"\nfile 0644 0:0 \xff\xfe \"\"\n"},
		{"absolute names are below the root", []item{
			file("/x", ""), file("//y", ""), file("./././z", ""), hardlink("/h", "/x"),
		}, "dir 0755 0:0 .\nfile 0644 0:0 h \"\"\nfile 0644 0:0 x = h\nfile 0644 0:0 y \"\"\nfile 0644 0:0 z \"\"\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			j := newJail(t)
			data := makeTar(t, c.items...)
			res, err := j.apply(t, Options{}, data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, j.tree(t)); diff != "" {
				t.Error(diff)
			}
			if res.DiffID != digest.FromBytes(data) || res.Entries != int64(len(c.items)) {
				t.Errorf("result %+v", res)
			}
			j.intact(t)
		})
	}
}

func TestApplyReportsImplicitDirectories(t *testing.T) {
	j := newJail(t)
	res, err := j.apply(t, Options{}, makeTar(t,
		file("usr/local/x", ""), dirItem("usr"), file("b/.wh.c", ""), dirItem("d"), file("d/e", "12345"),
		item{name: "dev", typ: tar.TypeChar, major: 1, minor: 3}))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{".", "b", "usr/local"}; !slices.Equal(res.ImplicitDirs, want) {
		t.Errorf("got %v, want %v", res.ImplicitDirs, want)
	}
	if res.Devices != 1 || res.Bytes != 5 || res.Skipped != 0 {
		t.Errorf("result %+v", res)
	}
}

func TestApplySetsTimes(t *testing.T) {
	j := newJail(t)
	at := func(sec, nsec int64) item { return item{mtime: time.Unix(sec, nsec), pax: map[string]string{}} }
	named := func(it item, name string, typ byte) item { it.name, it.typ = name, typ; return it }
	_, err := j.apply(t, Options{}, makeTar(t,
		named(at(1000, 5), "d/", tar.TypeDir), named(at(2000, 123456789), "d/f", 0),
		item{name: "d/l", typ: tar.TypeSymlink, link: "f", mtime: time.Unix(3000, 0)},
		named(at(-5, 0), "old", 0), named(at(1<<40, 0), "late", 0)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]time.Time{
		"d": time.Unix(1000, 5), "d/f": time.Unix(2000, 123456789), "d/l": time.Unix(3000, 0),
		"old": time.Unix(0, 0), "late": time.Unix(maxTime, 0),
	} {
		st, err := os.Lstat(filepath.Join(j.root, name))
		if err != nil || !st.ModTime().Equal(want) {
			t.Errorf("%s: %v, want %v, %v", name, st.ModTime(), want, err)
		}
	}
}

func TestApplyKeepsAllowedAttributes(t *testing.T) {
	v2 := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	v3 := func(root string) string { return "\x01\x00\x00\x03" + v2[4:] + root }
	acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff" +
		"\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
	x := func(name, value string) map[string]string { return map[string]string{paxXattr + name: value} }
	j := newJail(t)
	res, err := j.apply(t, Options{}, makeTar(t,
		item{name: "cap2", pax: x(capabilityXattr, v2)},
		item{name: "cap3", pax: x(capabilityXattr, v3("\x00\x00\x00\x00"))},
		item{name: "capother", pax: x(capabilityXattr, v3("\xe8\x03\x00\x00"))},
		item{name: "capbad", pax: x(capabilityXattr, "junk")},
		item{name: "user", pax: x("user.comment", "kept\x00binary")},
		item{name: "acl", pax: x("system.posix_acl_access", acl)},
		item{name: "label", pax: x("security.selinux", "system_u:object_r:etc_t:s0")},
		item{name: "other", pax: x("system.nfs4_acl", "x")},
		item{name: "dir/", typ: tar.TypeDir, pax: x("user.d", "1")},
	))
	if err != nil {
		t.Fatal(err)
	}
	if res.Skipped != 4 {
		t.Errorf("skipped %d attributes, want 4", res.Skipped)
	}
	for _, c := range []struct{ file, name, want string }{
		{"cap2", capabilityXattr, v2},
		{"cap3", capabilityXattr, v2},
		{"capother", capabilityXattr, ""},
		{"capbad", capabilityXattr, ""},
		{"user", "user.comment", "kept\x00binary"},
		{"acl", "system.posix_acl_access", acl},
		{"label", "security.selinux", ""},
		{"dir", "user.d", "1"},
	} {
		buf := make([]byte, 256)
		n, err := unix.Lgetxattr(filepath.Join(j.root, c.file), c.name, buf)
		if got := string(buf[:max(n, 0)]); got != c.want {
			t.Errorf("%s of %s: %q (%v), want %q", c.name, c.file, got, err, c.want)
		}
	}
}

// Holes that are shorter than what is read at a time stay holes, and zeros of a
// file that is not sparse are written.
func TestApplyKeepsShortHoles(t *testing.T) {
	page := func(c byte) string { return strings.Repeat(string(c), 4096) }
	const sparseMap = "3\n0\n4096\n20480\n8192\n40960\n5\n"
	data := sparseMap + string(make([]byte, 512-len(sparseMap))) + page('a') + page('b') + page('c') + "tail!"
	var buf bytes.Buffer
	rec := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.name=short\n29 GNU.sparse.realsize=40965\n"
	buf.Write(rawHeader("pax", 'x', func(b []byte) { copy(b[124:], octal(len(rec))) }))
	buf.WriteString(rec + string(make([]byte, 512-len(rec))))
	buf.Write(rawHeader("GNUSparseFile.0/short", '0', func(b []byte) { copy(b[124:], octal(len(data))) }))
	buf.WriteString(data + string(make([]byte, -len(data)&511)))
	buf.Write(makeTar(t, file("zeros", string(make([]byte, 40965)))))

	j := newJail(t)
	if _, err := j.apply(t, Options{}, buf.Bytes()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(j.root, "short"))
	want := page('a') + strings.Repeat(page(0), 4) + page('b') + page('c') + strings.Repeat(page(0), 3) + "tail!"
	if err != nil || string(got) != want {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	var short, full unix.Stat_t
	if err := errors.Join(unix.Stat(filepath.Join(j.root, "short"), &short), unix.Stat(filepath.Join(j.root, "zeros"), &full)); err != nil {
		t.Fatal(err)
	}
	if short.Blocks*512 != 4*4096 || full.Blocks*512 != 11*4096 {
		t.Errorf("%d and %d bytes on disk", short.Blocks*512, full.Blocks*512)
	}
}

func TestApplyWritesSparseFilesWithHoles(t *testing.T) {
	// A GNU sparse 1.0 file of 256 MiB with four bytes of data at its end.
	const size = 256 << 20
	sparseMap := "1\n268435452\n4\n"
	data := sparseMap + string(make([]byte, 512-len(sparseMap))) + "tail"
	var buf bytes.Buffer
	rec := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n30 GNU.sparse.name=big.sparse\n33 GNU.sparse.realsize=268435456\n"
	buf.Write(rawHeader("pax", 'x', func(b []byte) { copy(b[124:], octal(len(rec))) }))
	buf.WriteString(rec + string(make([]byte, 512-len(rec))))
	buf.Write(rawHeader("GNUSparseFile.0/big.sparse", '0', func(b []byte) { copy(b[124:], octal(len(data))) }))
	buf.WriteString(data + string(make([]byte, 1024-len(data))))
	buf.Write(make([]byte, 1024))

	j := newJail(t)
	res, err := j.apply(t, Options{}, buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(j.root, "big.sparse"), &st); err != nil || st.Size != size || st.Blocks*512 > 1<<20 {
		t.Fatalf("size %d, %d bytes on disk, %v", st.Size, st.Blocks*512, err)
	}
	if res.Bytes != size {
		t.Errorf("counted %d bytes", res.Bytes)
	}
	j2 := newJail(t)
	if _, err := j2.apply(t, Options{Limits: Limits{Bytes: size - 1}}, buf.Bytes()); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("beyond the limit: %v", err)
	}
}

func TestApplyVerifiedSkipsHashing(t *testing.T) {
	j := newJail(t)
	want := digest.FromString("verified elsewhere")
	res, err := j.apply(t, Options{Verified: want}, makeTar(t, file("a", "")))
	if err != nil || res.DiffID != want {
		t.Fatalf("%v, %v", res.DiffID, err)
	}
}

func TestApplyStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	j := newJail(t)
	_, err := Apply(ctx, j.dir, bytes.NewReader(makeTar(t, file("a", ""))), Options{})
	if !errors.Is(err, errdefs.ErrAborted) || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestApplyPassesErrorsOfTheReader(t *testing.T) {
	want := errors.New("verification failed")
	data := makeTar(t, file("a", "x"))
	for _, at := range []int{0, 100, 512, 600, len(data)} {
		j := newJail(t)
		r := io.MultiReader(bytes.NewReader(data[:at]), errReader{want})
		if _, err := Apply(t.Context(), j.dir, r, Options{}); !errors.Is(err, want) {
			t.Errorf("after %d bytes: %v", at, err)
		}
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
