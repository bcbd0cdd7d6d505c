package layer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

func openDirs(t *testing.T, dirs ...string) []*os.File {
	t.Helper()
	var out []*os.File
	for _, d := range dirs {
		f, err := os.Open(d)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		out = append(out, f)
	}
	return out
}

func tree(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		name, data, _ := strings.Cut(f, "=")
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch data {
		case "whiteout":
			err = unix.Mknod(p, unix.S_IFCHR, 0)
		case "opaque":
			err = errors.Join(os.Mkdir(p, 0o755), unix.Setxattr(p, OpaqueXattr, []byte("y"), 0))
		default:
			err = os.WriteFile(p, []byte(data), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// names lists a tree, whiteouts as "-name" and opaque directories as "name/!".
func names(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		switch {
		case d.Type()&os.ModeCharDevice != 0:
			rel = "-" + rel
		case d.IsDir():
			rel += "/"
			var v [2]byte
			if n, err := unix.Lgetxattr(p, OpaqueXattr, v[:]); err == nil && n == 1 {
				rel += "!"
			}
		}
		out = append(out, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestFlattenAsAnOverlay(t *testing.T) {
	low := tree(t, "a=low", "gone=low", "d/x=low", "o/hidden=low", "file/in=low", "dir=low")
	top := tree(t, "a=top", "gone=whiteout", "d/y=top", "o=opaque", "o/seen=top", "file=top", "dir/in=top")
	out := t.TempDir()
	f := openDirs(t, low, top, out)
	if err := Flatten(t.Context(), f[:2], f[2]); err != nil {
		t.Fatal(err)
	}
	const want = "a d/ d/x d/y dir/ dir/in file o/ o/seen"
	if got := names(t, out); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if data, err := os.ReadFile(filepath.Join(out, "a")); err != nil || string(data) != "top" {
		t.Errorf("%q, %v", data, err)
	}
}

// stamp is later than what is there, by the clock of the file system.
func stamp(t *testing.T, dir string) time.Time {
	t.Helper()
	f, err := os.CreateTemp(dir, "stamp")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var first, st unix.Stat_t
	for err = unix.Fstat(int(f.Fd()), &first); err == nil; <-time.After(time.Millisecond) {
		err = errors.Join(f.Chmod(0o600), unix.Fstat(int(f.Fd()), &st))
		if a, b := time.Unix(first.Ctim.Unix()), time.Unix(st.Ctim.Unix()); b.After(a) {
			return b
		}
	}
	t.Fatal(err)
	return time.Time{}
}

func TestChanges(t *testing.T) {
	base := []string{"one/f=1111", "one/sub/g=1111", "two/f=2222", "two/sub/g=2222", "kept/k=x", "gone=x", "dir/in=x", "file=x", "again/old=x"}
	for name, c := range map[string]struct {
		change func(dir string) error
		want   string
	}{
		"nothing":           {func(string) error { return nil }, ""},
		"new":               {func(d string) error { return os.WriteFile(d+"/new", nil, 0o600) }, "new"},
		"new deep":          {func(d string) error { return os.WriteFile(d+"/one/sub/new", nil, 0o600) }, "one/ one/sub/ one/sub/new"},
		"removed":           {func(d string) error { return os.Remove(d + "/gone") }, "-gone"},
		"removed tree":      {func(d string) error { return os.RemoveAll(d + "/one") }, "-one"},
		"mode of directory": {func(d string) error { return os.Chmod(d+"/kept", 0o700) }, "kept/"},
		"time put back": {func(d string) error {
			info, err := os.Stat(d + "/kept/k")
			return errors.Join(err, os.WriteFile(d+"/kept/k", []byte("y"), 0o600), os.Chtimes(d+"/kept/k", info.ModTime(), info.ModTime()))
		}, "kept/ kept/k"},
		"file becomes directory": {func(d string) error { return errors.Join(os.Remove(d+"/file"), os.Mkdir(d+"/file", 0o755)) }, "file/"},
		"directory becomes file": {func(d string) error { return errors.Join(os.RemoveAll(d+"/dir"), os.WriteFile(d+"/dir", nil, 0o600)) }, "dir"},
		"made again":             {func(d string) error { return errors.Join(os.RemoveAll(d+"/again"), os.Mkdir(d+"/again", 0o755)) }, "again/!"},
		// files of equal size and time, in directories that nobody wrote to
		"exchanged": {func(d string) error {
			return unix.Renameat2(unix.AT_FDCWD, d+"/one", unix.AT_FDCWD, d+"/two", unix.RENAME_EXCHANGE)
		}, "one/! one/f one/sub/ one/sub/g two/! two/f two/sub/ two/sub/g"},
		"exchanged below": {func(d string) error {
			return unix.Renameat2(unix.AT_FDCWD, d+"/one/sub", unix.AT_FDCWD, d+"/two/sub", unix.RENAME_EXCHANGE)
		}, "one/ one/sub/! one/sub/g two/ two/sub/! two/sub/g"},
		"a link more": {func(d string) error { return os.Link(d+"/gone", d+"/link") }, "gone link"},
	} {
		t.Run(name, func(t *testing.T) {
			low, disk, out := tree(t, base...), t.TempDir(), t.TempDir()
			f := openDirs(t, low, disk, out)
			if err := Flatten(t.Context(), f[:1], f[1]); err != nil {
				t.Fatal(err)
			}
			since := stamp(t, t.TempDir())
			if err := c.change(disk); err != nil {
				t.Fatal(err)
			}
			if err := Changes(t.Context(), f[:1], f[1], f[2], ChangesOptions{Since: since}); err != nil {
				t.Fatal(err)
			}
			if got := names(t, out); got != c.want {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestShift: capabilities become the new root's, set-user-ID bits stay, a second
// call after an interruption changes nothing, and back again is as before.
func TestShift(t *testing.T) {
	dir := tree(t, "su=x", "cap=x", "d/f=x")
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
	err := errors.Join(os.Chmod(dir+"/su", os.ModeSetuid|0o755), unix.Setxattr(dir+"/cap", capabilityXattr, []byte(capability), 0),
		os.Lchown(dir+"/d/f", 1000, 1001), unix.Setxattr(dir+"/d/f", "system.posix_acl_access", []byte(acl), 0), os.Symlink("x", dir+"/l"))
	if err != nil {
		t.Fatal(err)
	}
	f := openDirs(t, dir)[0]
	look := func(name string) (uid, gid uint32, mode uint32, xattr string) {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		var buf [100]byte
		for _, x := range []string{capabilityXattr, "system.posix_acl_access"} {
			if n, err := unix.Lgetxattr(filepath.Join(dir, name), x, buf[:]); err == nil {
				xattr += string(buf[:n])
			}
		}
		return st.Uid, st.Gid, st.Mode, xattr
	}
	const base = 1_000_000
	for range 2 {
		if err := Shift(t.Context(), f, 0, base); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][2]uint32{".": {base, base}, "su": {base, base}, "d/f": {base + 1000, base + 1001}, "l": {base, base}} {
			if uid, gid, _, _ := look(name); uid != want[0] || gid != want[1] {
				t.Errorf("%s: %d:%d", name, uid, gid)
			}
		}
		if _, _, mode, _ := look("su"); mode&unix.S_ISUID == 0 {
			t.Error("the set-user-ID bit is lost")
		}
		if _, _, _, x := look("cap"); x != "\x01\x00\x00\x03"+capability[4:]+"\x40\x42\x0f\x00" {
			t.Errorf("capabilities %q", x)
		}
		if _, _, _, x := look("d/f"); !strings.Contains(x, "\x02\x00\x04\x00\x28\x46\x0f\x00") {
			t.Errorf("access list %q", x)
		}
	}
	if err := Shift(t.Context(), f, base, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, _, x := look("cap"); x != capability {
		t.Errorf("capabilities %q", x)
	}
	if uid, gid, _, x := look("d/f"); uid != 1000 || gid != 1001 || x != acl {
		t.Errorf("%d:%d, access list %q", uid, gid, x)
	}
	if err := Shift(t.Context(), f, 0, 1000); !errors.Is(err, errdefs.ErrInvalid) {
		t.Error(err)
	}
}

func TestCopyKeepsTheForm(t *testing.T) {
	from, to := tree(t, "w=whiteout", "o=opaque", "o/f=x", "h=x"), t.TempDir()
	sparse, err := os.Create(from + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	_, err = sparse.WriteAt([]byte("end"), 8<<20)
	err = errors.Join(err, sparse.Close(), os.Link(from+"/h", from+"/h2"), unix.Mkfifo(from+"/p", 0o640), unix.Setxattr(from+"/h", "user.x", []byte("y"), 0))
	if err != nil {
		t.Fatal(err)
	}
	f := openDirs(t, from, to)
	if err := Copy(t.Context(), f[0], f[1]); err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, to), names(t, from); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Stat(to+"/h", &a), unix.Stat(to+"/h2", &b)); err != nil || a.Ino != b.Ino {
		t.Error("hard link is lost", err)
	}
	if err := unix.Stat(to+"/sparse", &a); err != nil || a.Size != 8<<20+3 || a.Blocks > 1000 {
		t.Errorf("sparse file: %d bytes, %d blocks, %v", a.Size, a.Blocks, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Copy(ctx, f[0], openDirs(t, t.TempDir())[0]); !errors.Is(err, errdefs.ErrAborted) {
		t.Error(err)
	}
	small := detachedTmpfs(t, "nr_inodes=3")
	if err := Copy(t.Context(), f[0], small); !errors.Is(err, errdefs.ErrExhausted) {
		t.Error(err)
	}
}

func FuzzShiftXattr(f *testing.F) {
	f.Add("security.capability", []byte("\x01\x00\x00\x03\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"))
	f.Add("system.posix_acl_access", []byte("\x02\x00\x00\x00\x02\x00\x04\x00\xe8\x03\x00\x00"))
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		before := string(value)
		out, ok := shiftXattr(name, value, func(id uint32) uint32 { return id + 1 })
		if string(value) != before {
			t.Error("the input was changed")
		}
		if ok && len(out) > len(value) {
			t.Error("it has grown")
		}
	})
}
