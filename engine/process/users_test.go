package process

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

const (
	testPasswd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:100::/srv/app:/bin/sh\nnohome:x:1001:1001:::\n" +
		"1000:x:0:0::/evil:/bin/sh\nbad:x:-1:0::/:/\nbig:x:4294967296:0::/:/\nhex:x:0x0:0::/:/\nempty:x::0::/:/\nshort:x:0\n" +
		"app:x:0:0::/second:/bin/sh\nlong:x:2147483648:0::/:/\n"
	testGroup = "root:x:0:\nusers:x:100:\nwheel:x:10:app,other\nvideo:x:44:other,app\nagain:x:10:app\n1000:x:0:\nbad:x:-5:app\n"
)

func lookUp(t *testing.T, rootfs, user string) (User, error) {
	t.Helper()
	root, err := os.Open(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	return LookupUser(root, user)
}

func TestLookupUser(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"passwd": testPasswd, "group": testGroup} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for in, want := range map[string]User{
		"":               {0, 0, []uint32{0}, "/root"},
		"root":           {0, 0, []uint32{0}, "/root"},
		"0":              {0, 0, []uint32{0}, "/root"},
		"app":            {1000, 100, []uint32{100, 10, 44}, "/srv/app"},
		"1000":           {1000, 100, []uint32{100, 10, 44}, "/srv/app"},
		"app:wheel":      {1000, 10, []uint32{10}, "/srv/app"},
		"app:7":          {1000, 7, []uint32{7}, "/srv/app"},
		"1000:1000":      {1000, 1000, []uint32{1000}, "/srv/app"},
		"nohome":         {1001, 1001, []uint32{1001}, "/"},
		"2000":           {2000, 0, []uint32{0}, "/"},
		"2147483647:100": {2147483647, 100, []uint32{100}, "/"},
	} {
		got, err := lookUp(t, root, in)
		if err != nil || got.UID != want.UID || got.GID != want.GID || got.Home != want.Home || !slices.Equal(got.Groups, want.Groups) {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"2147483648:0", "-1", "4294967295", "0x0", " 0", "0 ", "a:b:c", ":0", "app:", ":", "00", "nobody", "app:nobody",
		"bad", "big", "hex", "empty", "short", "long", "app:bad", "0:-1", "0:4294967296", "root\n", "99999999999999999999",
	} {
		got, err := lookUp(t, root, in)
		if !errors.Is(err, errdefs.ErrInvalid) || errdefs.PublicText(err, "") == "" {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

func TestLookupUserHostileFiles(t *testing.T) {
	host := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(host, []byte("app:x:0:0::/:/\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, build := range map[string]func(path string) error{
		"absent":       func(string) error { return nil },
		"fifo":         func(p string) error { return unix.Mkfifo(p, 0o644) },
		"directory":    func(p string) error { return os.Mkdir(p, 0o755) },
		"link to host": func(p string) error { return os.Symlink(host, p) },
		"link upwards": func(p string) error { return os.Symlink(strings.Repeat("../", 20)+host[1:], p) },
		"magic link":   func(p string) error { return os.Symlink("/proc/self/fd/0", p) },
		"device":       func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) },
		"huge":         func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("app:x:0:0::/:/\n", 1<<17)), 0o644) },
	} {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := build(filepath.Join(root, "etc/passwd")); err != nil {
			t.Fatal(err)
		}
		if u, err := lookUp(t, root, "app"); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
	if u, err := lookUp(t, t.TempDir(), "33:33"); err != nil || u.UID != 33 || u.GID != 33 {
		t.Errorf("numbers need no files: %+v, %v", u, err)
	}
}

func FuzzLookupUser(f *testing.F) {
	f.Add("app", testPasswd, testGroup)
	f.Add("1000:wheel", testPasswd, testGroup)
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, user, passwd, group string) {
		u, err := lookupUser(user, func(path string) (string, error) {
			if path == "etc/passwd" {
				return passwd, nil
			}
			return group, nil
		})
		if err != nil {
			return
		}
		for _, id := range append([]uint32{u.UID, u.GID}, u.Groups...) {
			if id > maxID {
				t.Errorf("id %d", id)
			}
		}
		if len(u.Groups) == 0 || u.Groups[0] != u.GID || u.Home == "" || u.Home[0] != '/' {
			t.Errorf("%+v", u)
		}
		if name, _, _ := strings.Cut(user, ":"); u.UID == 0 && strings.Trim(name, "0123456789") == "" && name != "0" && name != "" {
			t.Errorf("number %q became root", user)
		}
	})
}
