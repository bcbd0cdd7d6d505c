package btrfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// plain is a Maker without options.
func plain(args ...string) filesystemtest.Maker {
	return filesystemtest.Maker{Type: "btrfs", Mkfs: append([]string{"mkfs.btrfs", "-q"}, args...), Size: 256 << 20, Open: Open}
}

// run runs a shell in dir; it ends at the first command that fails.
func run(t testing.TB, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "IMAGE="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// view opens an image until the end of the test.
func view(t testing.TB, image string) *FileSystem {
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
	s, err := Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return s.(*FileSystem)
}

func listing(t *testing.T, s *FileSystem) (all []Subvolume) {
	t.Helper()
	if err := s.Subvolumes(func(v Subvolume) error { all = append(all, v); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestSubvolumes compares with mounts of each of them.
func TestSubvolumes(t *testing.T) {
	m := plain()
	image := m.Image(t)
	m.Mounted(t, image, "", func(dir string) {
		run(t, dir, `
			btrfs -q subvolume create @
			btrfs -q subvolume create gone
			mkdir -p @/var/lib && echo root > @/name && ln -s name @/link && btrfs property set @/name compression zstd
			btrfs -q subvolume create @/var/lib/machines && echo deep > @/var/lib/machines/f
			btrfs -q subvolume create @/var/lib/machines/inner && chown 5:6 @/var/lib/machines/inner && touch @/var/lib/machines/inner/f
			btrfs -q subvolume create home && mkdir home/u && cp @/name home/u/
			btrfs -q subvolume snapshot -r home home/before && rm home/u/name
			btrfs -q subvolume delete --commit-after gone
			mv @/var/lib/machines/inner @/renamed
			i=0; while [ $i -lt 2000 ]; do echo $i > home/u/file$i; i=$((i+1)); done`)
	})
	s := view(t, image)
	want := []Subvolume{
		{ID: 5},
		{ID: 256, Path: "@"},
		{ID: 258, Path: "@/var/lib/machines"},
		{ID: 259, Path: "@/renamed"},
		{ID: 260, Path: "home"},
		{ID: 261, Path: "home/before", ReadOnly: true, Snapshot: true},
	}
	if d := cmp.Diff(want, listing(t, s)); d != "" {
		t.Error(d)
	}
	for _, v := range want {
		t.Run(v.Path, func(t *testing.T) {
			other, err := s.WithRoot(v.ID)
			if err != nil {
				t.Fatal(err)
			}
			m.Mounted(t, image, fmt.Sprintf("ro,subvolid=%d", v.ID), func(dir string) { filesystemtest.Compare(t, other, dir) })
		})
	}
	stop := errors.New("stop")
	if err := s.Subvolumes(func(Subvolume) error { return stop }); err != stop {
		t.Errorf("error of visit: %v", err)
	}
	for _, id := range []uint64{0, 1, 2, 7, 257, 262, 1 << 63, 1<<64 - 9} {
		if _, err := s.WithRoot(id); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("subvolume %d: %v", id, err)
		}
	}
}

// TestDefaultSubvolume is what a mount without options shows.
func TestDefaultSubvolume(t *testing.T) {
	m := plain()
	image := m.Image(t)
	m.Mounted(t, image, "", func(dir string) {
		run(t, dir, `btrfs -q subvolume create a; btrfs -q subvolume create b; btrfs -q subvolume create b/c; touch b/c/here; btrfs subvolume set-default b/c`)
	})
	s := view(t, image)
	m.Mounted(t, image, "ro", func(dir string) {
		if _, err := os.Stat(filepath.Join(dir, "here")); err != nil {
			t.Fatal(err)
		}
		filesystemtest.Compare(t, s, dir)
	})
	if all := listing(t, s); len(all) != 4 || all[3].Path != "b/c" || s.Root().Volume != all[3].ID {
		t.Errorf("%v, %v", all, s.Root())
	}
}

// TestSnapshotOfNested: where nested subvolumes were, a snapshot has empty
// directories, each an inode of its own.
func TestSnapshotOfNested(t *testing.T) {
	m := plain()
	image := m.Image(t)
	m.Mounted(t, image, "", func(dir string) {
		run(t, dir, `btrfs -q subvolume create a; chown 7:8 a; mkdir a/d; for i in 1 2 3; do btrfs -q subvolume create a/d/$i; touch a/d/$i/f; done
			btrfs -q subvolume snapshot a b; btrfs -q subvolume delete --commit-after a/d/2`)
	})
	s := view(t, image)
	var b uint64
	for _, v := range listing(t, s) {
		if v.Path == "b" {
			b = v.ID
		}
	}
	snapshot, err := s.WithRoot(b)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[filesystem.Node]bool{}
	var names []string
	err = snapshot.ReadDir(child(t, snapshot, snapshot.Root(), "d"), func(name string, n filesystem.Node) error {
		names, seen[n] = append(names, name), true
		a, err := s.Stat(n)
		if err != nil || a.Mode != 0o40755 || a.UID != 7 || a.GID != 8 || a.Links != 1 || a.Size != 0 || a.Mtime.IsZero() {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
		if err := s.ReadDir(n, func(name string, _ filesystem.Node) error { return errors.New(name) }); err != nil {
			t.Error(err)
		}
		if x, err := s.Xattrs(n); x != nil || err != nil {
			t.Error(x, err)
		}
		if _, err := s.Open(n); !errors.Is(err, errdefs.ErrInvalid) {
			t.Error(err)
		}
		return nil
	})
	if got := strings.Join(names, " "); err != nil || got != "1 2 3" || len(seen) != 3 {
		t.Errorf("%s, %d nodes, %v", got, len(seen), err)
	}
}

func child(t *testing.T, s *FileSystem, dir filesystem.Node, name string) (child filesystem.Node) {
	t.Helper()
	if err := s.ReadDir(dir, func(n string, c filesystem.Node) error {
		if n == name {
			child = c
		}
		return nil
	}); err != nil || child == (filesystem.Node{}) {
		t.Fatalf("%s: %v", name, err)
	}
	return child
}
