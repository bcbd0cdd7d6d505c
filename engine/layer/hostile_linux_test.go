package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func octal(n int) string { return fmt.Sprintf("%011o\x00", n) }

func repeat(n int, f func(i int) item) []item {
	items := make([]item, n)
	for i := range items {
		items[i] = f(i)
	}
	return items
}

func raw(blocks ...[]byte) []byte {
	return append(bytes.Join(blocks, nil), make([]byte, 1024)...)
}

// TestApplyRefuses lists the recipes that must fail. Each error names its
// entry, has a text for tenants, and leaves the host alone.
func TestApplyRefuses(t *testing.T) {
	long := strings.Repeat("n", 256)
	x := func(name, value string) map[string]string { return map[string]string{paxXattr + name: value} }
	small := Limits{Bytes: 1000, Entries: 10}
	cases := []struct {
		name  string
		items []item
		raw   []byte
		lim   Limits
		entry string
	}{
		// IM-1: names.
		{name: "parent", items: []item{file("../x", "")}, entry: `"../x"`},
		{name: "parent in the middle", items: []item{file("a/../../x", "")}, entry: `"a/../../x"`},
		{name: "parent after dot", items: []item{file("./../x", "")}, entry: `"./../x"`},
		{name: "absolute parent", items: []item{file("/../x", "")}, entry: `"/../x"`},
		{name: "only parent", items: []item{dirItem("..")}, entry: `".."`},
		{name: "trailing parent", items: []item{dirItem("a/..")}, entry: `"a/.."`},
		{name: "harmless parent", items: []item{dirItem("a/../b")}, entry: `"a/../b"`},
		{name: "empty", raw: raw(rawHeader("", '0', nil)), entry: `""`},
		{name: "root as file", items: []item{file(".", "")}, entry: `"."`},
		{name: "root as link", items: []item{symlink("./", "/etc")}, entry: `"./"`},
		{name: "slash as link", items: []item{symlink("/", "/etc")}, entry: `"/"`},
		{name: "long component", items: []item{file(long, "")}, entry: long[:20]},
		{name: "long path", items: []item{file(strings.Repeat("d/", 2100)+"f", "")}, entry: `"d/d/`},
		{name: "64 KiB path", items: []item{file(strings.Repeat("dddddddd/", 7200)+"f", "")}, entry: `"ddddddd`},
		{name: "deep", items: []item{file(strings.Repeat("d/", 256)+"f", "")}, entry: `"d/d/`},
		{name: "file with trailing slash", raw: raw(rawHeader("f/", '0', nil)), entry: `"f/"`},
		// IM-2: links.
		{name: "hard link to the host", items: []item{hardlink("h", "/etc/shadow")}, entry: `"h"`},
		{name: "hard link to a parent", items: []item{hardlink("h", "../../../canary")}, entry: `"h"`},
		{name: "hard link through a link", items: []item{symlink("d", "/etc"), hardlink("h", "d/shadow")}, entry: `"h"`},
		{name: "hard link through a relative link", items: []item{symlink("d", "../../.."), hardlink("h", "d/canary")}, entry: `"h"`},
		{name: "hard link to a directory", items: []item{dirItem("d"), hardlink("h", "d")}, entry: `"h"`},
		{name: "hard link to the root", items: []item{hardlink("h", "/")}, entry: `"h"`},
		{name: "hard link to itself", items: []item{file("h", ""), hardlink("h", "./h")}, entry: `"h"`},
		{name: "hard link over its own tree", items: []item{file("d/f", ""), hardlink("d", "d/f")}, entry: `"d"`},
		{name: "hard link to a whiteout", items: []item{file(".wh.x", ""), hardlink("h", "x")}, entry: `"h"`},
		{name: "hard link to a whiteout file", items: []item{hardlink("h", ".wh.x")}, entry: `"h"`},
		{name: "write through a dangling link", items: []item{symlink("d", "/nowhere"), file("d/x", "")}, entry: `"d/x"`},
		{name: "link loop", items: []item{symlink("a", "b"), symlink("b", "a"), file("a/x", "")}, entry: `"a/x"`},
		{
			name:  "chain of 50 links",
			items: append(repeat(50, func(i int) item { return symlink(fmt.Sprint("l", i), fmt.Sprint("l", i+1)) }), file("l0/x", "")),
			entry: `"l0/x"`,
		},
		{name: "link without target", items: []item{symlink("l", "")}, entry: `"l"`},
		{name: "long link", items: []item{symlink("l", strings.Repeat("x", 5000))}, entry: `"l"`},
		{name: "file as directory", items: []item{file("f", ""), file("f/x", "")}, entry: `"f/x"`},
		// IM-3: whiteouts.
		{name: "whiteout of the parent", items: []item{file(".wh...", "")}, entry: `".wh..."`},
		{name: "whiteout of the directory itself", items: []item{file("d/.wh..", "")}, entry: `"d/.wh.."`},
		{name: "whiteout of nothing", items: []item{file(".wh.", "")}, entry: `".wh."`},
		{name: "whiteout as directory", items: []item{file(".wh./x", "")}, entry: `".wh./x"`},
		{name: "named whiteout as directory", items: []item{file("a/.wh.b/x", "")}, entry: `"a/.wh.b/x"`},
		{name: "whiteout through the parent", items: []item{file("../.wh.b", "")}, entry: `"../.wh.b"`},
		{name: "whiteout device", items: []item{{name: "w", typ: tar.TypeChar}}, entry: `"w"`},
		{name: "block device 0:0", items: []item{{name: "w", typ: tar.TypeBlock}}, entry: `"w"`},
		{name: "overlay attribute", items: []item{{name: "o", typ: tar.TypeDir, pax: x("trusted.overlay.opaque", "y")}}, entry: `"o"`},
		{name: "overlay redirect", items: []item{{name: "o", typ: tar.TypeDir, pax: x("trusted.overlay.redirect", "/etc")}}, entry: `"o"`},
		{name: "user overlay attribute", items: []item{{name: "o", pax: x("user.overlay.whiteout", "y")}}, entry: `"o"`},
		{name: "trusted attribute", items: []item{{name: "o", pax: x("trusted.x", "y")}}, entry: `"o"`},
		// IM-4: numbers and attributes.
		{name: "huge owner", items: []item{{name: "f", uid: 65536}}, entry: `"f"`},
		{name: "owner beyond 31 bits", items: []item{{name: "f", gid: 1 << 31, pax: map[string]string{}}}, entry: `"f"`},
		{name: "negative owner", raw: raw(rawHeader("f", '0', func(b []byte) { copy(b[108:], "\xff\xff\xff\xff\xff\xff\xff\xff") })), entry: `"f"`},
		{name: "1 MB attribute", items: []item{{name: "f", pax: x("user.big", strings.Repeat("x", 1<<20-200))}}, entry: `"f"`},
		{name: "attribute beyond the file system", items: []item{{name: "f", pax: x("user.big", strings.Repeat("x", 60000))}}, entry: `"f"`},
		{name: "10000 attributes", items: []item{{name: "f", pax: func() map[string]string {
			m := map[string]string{}
			for i := range 10000 {
				m[fmt.Sprintf("%suser.%d", paxXattr, i)] = "x"
			}
			return m
		}()}}, entry: `"f"`},
		{name: "bad ACL", items: []item{{name: "f", pax: x("system.posix_acl_access", "\x02\x00\x00\x00junk")}}, entry: `"f"`},
		{name: "unknown type", raw: raw(rawHeader("f", 'Z', nil)), entry: `"f"`},
		// IM-5: bombs.
		{name: "1 TB", raw: raw(rawHeader("f", '0', func(b []byte) { copy(b[124:], "\x80\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00") })), entry: `"f"`},
		{name: "too many bytes", lim: small, items: []item{file("a", strings.Repeat("x", 600)), file("b", strings.Repeat("x", 600))}, entry: `"b"`},
		{name: "too many entries", lim: small, items: repeat(11, func(i int) item { return file(fmt.Sprint("f", i), "") }), entry: `"f10"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			j := newJail(t)
			data := c.raw
			if data == nil {
				data = makeTar(t, c.items...)
			}
			_, err := j.apply(t, Options{Limits: c.lim}, data)
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), "entry "+c.entry) && !strings.Contains(err.Error(), c.entry) {
				t.Errorf("entry is not named: %v", err)
			}
			if text := errdefs.PublicText(err, ""); text == "" || strings.Contains(text, j.root) {
				t.Errorf("text for tenants: %q", text)
			}
			j.intact(t)
		})
	}
}

// TestApplyContains lists recipes that may succeed but only inside.
func TestApplyContains(t *testing.T) {
	for name, items := range map[string][]item{
		"write through an absolute link":  {dirItem("etc"), symlink("d", "/etc"), file("d/x", "in")},
		"write through a parent link":     {dirItem("a/b"), symlink("a/b/up", "../../../../.."), file("a/b/up/canary", "in")},
		"file in place of a link":         {symlink("f", "../../canary"), file("f", "in")},
		"directory in place of a link":    {symlink("d", "../.."), dirItem("d"), file("d/x", "")},
		"directory over a link to root":   {symlink("d", "/"), {name: "d", typ: tar.TypeDir, mode: 0o777, uid: 9}},
		"fifo in place of a link":         {symlink("f", "../../canary"), {name: "f", typ: tar.TypeFifo, mode: 0o777}},
		"link in place of a link":         {symlink("f", "../../canary"), symlink("f", "/")},
		"hard link in place of a link":    {file("t", ""), symlink("f", "../../canary"), hardlink("f", "t")},
		"whiteout of a link":              {symlink("f", "../../canary"), file(".wh.f", "")},
		"opaque below a link":             {symlink("d", "/"), file("d/.wh..wh..opq", "")},
		"whiteout below a link":           {symlink("d", "../.."), file("d/.wh.canary", "")},
		"times through a link":            {dirItem("d"), symlink("d", "../../canary")},
		"host devices":                    {{name: "d", typ: tar.TypeBlock, major: 254}, {name: "k", typ: tar.TypeChar, major: 1, minor: 1}},
		"setuid file":                     {{name: "su", mode: 0o6755, data: "x"}},
		"top level links to host folders": {symlink("rootfs", "/etc"), symlink("templates", "/"), file("x", "")},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJail(t)
			if _, err := j.apply(t, Options{}, makeTar(t, items...)); err != nil && !errors.Is(err, errdefs.ErrInvalid) {
				t.Fatal(err)
			}
			j.intact(t)
			if strings.Contains(j.tree(t), "odd ") {
				t.Errorf("a device was made:\n%s", j.tree(t))
			}
		})
	}
}

func TestApplyDamagedStreams(t *testing.T) {
	good := makeTar(t, file("a", strings.Repeat("x", 2000)), file("b", "y"))
	bad := bytes.Clone(good)
	bad[148] ^= 1
	paxBomb := raw(rawHeader("p", 'x', func(b []byte) { copy(b[124:], octal(1<<30)) }), make([]byte, 2<<20))
	for name, data := range map[string][]byte{
		"no tar":               []byte(strings.Repeat("not a tar archive ", 100)),
		"cut in a header":      good[:300],
		"cut in the content":   good[:1500],
		"checksum":             bad,
		"1 GB of PAX header":   paxBomb,
		"random after a entry": append(bytes.Clone(good[:512+2048]), bytes.Repeat([]byte("junk"), 512)...),
	} {
		t.Run(name, func(t *testing.T) {
			j := newJail(t)
			_, err := j.apply(t, Options{}, data)
			if !errors.Is(err, errdefs.ErrCorrupt) || errdefs.PublicText(err, "") == "" {
				t.Fatalf("got %v", err)
			}
			j.intact(t)
		})
	}
}

func TestApplyBoundsTheTail(t *testing.T) {
	j := newJail(t)
	r := io.MultiReader(bytes.NewReader(makeTar(t, file("a", ""))), endless{})
	_, err := Apply(t.Context(), j.dir, r, Options{Limits: Limits{Bytes: 1 << 20, Entries: 10}})
	if !errors.Is(err, errdefs.ErrInvalid) {
		t.Fatal(err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestApplyFullDiskIsExhausted(t *testing.T) {
	for name, c := range map[string]struct {
		opts  string
		items []item
	}{
		"bytes":  {"size=256k", []item{file("a", strings.Repeat("x", 1<<20))}},
		"inodes": {"nr_inodes=20", repeat(40, func(i int) item { return file(fmt.Sprint(i), "") })},
	} {
		t.Run(name, func(t *testing.T) {
			dir := detachedTmpfs(t, c.opts)
			_, err := Apply(t.Context(), dir, bytes.NewReader(makeTar(t, c.items...)), Options{})
			if !errors.Is(err, errdefs.ErrExhausted) || !strings.Contains(errdefs.PublicText(err, ""), "disk space") {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// detachedTmpfs returns the root of a small file system that is mounted
// nowhere and goes away with the descriptor.
func detachedTmpfs(t *testing.T, opt string) *os.File {
	t.Helper()
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	k, v, _ := strings.Cut(opt, "=")
	if err := errors.Join(unix.FsconfigSetString(fs, k, v), unix.FsconfigCreate(fs)); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "tmpfs")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func FuzzApply(f *testing.F) {
	f.Add(makeTar(f, dirItem("d"), file("d/f", "x"), symlink("l", "/etc"), hardlink("h", "d/f"), file(".wh.x", ""), file("l/y", "")))
	f.Add(makeTar(f, item{name: "c", typ: tar.TypeChar, major: 1, minor: 3}, file("a/.wh..wh..opq", ""), file("../x", "")))
	f.Add(raw(rawHeader("GNUSparseFile", 'S', nil)))
	f.Fuzz(func(t *testing.T, data []byte) {
		j := newJail(t)
		_, _ = j.apply(t, Options{Limits: Limits{Bytes: 1 << 20, Entries: 100}}, data)
		j.intact(t)
	})
}
