package overlay_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/overlay"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestMain(m *testing.M) { os.Exit(snapshottest.InMountNamespace(m)) }

func open(t *testing.T, root string) snapshot.Snapshotter {
	t.Helper()
	s, err := overlay.New(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestSuite(t *testing.T) { snapshottest.Run(t, open) }

func TestSuiteInLoopFiles(t *testing.T) {
	snapshottest.Run(t, func(t *testing.T, root string) snapshot.Snapshotter {
		s, err := overlay.Open(t.Context(), root, overlay.Options{Limit: snapshot.LimitLoop})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	})
}

// TestSuiteInProjects is run where the environment names a directory on a file
// system with project quotas; elsewhere they must be refused.
func TestSuiteInProjects(t *testing.T) {
	opts := overlay.Options{Limit: snapshot.LimitProject}
	dir := os.Getenv("GANTRY_TEST_PRJQUOTA")
	if dir == "" {
		if _, err := overlay.Open(t.Context(), snapshottest.Tmpfs(t), opts); !errors.Is(err, errdefs.ErrUnsupported) {
			t.Error(err)
		}
		return
	}
	snapshottest.RunIn(t, dir, func(t *testing.T, root string) snapshot.Snapshotter {
		s, err := overlay.Open(t.Context(), root, opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	})
}

// TestSuiteByPaths is the suite on an older kernel.
func TestSuiteByPaths(t *testing.T) {
	snapshottest.Run(t, func(t *testing.T, root string) snapshot.Snapshotter {
		s, err := overlay.New(root)
		if err != nil {
			t.Fatal(err)
		}
		s.PathsOnly()
		t.Cleanup(s.Close)
		return s
	})
}

// TestFileCapabilitiesAndSetuid runs programs of a layer inside.
func TestFileCapabilitiesAndSetuid(t *testing.T) {
	dir, err := os.MkdirTemp("", "overlay-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, target := filepath.Join(dir, "store"), filepath.Join(dir, "rootfs")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(target, 0o755)); err != nil {
		t.Fatal(err)
	}
	s := open(t, store)
	id := digest.FromString("programs").String()
	// cap_net_bind_service=ep, revision 2
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	err = s.Unpack(t.Context(), id, func(dir string) error {
		cat, err := os.ReadFile("/bin/cat")
		return errors.Join(err,
			os.WriteFile(filepath.Join(dir, "suid"), cat, 0o755), os.Chmod(filepath.Join(dir, "suid"), os.ModeSetuid|0o755),
			os.WriteFile(filepath.Join(dir, "capable"), cat, 0o755),
			syscall.Setxattr(filepath.Join(dir, "capable"), "security.capability", []byte(capability), 0))
	})
	if err == nil {
		err = s.Prepare(t.Context(), "c", []string{id}, snapshot.Limit{})
	}
	if err == nil {
		err = s.Mount(t.Context(), "c", target, snapshottest.IDs(t, 1_000_000))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Unmount(t.Context(), target); err != nil {
			t.Error(err)
		}
	}()
	for script, want := range map[string]string{
		"./suid /proc/self/status | grep Uid":       "Uid:\t1000\t0\t0\t0",
		"./capable /proc/self/status | grep CapEff": "CapEff:\t0000000000000400",
	} {
		if out, err := snapshottest.Inside(t, 1_000_000, 1000, target, script); err != nil || out != want {
			t.Errorf("%s: %q, %v, want %q", script, out, err, want)
		}
	}
}

func TestProbe(t *testing.T) {
	root := t.TempDir()
	s, err := overlay.New(root)
	if err != nil {
		t.Fatal(err)
	}
	ids := snapshottest.IDs(t, 1_000_000)
	if err := s.Probe(t.Context(), ids); err != nil {
		t.Error(err)
	}
	s.PathsOnly()
	if err := s.Probe(t.Context(), ids); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "active")); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
	// An overlay is a file system whose ids cannot be mapped.
	dirs := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "store"} {
		if err := os.Mkdir(filepath.Join(dirs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	on := filepath.Join(dirs, "store")
	err = syscall.Mount("overlay", on, "overlay", 0, "lowerdir="+dirs+"/lower,upperdir="+dirs+"/upper,workdir="+dirs+"/work")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Unmount(on, syscall.MNT_DETACH) }()
	s, err = overlay.New(on)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Probe(t.Context(), ids); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Error(err)
	}
}

func TestNewSweepsWhatACrashLeft(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	id := digest.FromString("kept").String()
	err := errors.Join(
		s.Unpack(t.Context(), id, func(dir string) error { return os.WriteFile(filepath.Join(dir, "a"), nil, 0o644) }),
		s.Prepare(t.Context(), "kept", []string{id}, snapshot.Limit{}), s.Prepare(t.Context(), "other", nil, snapshot.Limit{}), s.Remove(t.Context(), "other"))
	for _, left := range []string{"layers/.new-1/fs/x", "layers/.gone-2/fs/x", "active/.new-3/upper", "active/.gone-4/work/work"} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(root, left), 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	again := open(t, root)
	for dir, want := range map[string]int{"layers": 1, "active": 1, "chains": 1} {
		if entries, err := os.ReadDir(filepath.Join(root, dir)); err != nil || len(entries) != want {
			t.Errorf("%s: %v, %v", dir, entries, err)
		}
	}
	if err := again.RemoveLayer(t.Context(), id); !errors.Is(err, errdefs.ErrConflict) {
		t.Error(err)
	}
}

// TestCheckSeesMountsElsewhere: a disk that only another mount namespace shows,
// here nobody but an open file, is not removed.
func TestCheckSeesMountsElsewhere(t *testing.T) {
	dir, key := t.TempDir(), "elsewhere-"+rand.Text() // of no other test: mounts are found by key
	s, target := open(t, filepath.Join(dir, "store")), filepath.Join(dir, "rootfs")
	if err := errors.Join(os.Mkdir(target, 0o755), s.Prepare(t.Context(), key, nil, snapshot.Limit{}), s.Mount(t.Context(), key, target, snapshottest.IDs(t, 1_000_000))); err != nil {
		t.Fatal(err)
	}
	hold, err := os.Open(target)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	if err := syscall.Unmount(target, syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	req := snapshot.CheckRequest{Repair: true, References: &snapshot.References{}}
	found, err := s.Check(t.Context(), req)
	if err != nil || len(found) != 1 || found[0].Mended || !strings.Contains(found[0].Detail, "another mount namespace") {
		t.Fatalf("%+v, %v", found, err)
	}
	hold.Close()
	if found, err = s.Check(t.Context(), req); err != nil || len(found) != 1 || !found[0].Mended {
		t.Errorf("%+v, %v", found, err)
	}
}

// TestSkeleton: a container finds the places for its own file systems whatever
// the image has, and neither they nor the disk know of it.
func TestSkeleton(t *testing.T) {
	dir, err := os.MkdirTemp("", "overlay-") // others must be able to get there
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s, target := open(t, filepath.Join(dir, "store")), filepath.Join(dir, "rootfs")
	low, top := digest.FromString("low").String(), digest.FromString("top").String()
	err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(target, 0o755),
		s.Unpack(t.Context(), low, func(dir string) error { return os.Mkdir(filepath.Join(dir, "sys"), 0o700) }),
		s.Unpack(t.Context(), top, func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "proc"), nil, 0o644), syscall.Mknod(filepath.Join(dir, "sys"), syscall.S_IFCHR, 0))
		}),
		s.Prepare(t.Context(), "c", []string{low, top}, snapshot.Limit{}), s.Mount(t.Context(), "c", target, snapshottest.IDs(t, 1_000_000)))
	if err != nil {
		t.Fatal(err)
	}
	out, err := snapshottest.Inside(t, 1_000_000, 0, target, "stat -c '%n %a %u:%g %F' *; rmdir dev && mkdir dev && touch dev/mine")
	if want := "dev 755 0:0 directory\nproc 644 0:0 regular empty file"; err != nil || out != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
	if err := errors.Join(s.Unmount(t.Context(), target), s.Prepare(t.Context(), "d", []string{low}, snapshot.Limit{}),
		s.Mount(t.Context(), "d", target, snapshottest.IDs(t, 2_000_000))); err != nil {
		t.Fatal(err)
	}
	if out, err := snapshottest.Inside(t, 2_000_000, 0, target, "stat -c '%n %a %u:%g' * && ls -A dev"); err != nil || out != "dev 755 0:0\nproc 755 0:0\nsys 700 0:0" {
		t.Errorf("another disk: %q, %v", out, err)
	}
	changes, err := s.Changes(t.Context(), "d")
	if entries, rerr := os.ReadDir(changes); err != nil || rerr != nil || len(entries) != 0 {
		t.Error(entries, err, rerr)
	}
	if err := errors.Join(s.Unmount(t.Context(), target), s.View(t.Context(), []string{low}, target)); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(target); err != nil || len(entries) != 1 {
		t.Errorf("a view shows %v, %v", entries, err)
	}
	if err := s.Unmount(t.Context(), target); err != nil {
		t.Error(err)
	}
}

// TestSkeletonIsMended: the checker makes what is missing of it.
func TestSkeletonIsMended(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	s := open(t, root)
	if err := os.Remove(filepath.Join(root, "skeleton", "proc")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 0} {
		found, err := s.Check(t.Context(), snapshot.CheckRequest{Repair: true})
		if err != nil || len(found) != want {
			t.Errorf("%+v, %v; want %d", found, err, want)
		}
	}
	if info, err := os.Stat(filepath.Join(root, "skeleton", "proc")); err != nil || info.Mode().Perm() != 0o755 {
		t.Error(info, err)
	}
}

func TestDamagedChainIsNamed(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if err := s.Prepare(t.Context(), "bad", nil, snapshot.Limit{}); err != nil {
		t.Fatal(err)
	}
	chains, err := filepath.Glob(filepath.Join(root, "chains", "*"))
	if err != nil || len(chains) != 1 {
		t.Fatal(chains, err)
	}
	if err := os.WriteFile(chains[0], []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = s.Changes(t.Context(), "bad")
	if !errors.Is(err, errdefs.ErrCorrupt) || !strings.Contains(err.Error(), "bad") {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), "bad"); err != nil {
		t.Error(err)
	}
}

func BenchmarkMountUnmount(b *testing.B) {
	for _, layers := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(layers, " layers"), func(b *testing.B) {
			dir := b.TempDir()
			s, err := overlay.New(filepath.Join(dir, "store"))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			var chain []string
			for i := range layers {
				id := digest.FromString(fmt.Sprint(i)).String()
				chain = append(chain, id)
				err := s.Unpack(b.Context(), id, func(dir string) error {
					return os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644)
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			ids, target := snapshottest.IDs(b, 1_000_000), filepath.Join(dir, "target")
			if err := os.Mkdir(target, 0o755); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := s.Prepare(b.Context(), "k", chain, snapshot.Limit{}); err != nil {
					b.Fatal(err)
				}
				if err := s.Mount(b.Context(), "k", target, ids); err != nil {
					b.Fatal(err)
				}
				if err := s.Unmount(b.Context(), target); err != nil {
					b.Fatal(err)
				}
				if err := s.Remove(b.Context(), "k"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
