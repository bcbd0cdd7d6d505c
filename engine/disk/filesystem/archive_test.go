package filesystem_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func write(t *testing.T, fs filesystem.FileSystem, lim filesystem.Limits) ([]byte, filesystem.TarResult, error) {
	t.Helper()
	var buf bytes.Buffer
	res, err := filesystem.WriteTar(t.Context(), fs, &buf, filesystem.TarOptions{Limits: lim})
	return buf.Bytes(), res, err
}

// read returns what a stream says, a line an entry, with all content in the end.
func read(t *testing.T, stream []byte) (lines []string, content map[string]string) {
	t.Helper()
	content = map[string]string{}
	r := tar.NewReader(bytes.NewReader(stream))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return lines, content
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%c %04o %d:%d %q %q", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name, h.Linkname))
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		content[h.Name] = string(data)
		if int64(len(data)) != h.Size {
			t.Errorf("%s: %d bytes of %d", h.Name, len(data), h.Size)
		}
	}
}

func TestWriteTar(t *testing.T) {
	long := strings.Repeat("long/", 30) + "target"
	two := regular("two names")
	two.attr.Links = 2
	more := regular("more names than it says")
	more.attr.Links = 2
	owned := regular("")
	owned.attr.UID, owned.attr.GID, owned.attr.Mode = 1<<32-2, 70000, unix.S_IFREG|0o6711
	name := strings.Repeat("n", 255)
	fs := tree{
		1: dir(entry{"z", 2}, entry{"d", 3}, entry{"a", 4}, entry{"null", 5}, entry{"lost+found", 6}, entry{".wh.x", 99}, entry{"socket", 7}, entry{"pipe", 8}),
		2: two, 3: dir(entry{"z again", 2}, entry{name, 9}, entry{"l", 10}, entry{"m3", 11}, entry{"m1", 11}, entry{"m2", 11}), 4: regular("a"),
		5: special(unix.S_IFCHR | 0o666), 6: dir(), 7: special(unix.S_IFSOCK | 0o755), 8: special(unix.S_IFIFO | 0o600), 9: owned, 10: symlink(long), 11: more,
	}
	stream, res, err := write(t, fs, filesystem.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	lines, content := read(t, stream)
	want := []string{
		`5 0755 0:0 "./" ""`,
		`0 0644 0:0 "a" ""`,
		`5 0755 0:0 "d/" ""`,
		fmt.Sprintf(`2 0777 0:0 "d/l" %q`, long),
		`0 0644 0:0 "d/m1" ""`,
		`1 0644 0:0 "d/m2" "d/m1"`,
		`0 0644 0:0 "d/m3" ""`,
		fmt.Sprintf(`0 6711 4294967294:70000 %q ""`, "d/"+name),
		`0 0644 0:0 "d/z again" ""`,
		`5 0755 0:0 "lost+found/" ""`,
		`6 0600 0:0 "pipe" ""`,
		`1 0644 0:0 "z" "d/z again"`,
	}
	if d := cmp.Diff(want, lines); d != "" {
		t.Error(d)
	}
	if content["d/z again"] != "two names" || content["a"] != "a" {
		t.Error(content)
	}
	if want := (filesystem.TarResult{Entries: 12, Bytes: 56, Data: 56, Devices: 1, Sockets: 1, Skipped: 1}); res != want {
		t.Errorf("got %+v, want %+v", res, want)
	}
	if len(stream)%512 != 0 {
		t.Errorf("%d bytes", len(stream))
	}
}

func TestWriteTarSparse(t *testing.T) {
	many := sparse(140 << 20)
	for i := range int64(17000) {
		many.parts = append(many.parts, [2]int64{i * 8192, 100})
	}
	for name, c := range map[string]struct {
		f    *file
		data int64
	}{
		"all a hole":         {sparse(10 << 30), 0},
		"empty":              {sparse(0), 0},
		"at its end":         {sparse(1<<20, [2]int64{1<<20 - 5, 5}), 5},
		"at its start":       {sparse(1<<20, [2]int64{0, 7}), 7},
		"touching":           {sparse(1<<20, [2]int64{8192, 4096}, [2]int64{12288, 4096}, [2]int64{65536, 1}), 8193},
		"short holes":        {sparse(20000, [2]int64{100, 5000}, [2]int64{5200, 100}, [2]int64{19000, 1000}), 5300 + 1000},
		"short hole only":    {sparse(20000, [2]int64{0, 5000}, [2]int64{5200, 14800}), 20000},
		"too many to list":   {many, -1},
		"name that is long":  {sparse(1 << 20), 0},
		"larger than 8 GiB":  {sparse(9<<30, [2]int64{9<<30 - 1, 1}), 1},
		"short hole at end":  {sparse(20000, [2]int64{0, 19999}), 19999},
		"over the read size": {sparse(8<<20, [2]int64{4096, 3 << 20}), 3 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			long := strings.Repeat(name, 10)
			stream, res, err := write(t, tree{1: dir(entry{long, 2}), 2: c.f}, filesystem.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if c.data >= 0 && res.Data != c.data || res.Bytes != c.f.attr.Size || int64(len(stream)) > res.Data+1<<20 {
				t.Errorf("%+v, %d bytes", res, len(stream))
			}
			r := tar.NewReader(bytes.NewReader(stream))
			_, err = r.Next()
			h, err2 := r.Next()
			if err = errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			if h.Name != long || h.Size != c.f.attr.Size {
				t.Errorf("%q of %d bytes", h.Name, h.Size)
			}
			if h.Size > 1<<28 {
				return
			}
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range c.f.parts {
				if s := string(data[p[0] : p[0]+p[1]]); s != strings.Repeat("x", len(s)) {
					t.Fatalf("segment at %d is lost", p[0])
				}
			}
		})
	}
}

func TestWriteTarTimesAndAttributes(t *testing.T) {
	f := regular("")
	f.attr.Mtime = time.Unix(-1, 999_999_999)
	f.xattrs = map[string]string{
		"user.a": "1", "security.capability": "\x00\xff\n", "user.empty": "", "user.a=b": "lost", "trusted.overlay.opaque": "y", "user.overlay.x": "y",
		"user.gantry.x": "y", "system.posix_acl_access": "acl",
	}
	late := regular("")
	late.attr.Mtime = time.Unix(1<<34, 120_000_000)
	stream, res, err := write(t, tree{1: dir(entry{"f", 2}, entry{"late", 3}), 2: f, 3: late}, filesystem.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(bytes.NewReader(stream))
	_, _ = r.Next()
	h, err := r.Next()
	if err != nil || !h.ModTime.Equal(f.attr.Mtime) {
		t.Fatalf("%v, %v", h, err)
	}
	got := map[string]string{}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			got[name] = v
		}
	}
	want := map[string]string{"user.a": "1", "security.capability": "\x00\xff\n", "user.empty": "", "system.posix_acl_access": "acl"}
	if d := cmp.Diff(want, got); d != "" || res.Skipped != 4 {
		t.Errorf("%s, %d skipped", d, res.Skipped)
	}
	if h, err = r.Next(); err != nil || !h.ModTime.Equal(late.attr.Mtime) || h.PAXRecords["mtime"] != "17179869184.12" {
		t.Errorf("%v, %v", h, err)
	}
}

func TestWriteTarRefuses(t *testing.T) {
	linked := func() *file { f := regular(""); f.attr.Links = 2; return f }
	deep := tree{}
	for i := uint64(1); i < 300; i++ {
		deep[i] = dir(entry{"d", i + 1})
	}
	deep[300] = dir()
	names := dir()
	for i := range 200_000 {
		names.entries = append(names.entries, entry{fmt.Sprint(strings.Repeat("n", 240), i), 2})
	}
	broken := regular("x")
	broken.err = errDisk
	for name, c := range map[string]struct {
		fs   tree
		lim  filesystem.Limits
		want error
		text string
	}{
		"a loop":               {tree{1: dir(entry{"a", 2}), 2: dir(entry{"b", 1})}, filesystem.Limits{}, errdefs.ErrCorrupt, `"a/b"`},
		"a directory twice":    {tree{1: dir(entry{"a", 2}, entry{"b", 2}), 2: dir()}, filesystem.Limits{}, errdefs.ErrCorrupt, `"b"`},
		"a name twice":         {tree{1: dir(entry{"a", 2}, entry{"b", 2}, entry{"a", 2}), 2: linked()}, filesystem.Limits{}, errdefs.ErrCorrupt, `two entries "a"`},
		"no name":              {tree{1: dir(entry{"d", 2}), 2: dir(entry{"", 3})}, filesystem.Limits{}, errdefs.ErrCorrupt, `entry "d"`},
		"itself":               {tree{1: dir(entry{".", 1})}, filesystem.Limits{}, errdefs.ErrCorrupt, `"."`},
		"above":                {tree{1: dir(entry{"..", 1})}, filesystem.Limits{}, errdefs.ErrCorrupt, `".."`},
		"slash":                {tree{1: dir(entry{"../../etc", 2}), 2: linked()}, filesystem.Limits{}, errdefs.ErrCorrupt, `etc`},
		"NUL":                  {tree{1: dir(entry{"a\x00", 2}), 2: linked()}, filesystem.Limits{}, errdefs.ErrCorrupt, `a\x00`},
		"root is a file":       {tree{1: regular("")}, filesystem.Limits{}, errdefs.ErrCorrupt, "root"},
		"type unknown":         {tree{1: dir(entry{"a", 2}), 2: special(0o777)}, filesystem.Limits{}, errdefs.ErrCorrupt, `"a"`},
		"link to nothing":      {tree{1: dir(entry{"a", 2}), 2: symlink("")}, filesystem.Limits{}, errdefs.ErrCorrupt, `"a"`},
		"link with NUL":        {tree{1: dir(entry{"a", 2}), 2: symlink("a\x00b")}, filesystem.Limits{}, errdefs.ErrCorrupt, `"a"`},
		"segments overlap":     {tree{1: dir(entry{"a", 2}), 2: sparse(100, [2]int64{0, 50}, [2]int64{49, 10})}, filesystem.Limits{}, errdefs.ErrCorrupt, `"a"`},
		"segments beyond":      {tree{1: dir(entry{"a", 2}), 2: sparse(100, [2]int64{0, 101})}, filesystem.Limits{}, errdefs.ErrCorrupt, `"a"`},
		"too deep":             {deep, filesystem.Limits{}, errdefs.ErrInvalid, "deeper than 256"},
		"path too long":        {deep, filesystem.Limits{PathLen: 20}, errdefs.ErrInvalid, "longer than 20"},
		"too many":             {tree{1: dir(entry{"a", 2}, entry{"b", 2}), 2: linked()}, filesystem.Limits{Entries: 1}, errdefs.ErrInvalid, "more than 1 entries"},
		"too large":            {tree{1: dir(entry{"a", 2}), 2: sparse(64<<30 + 1)}, filesystem.Limits{}, errdefs.ErrInvalid, "more than 68719476736 bytes"},
		"too large, limit set": {tree{1: dir(entry{"a", 2}), 2: regular("12345")}, filesystem.Limits{Bytes: 4}, errdefs.ErrInvalid, `"a"`},
		"names too long":       {tree{1: names, 2: linked()}, filesystem.Limits{}, errdefs.ErrInvalid, "names"},
		"a broken disk":        {tree{1: dir(entry{"a", 2}), 2: broken}, filesystem.Limits{}, errDisk, `"a"`},
		"a missing inode":      {tree{1: dir(entry{"a", 2})}, filesystem.Limits{}, errDisk, `"a"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, res, err := write(t, c.fs, c.lim)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || res != (filesystem.TarResult{}) {
				t.Errorf("%+v, %v", res, err)
			}
		})
	}
}

func TestWriteTarEnds(t *testing.T) {
	fs := tree{1: dir(entry{"a", 2}), 2: regular(strings.Repeat("x", 5<<20))}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := filesystem.WriteTar(ctx, fs, io.Discard, filesystem.TarOptions{}); !errors.Is(err, errdefs.ErrAborted) {
		t.Error(err)
	}
	r, w := io.Pipe()
	_ = r.CloseWithError(errDisk)
	if _, err := filesystem.WriteTar(t.Context(), fs, w, filesystem.TarOptions{}); !errors.Is(err, errDisk) {
		t.Error(err)
	}
}

// FuzzWriteTar: what any file says can be read back by Go's reader.
func FuzzWriteTar(f *testing.F) {
	f.Add("a", "target", "user.x", "value", int64(-1), int64(5), int64(8192), int64(100), int64(100000))
	f.Add(strings.Repeat("n", 101), strings.Repeat("t", 101), "user.=", "\x00", int64(1<<40), int64(0), int64(0), int64(0), int64(0))
	f.Fuzz(func(t *testing.T, name, target, key, value string, sec, nsec, offset, length, size int64) {
		if size &= 1<<20 - 1; size < 0 || nsec < 0 || nsec > 999_999_999 || sec > 1<<40 || sec < -1<<40 {
			return
		}
		file := sparse(size, [2]int64{offset, length})
		file.attr.Mtime = time.Unix(sec, nsec)
		file.xattrs = map[string]string{key: value}
		fs := tree{1: dir(entry{name, 2}, entry{"and a link", 3}), 2: file, 3: symlink(target)}
		var buf bytes.Buffer
		res, err := filesystem.WriteTar(t.Context(), fs, &buf, filesystem.TarOptions{})
		if err != nil {
			if !errors.Is(err, errdefs.ErrCorrupt) && !errors.Is(err, errdefs.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		found := int64(0)
		for r := tar.NewReader(&buf); ; found++ {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				t.Fatal(err)
			}
			switch {
			case h.Name == "and a link" && h.Linkname != target, h.Name == name && h.Size != size, h.Name == name && !h.ModTime.Equal(file.attr.Mtime):
				t.Fatalf("%+v", h)
			case h.Name == name && res.Skipped == 0 && h.PAXRecords["SCHILY.xattr."+key] != value:
				t.Fatalf("%+v", h.PAXRecords)
			}
		}
		if found != res.Entries {
			t.Fatalf("%d entries of %d", found, res.Entries)
		}
	})
}
