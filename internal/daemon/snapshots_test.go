package daemon

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
	"github.com/gantry-project/gantry/internal/doctor"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestMain(m *testing.M) { os.Exit(snapshottest.InMountNamespace(m)) }

// TestSnapshotsOpen: what is chosen is said, and disks without bounds are a
// warning unless somebody chose that.
func TestSnapshotsOpen(t *testing.T) {
	for name, c := range map[string]struct {
		fs, backend, limit string
		want               snapshot.LimitKind
		warns              bool
		level              doctor.Level
	}{
		"no quota":        {"ext4", "auto", "auto", snapshot.LimitNone, true, doctor.Warn},
		"none chosen":     {"ext4", "overlay", "none", snapshot.LimitNone, false, doctor.Note},
		"loop files":      {"ext4", "auto", "loop", snapshot.LimitLoop, false, doctor.OK},
		"quota groups":    {"btrfs", "auto", "auto", snapshot.LimitQgroup, false, doctor.OK},
		"overlay, btrfs":  {"btrfs", "overlay", "auto", snapshot.LimitNone, true, doctor.Warn},
		"copies, by wish": {"ext4", "copy", "", snapshot.LimitNone, true, doctor.Warn},
	} {
		t.Run(name, func(t *testing.T) {
			root := snapshottest.FileSystem(t, c.fs, 256<<20, "")
			before := list(t, root)
			h := &doctor.Host{Root: "/", Store: filepath.Join(root, "engine")}
			o := DoctorOptions{Snapshotter: c.backend, DiskLimit: c.limit}
			level, found := o.checkDiskLimits(t.Context(), h)
			if level != c.level {
				t.Errorf("doctor says %s: %s", level, found)
			}
			if level, found := o.checkDisks(t.Context(), h); level != doctor.OK {
				t.Errorf("doctor says %s: %s", level, found)
			}
			if after := list(t, root); after != before {
				t.Errorf("doctor left %s", after)
			}
			s, choice, err := openSnapshots(t.Context(), root, c.backend, c.limit)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var log bytes.Buffer
			logSnapshots(zerolog.New(&log), s, choice, c.limit)
			if s.Describe().Limit != c.want || strings.Contains(log.String(), "not bounded") != c.warns || !strings.Contains(log.String(), "snapshots open") {
				t.Errorf("%+v: %s", s.Describe(), &log)
			}
		})
	}
}

func TestSnapshotsThatCannotBe(t *testing.T) {
	root := snapshottest.FileSystem(t, "ext4", 256<<20, "")
	before := list(t, root)
	for name, c := range map[string]struct {
		backend, limit string
		want           error
	}{
		"a quota that is not there": {"auto", "quota", errdefs.ErrUnsupported},
		"btrfs on ext4":             {"btrfs", "auto", errdefs.ErrUnsupported},
		"unknown":                   {"zfs", "auto", errdefs.ErrInvalid},
	} {
		if _, _, err := openSnapshots(t.Context(), root, c.backend, c.limit); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if level, found := (DoctorOptions{Snapshotter: c.backend, DiskLimit: c.limit}).checkDisks(t.Context(), &doctor.Host{Store: root}); level != doctor.Fail {
			t.Errorf("%s: %s %s", name, level, found)
		}
	}
	if after := list(t, root); after != before && after != before+" snapshots" {
		t.Errorf("left: %s", after)
	}
}

func list(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
