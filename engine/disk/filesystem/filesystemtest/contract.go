package filesystemtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// crash takes the image from below a mounted file system, and compares with
// what the kernel makes of it.
func crash(t *testing.T, m Maker) {
	image := m.image(t)
	dirty, repaired := image+".dirty", image+".repaired"
	m.mounted(t, image, "", func(dir string) {
		p := &populator{t: t}
		p.random = newRandom(2)
		for i := range 50 {
			p.must(os.Mkdir(filepath.Join(dir, fmt.Sprint("d", i)), 0o755))
			p.file(filepath.Join(dir, fmt.Sprint("d", i), "f"), 3000)
		}
		d, err := os.Open(dir)
		p.must(err)
		p.must(unix.Syncfs(int(d.Fd())), d.Close())
		for i := range 20 {
			p.must(os.RemoveAll(filepath.Join(dir, fmt.Sprint("d", i))))
			name := filepath.Join(dir, fmt.Sprint("after", i))
			p.file(name, 100000)
			f, err := os.Open(name)
			p.must(err)
			p.must(f.Sync(), f.Close())
		}
		command(t, "cp", "--sparse=always", image, dirty)
	})
	command(t, "cp", "--sparse=always", dirty, repaired)
	m.mounted(t, repaired, "", func(string) {})
	r, size := open(t, dirty)
	fs, err := m.Open(r, size)
	if err != nil {
		t.Fatal(err)
	}
	if fs.Info().Dirty {
		if !m.Lossy {
			t.Fatal("dirty")
		}
		if err := promised(look(load(t, dirty), size, m.Open)); err != nil {
			t.Error(err)
		}
		return
	}
	m.mounted(t, repaired, "ro", func(dir string) { Compare(t, fs, dir) })
}

// contract checks what is promised of methods for any file system.
func contract(t *testing.T, m Maker) {
	r, size := open(t, m.smallImage(t))
	fs, err := m.Open(r, size)
	if err != nil {
		t.Fatal(err)
	}
	files, link := child(t, fs, fs.Root(), "files"), child(t, fs, child(t, fs, fs.Root(), "links"), "l30")
	f := child(t, fs, files, "70001")
	t.Run("info", func(t *testing.T) {
		info := fs.Info()
		probe := exec.Command("blkid", "-p", "-s", "UUID", "-o", "value", r.(*os.File).Name())
		probe.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
		out, err := probe.Output()
		if err != nil || info.UUID != strings.TrimSpace(string(out)) || info.Dirty || info.Type == "" {
			t.Errorf("%+v, want UUID %s, %v", info, out, err)
		}
	})
	t.Run("wrong type", func(t *testing.T) {
		for what, call := range map[string]func() error{
			"readdir of a file":     func() error { return fs.ReadDir(f, nil) },
			"readdir of a link":     func() error { return fs.ReadDir(link, nil) },
			"readlink of a file":    func() error { _, err := fs.Readlink(f); return err },
			"open of a directory":   func() error { _, err := fs.Open(files); return err },
			"open of a link":        func() error { _, err := fs.Open(link); return err },
			"readlink of directory": func() error { _, err := fs.Readlink(files); return err },
		} {
			if err := call(); !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
	t.Run("no such inode", func(t *testing.T) {
		for _, n := range []filesystem.Node{
			{},
			{Volume: f.Volume, Inode: 1 << 62},
			{Volume: f.Volume, Inode: 1<<64 - 1},
			{Volume: f.Volume + 1, Inode: 1 << 40},
			{Volume: 1 << 63, Inode: f.Inode},
			{Volume: f.Volume, Inode: 1 << 31},
		} {
			_, serr := fs.Stat(n)
			_, oerr := fs.Open(n)
			_, xerr := fs.Xattrs(n)
			_, lerr := fs.Readlink(n)
			for _, err := range []error{serr, oerr, xerr, lerr, fs.ReadDir(n, nil)} {
				if !errors.Is(err, errdefs.ErrCorrupt) {
					t.Errorf("%v: %v", n, err)
				}
			}
		}
	})
	t.Run("order", func(t *testing.T) {
		stop := errors.New("stop")
		if err := fs.ReadDir(files, func(string, filesystem.Node) error { return stop }); err != stop {
			t.Errorf("error of visit: %v", err)
		}
		if a, b := list(t, fs, files), list(t, fs, files); !slices.Equal(a, b) || len(a) < 10 {
			t.Errorf("%v, then %v", a, b)
		}
	})
	t.Run("content", func(t *testing.T) { readAt(t, fs, f) })
}

func list(t *testing.T, fs filesystem.FileSystem, dir filesystem.Node) (names []string) {
	t.Helper()
	if err := fs.ReadDir(dir, func(name string, _ filesystem.Node) error { names = append(names, name); return nil }); err != nil {
		t.Fatal(err)
	}
	return names
}

func child(t *testing.T, fs filesystem.FileSystem, dir filesystem.Node, name string) (node filesystem.Node) {
	t.Helper()
	found := errors.New("found")
	err := fs.ReadDir(dir, func(base string, n filesystem.Node) error {
		if base == name {
			node = n
			return found
		}
		return nil
	})
	if err != found {
		t.Fatalf("%s: %v", name, err)
	}
	return node
}

func readAt(t *testing.T, fs filesystem.FileSystem, n filesystem.Node) {
	a, err := fs.Stat(n)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open(n)
	if err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, a.Size+1)
	if n, err := f.ReadAt(whole, 0); int64(n) != a.Size || err != io.EOF {
		t.Fatalf("%d bytes, %v", n, err)
	}
	whole = whole[:a.Size]
	if err := iotest.TestReader(io.NewSectionReader(f, 0, a.Size), whole); err != nil {
		t.Error(err)
	}
	for _, at := range []int64{a.Size, a.Size + 1, 1 << 62} {
		if n, err := f.ReadAt(make([]byte, 1), at); n != 0 || err != io.EOF {
			t.Errorf("at %d: %d, %v", at, n, err)
		}
	}
	if n, err := f.ReadAt(make([]byte, 1), -1); n != 0 || err == nil || err == io.EOF {
		t.Errorf("before the start: %d, %v", n, err)
	}
	part := make([]byte, 5000)
	if n, err := f.ReadAt(part, 4090); n != len(part) || err != nil || !bytes.Equal(part, whole[4090:9090]) {
		t.Errorf("in the middle: %d, %v", n, err)
	}
	stop := errors.New("stop")
	if err := f.Segments(func(int64, int64) error { return stop }); err != stop {
		t.Errorf("error of visit: %v", err)
	}
}

// notMine is about bytes that are no file system of this type.
func notMine(t *testing.T, m Maker) {
	noise := make([]byte, 1<<20)
	_, _ = newRandom(3).Read(noise)
	for name, data := range map[string][]byte{"empty": nil, "zeros": make([]byte, 1<<20), "noise": noise, "short": noise[:100]} {
		if _, err := m.Open(bytes.NewReader(data), int64(len(data))); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
