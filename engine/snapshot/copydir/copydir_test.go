package copydir_test

import (
	"errors"
	"os"
	"testing"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/copydir"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestMain(m *testing.M) { os.Exit(snapshottest.InMountNamespace(m)) }

func factory(opts copydir.Options) snapshottest.Factory {
	return func(t *testing.T, root string) snapshot.Snapshotter {
		t.Helper()
		s, err := copydir.Open(t.Context(), root, opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
}

func TestSuite(t *testing.T) { snapshottest.Run(t, factory(copydir.Options{})) }

func TestSuiteShifted(t *testing.T) { snapshottest.Run(t, factory(copydir.Options{Shift: true})) }

func TestSuiteInLoopFiles(t *testing.T) {
	snapshottest.Run(t, factory(copydir.Options{Limit: snapshot.LimitLoop}))
}

func TestSuiteOnTmpfs(t *testing.T) {
	snapshottest.RunIn(t, snapshottest.Tmpfs(t), factory(copydir.Options{Shift: true}))
}

// TestSuiteInProjects is run where the environment names a directory on a file
// system with project quotas; elsewhere they must be refused.
func TestSuiteInProjects(t *testing.T) {
	opts := copydir.Options{Limit: snapshot.LimitProject}
	if dir := os.Getenv("GANTRY_TEST_PRJQUOTA"); dir != "" {
		snapshottest.RunIn(t, dir, factory(opts))
		return
	}
	if _, err := copydir.Open(t.Context(), snapshottest.Tmpfs(t), opts); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Error(err)
	}
}
