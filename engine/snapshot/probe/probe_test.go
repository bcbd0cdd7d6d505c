package probe_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/probe"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestMain(m *testing.M) { os.Exit(snapshottest.InMountNamespace(m)) }

// onOverlay is a directory on an overlay: it has no id-mapped mounts, and is no
// upper directory of another.
func onOverlay(t *testing.T) string {
	t.Helper()
	dirs := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "store"} {
		if err := os.Mkdir(filepath.Join(dirs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	on := filepath.Join(dirs, "store")
	err := syscall.Mount("overlay", on, "overlay", 0, "lowerdir="+dirs+"/lower,upperdir="+dirs+"/upper,workdir="+dirs+"/work")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(on, syscall.MNT_DETACH) })
	return on
}

func TestChoice(t *testing.T) {
	ids := snapshottest.IDs(t, 1_000_000)
	big := int64(256 << 20)
	for name, c := range map[string]struct {
		root    func(t *testing.T) string
		opts    probe.Options
		backend string
		limit   snapshot.LimitKind
		ids     snapshot.IDMethod
	}{
		"ext4":             {func(t *testing.T) string { return snapshottest.FileSystem(t, "ext4", big, "") }, probe.Options{}, "overlay", snapshot.LimitNone, snapshot.IDsMapped},
		"loop on ext4":     {func(t *testing.T) string { return snapshottest.FileSystem(t, "ext4", big, "") }, probe.Options{Limit: probe.Loop}, "overlay", snapshot.LimitLoop, snapshot.IDsMapped},
		"quota on btrfs":   {func(t *testing.T) string { return snapshottest.FileSystem(t, "btrfs", big, "") }, probe.Options{Limit: probe.Quota}, "btrfs", snapshot.LimitQgroup, snapshot.IDsMapped},
		"btrfs":            {func(t *testing.T) string { return snapshottest.FileSystem(t, "btrfs", big, "") }, probe.Options{}, "btrfs", snapshot.LimitQgroup, snapshot.IDsMapped},
		"xfs":              {func(t *testing.T) string { return snapshottest.FileSystem(t, "xfs", 400<<20, "") }, probe.Options{}, "overlay", snapshot.LimitNone, snapshot.IDsMapped},
		"an overlay":       {onOverlay, probe.Options{}, "copy", snapshot.LimitNone, snapshot.IDsShifted},
		"copy on tmpfs":    {func(t *testing.T) string { return snapshottest.Tmpfs(t) }, probe.Options{Backend: "copy", Limit: "none"}, "copy", snapshot.LimitNone, snapshot.IDsMapped},
		"overlay on btrfs": {func(t *testing.T) string { return snapshottest.FileSystem(t, "btrfs", big, "") }, probe.Options{Backend: "overlay", Limit: "none"}, "overlay", snapshot.LimitNone, snapshot.IDsMapped},
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(c.root(t), "store")
			c.opts.IDs = ids
			s, choice, err := probe.Open(t.Context(), root, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			d := s.Describe()
			if choice.Backend != c.backend || choice.Limit != c.limit || d.Name != c.backend || d.Limit != c.limit || d.IDs != c.ids {
				t.Errorf("chosen: %s; %+v", choice, d)
			}
			// A store with disks stays what it is.
			if err := s.Prepare(t.Context(), "c", nil, snapshot.Limit{}); err != nil {
				t.Fatal(err)
			}
			s.Close()
			again, choice, err := probe.Open(t.Context(), root, probe.Options{IDs: ids, Limit: "none"})
			if err != nil || choice.Backend != c.backend {
				t.Fatal(choice, err)
			}
			other := map[string]string{"overlay": "copy", "copy": "overlay", "btrfs": "overlay"}[c.backend]
			if _, _, err := probe.Open(t.Context(), root, probe.Options{IDs: ids, Backend: other}); !errors.Is(err, errdefs.ErrConflict) {
				t.Error(err)
			}
			if err := again.Remove(t.Context(), "c"); err != nil {
				t.Error(err)
			}
			again.Close()
		})
	}
}

func TestRefusals(t *testing.T) {
	ids := snapshottest.IDs(t, 1_000_000)
	for name, c := range map[string]struct {
		opts probe.Options
		want error
		text string
	}{
		"unknown back end":      {probe.Options{Backend: "zfs"}, errdefs.ErrInvalid, "zfs"},
		"unknown limit":         {probe.Options{Limit: "hope"}, errdefs.ErrInvalid, "hope"},
		"btrfs on tmpfs":        {probe.Options{Backend: "btrfs"}, errdefs.ErrUnsupported, "tmpfs"},
		"quota on tmpfs":        {probe.Options{Limit: probe.Quota}, errdefs.ErrUnsupported, "copy with project-quota"},
		"quota group of a copy": {probe.Options{Limit: "btrfs-qgroup"}, errdefs.ErrUnsupported, "copy with btrfs-qgroup"},
	} {
		t.Run(name, func(t *testing.T) {
			c.opts.IDs = ids
			s, choice, err := probe.Open(t.Context(), filepath.Join(snapshottest.Tmpfs(t), "store"), c.opts)
			if s != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v: %v", choice, err)
			}
		})
	}
}
