package btrfs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/btrfs"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestMain(m *testing.M) { os.Exit(snapshottest.InMountNamespace(m)) }

func factory(limit snapshot.LimitKind) snapshottest.Factory {
	return func(t *testing.T, root string) snapshot.Snapshotter {
		t.Helper()
		s, err := btrfs.Open(t.Context(), root, btrfs.Options{Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
}

func TestSuite(t *testing.T) {
	snapshottest.RunIn(t, snapshottest.FileSystem(t, "btrfs", 1<<30, ""), factory(snapshot.LimitNone))
}

func TestSuiteWithQuotas(t *testing.T) {
	snapshottest.RunIn(t, snapshottest.FileSystem(t, "btrfs", 1<<30, ""), factory(snapshot.LimitQgroup))
}

// TestSubvolumesOfAContainer count against its limit, where quotas are simple,
// and go with the disk, also those that are read-only.
func TestSubvolumesOfAContainer(t *testing.T) {
	ctx, base := t.Context(), snapshottest.FileSystem(t, "btrfs", 1<<30, "")
	s := factory(snapshot.LimitQgroup)(t, filepath.Join(base, "store"))
	target := filepath.Join(base, "rootfs")
	err := errors.Join(os.Mkdir(target, 0o755), s.Prepare(ctx, "c", nil, snapshot.Limit{Bytes: 40 << 20}), s.Mount(ctx, "c", target, snapshottest.IDs(t, 1_000_000)))
	if err != nil {
		t.Fatal(err)
	}
	out, err := snapshottest.Inside(t, 1_000_000, 0, target, `PATH=$PATH:/sbin:/usr/sbin
		mkdir d; btrfs -q subvolume create d/own && btrfs -q subvolume create d/own/nested && btrfs -q subvolume snapshot -r d/own d/ro
		head -c 200000000 /dev/zero > d/own/nested/fill; sync d/own/nested/fill; stat -c %s d/own/nested/fill`)
	t.Log(out, err)
	simple := !strings.Contains(strings.Join(s.Describe().Notes, " "), "do not hold")
	var size int64
	if _, err := fmt.Sscan(out[strings.LastIndexByte(out, '\n')+1:], &size); simple && (err != nil || size > 42<<20) {
		t.Errorf("%d bytes went into a subvolume of the container's own, %v", size, err)
	}
	if err := errors.Join(s.Unmount(ctx, target), s.Remove(ctx, "c")); err != nil {
		t.Fatal(err)
	}
	found, err := s.Check(ctx, snapshot.CheckRequest{Repair: true, References: &snapshot.References{}})
	for _, f := range found {
		if f.Kind != snapshot.FindingOrphanQuota {
			t.Errorf("%+v", f)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	for _, limit := range []snapshot.LimitKind{snapshot.LimitNone, snapshot.LimitQgroup} {
		if _, err := btrfs.Open(t.Context(), snapshottest.Tmpfs(t), btrfs.Options{Limit: limit}); !errors.Is(err, errdefs.ErrUnsupported) {
			t.Error(err)
		}
	}
	on := snapshottest.FileSystem(t, "btrfs", 1<<30, "")
	if _, err := btrfs.Open(t.Context(), on, btrfs.Options{Limit: snapshot.LimitProject}); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Error(err)
	}
}

func FuzzParseItems(f *testing.F) {
	f.Add(make([]byte, 72), uint32(2))
	f.Add([]byte{}, uint32(1))
	f.Fuzz(func(t *testing.T, buf []byte, count uint32) {
		n, err := btrfs.ParseItems(buf, count%1000)
		if err == nil && n > len(buf)/32 {
			t.Errorf("%d items in %d bytes", n, len(buf))
		}
	})
}
