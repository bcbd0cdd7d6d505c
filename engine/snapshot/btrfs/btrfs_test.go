package btrfs_test

import (
	"errors"
	"os"
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

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	if _, err := btrfs.Open(t.Context(), snapshottest.Tmpfs(t), btrfs.Options{}); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Error(err)
	}
	_ = dir
}
