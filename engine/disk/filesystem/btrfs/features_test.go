package btrfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// TestMadeFromDirectory is about what mkfs.btrfs --rootdir makes, which is not
// what the kernel makes.
func TestMadeFromDirectory(t *testing.T) {
	from := t.TempDir()
	filesystemtest.Populate(t, from)
	m := plain("--rootdir", from)
	m.Size = 8 << 30 // there is a sparse file of 5 GiB, and mkfs fills holes
	if err := os.RemoveAll(filepath.Join(from, "holes")); err != nil {
		t.Fatal(err)
	}
	image := m.Image(t)
	s := view(t, image)
	m.Mounted(t, image, "ro", func(dir string) { filesystemtest.Compare(t, s, dir) })
}

// TestChangedUUID: the blocks keep the UUID of the time they were made.
func TestChangedUUID(t *testing.T) {
	m := plain("-L", "a label")
	image := m.Image(t)
	m.Mounted(t, image, "", func(dir string) { run(t, dir, `mkdir d; touch d/f`) })
	before := view(t, image).Info()
	run(t, filepath.Dir(image), `btrfstune -f -m image`)
	s := view(t, image)
	if info := s.Info(); info.UUID == before.UUID || info.Label != "a label" || info.Type != "btrfs" || info.Dirty {
		t.Errorf("%+v", info)
	}
	m.Mounted(t, image, "ro", func(dir string) { filesystemtest.Compare(t, s, dir) })
}

// TestNotReadable names what stands in the way.
func TestNotReadable(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, `for i in 1 2 3 4; do truncate -s 256M $i; done; mkfs.btrfs -q -d single -m raid1 1 2; mkfs.btrfs -q -f -d raid0 -m raid1 3 4`)
	for _, name := range []string{"1", "2", "3"} {
		if _, err := openFile(t, filepath.Join(dir, name)); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "2 devices") {
			t.Errorf("%s: %v", name, err)
		}
	}
	base := plain().Image(t)
	for what, change := range map[string]func(b []byte){
		"zoned devices":    func(b []byte) { b[0xbc+1] |= 0x10 },
		"extent tree v2":   func(b []byte) { b[0xbc+1] |= 0x20 },
		"raid stripe tree": func(b []byte) { b[0xbc+1] |= 0x40 },
		"feature bit 15":   func(b []byte) { b[0xbc+1] |= 0x80 },
		"feature bit 40":   func(b []byte) { b[0xbc+5] |= 1 },
		"dump":             func(b []byte) { b[0x38+4] |= 2 },
		"type 77":          func(b []byte) { b[0xc4] = 77 },
		"RAID5":            func(b []byte) { b[0x32b+keySize+24] |= 0x80 },
		"device 9":         func(b []byte) { b[0xc9] = 9 },
	} {
		if _, err := unchecked(patched(t, base, change), 256<<20); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestDirty: a log tree is told of.
func TestDirty(t *testing.T) {
	s, err := unchecked(patched(t, plain().Image(t), func(b []byte) { b[0x60] = 1 }), 256<<20)
	if err != nil || !s.Info().Dirty {
		t.Errorf("%v", err)
	}
}

// TestMirrors: what is damaged once is read from where it is whole.
func TestMirrors(t *testing.T) {
	m := plain("-m", "dup")
	m.Size = 1 << 30
	image := m.Image(t)
	m.Mounted(t, image, "", func(dir string) {
		run(t, dir, `i=0; while [ $i -lt 3000 ]; do touch a-file-with-a-long-name-$i; i=$((i+1)); done`)
	})
	s := view(t, image)
	damaged := func(at ...int64) {
		f, err := os.OpenFile(image, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, offset := range at {
			if _, err := f.WriteAt(make([]byte, 64), offset); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	top, err := s.volume(fsTree)
	if err != nil {
		t.Fatal(err)
	}
	var once, twice []int64
	for _, c := range s.chunks {
		if c.copies[0] != c.copies[1] {
			for at := c.copies[0]; at < c.copies[0]+int64(c.length); at += int64(s.super.nodeSize) {
				if at < 64<<20-65536 || at > 64<<20 { // a chunk may go around the mirror
					once = append(once, at+200)
				}
			}
		}
	}
	damaged(append(once[:min(len(once), 5000)], 64<<10+500)...)
	if n := count(t, view(t, image)); n != 3000 {
		t.Errorf("%d names with one copy of each", n)
	}
	copies, err := s.locate(top.tree.block, 1)
	if err != nil {
		t.Fatal(err)
	}
	twice = append(twice, copies[0]+200, copies[1]+200)
	damaged(twice...)
	if _, err := openFile(t, image); !errors.Is(err, errdefs.ErrCorrupt) || !strings.Contains(err.Error(), "checksum") {
		t.Error(err)
	}
	damaged(64<<10 + 0x40) // what makes it a btrfs
	if _, err := openFile(t, image); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
}

func count(t *testing.T, s *FileSystem) (n int) {
	t.Helper()
	if err := s.ReadDir(s.Root(), func(string, filesystem.Node) error { n++; return nil }); err != nil {
		t.Error(err)
	}
	return n
}

func openFile(t *testing.T, image string) (filesystem.FileSystem, error) {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return Open(f, st.Size())
}

// patched is an image with another superblock, and without a mirror of it.
func patched(t *testing.T, image string, change func(super []byte)) io.ReaderAt {
	t.Helper()
	changed := filepath.Join(t.TempDir(), "changed")
	if out, err := exec.Command("cp", "--sparse=always", image, changed).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	f, err := os.OpenFile(changed, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	b := make([]byte, superSize)
	if _, err := f.ReadAt(b, 64<<10); err != nil {
		t.Fatal(err)
	}
	change(b)
	_, err = f.WriteAt(b, 64<<10)
	_, err2 := f.WriteAt(make([]byte, superSize), 64<<20)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestCompressed is about the ends of extents: files of all lengths that
// compress well, badly, or in part.
func TestCompressed(t *testing.T) {
	for _, name := range []string{"zlib:1", "zlib:9", "lzo", "zstd:1", "zstd:15"} {
		t.Run(name, func(t *testing.T) {
			m := plain()
			m.Options = "compress-force=" + name
			image := m.Image(t)
			m.Mounted(t, image, "", func(dir string) {
				rest := rand.NewChaCha8([32]byte{1})
				for i := range 200 {
					var b bytes.Buffer
					for n := i * i * 2; b.Len() < n; {
						fmt.Fprintf(&b, "%d lines of %s and ", b.Len(), dir)
						_, _ = io.CopyN(&b, rest, int64(i%40))
					}
					if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), b.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				run(t, dir, `for i in 1 2 3 4 5 6 7 8; do cp --reflink=always 19$i part$i; truncate -s $((i*7777)) part$i; printf x | dd of=part$i bs=1 seek=$((i*6666)) conv=notrunc status=none; done`)
			})
			s := view(t, image)
			m.Mounted(t, image, "ro", func(dir string) { filesystemtest.Compare(t, s, dir) })
		})
	}
}
