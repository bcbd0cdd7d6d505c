package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot/overlay"
	"github.com/gantry-project/gantry/engine/store"
)

// doctor checks the host's state while no engine has it.
func doctor(t *testing.T, h *enginetest.Host, o engine.CheckOptions) []engine.Finding {
	t.Helper()
	db, err := store.Open(filepath.Join(h.Root, "gantry.db"))
	check(t, err)
	snaps, err := overlay.New(filepath.Join(h.Root, "snapshots"))
	check(t, err)
	_, intents, err := store.ReadLog(filepath.Join(h.Root, "journal"))
	check(t, err)
	d := &engine.StorageDoctor{
		Root: h.Root, Records: db, Writer: db, Snapshots: snaps, Cgroups: h.Cgroups, Intents: intents,
	}
	found, err := d.Check(t.Context(), o)
	snaps.Close()
	check(t, errors.Join(err, db.Close()))
	return found
}

// TestTheDoctor damages the state of a host with a container in one way after
// the other: each is found, what can be is mended, and the container lives.
func TestTheDoctor(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, h *enginetest.Host)
		kind   string
		what   string // part of it
		keeps  bool   // it cannot be mended
	}{
		"an orphan directory": {func(t *testing.T, h *enginetest.Host) {
			check(t, os.MkdirAll(filepath.Join(h.Root, "console", "stray"), 0o700))
		}, engine.FindingOrphan, "console/stray", false},
		"an orphan mount": {func(t *testing.T, h *enginetest.Host) {
			dir := filepath.Join(h.Root, "rootfs", "stray")
			check(t, errors.Join(os.MkdirAll(dir, 0o700), unix.Mount("gantry:stray", dir, "tmpfs", 0, "")))
		}, engine.FindingOrphan, "rootfs/stray", false},
		"orphan namespaces": {func(t *testing.T, h *enginetest.Host) {
			ids := []process.IDMap{{HostID: 5_000_000, Size: 65536}}
			_, _, err := process.CreateNamespaces(t.Context(), filepath.Join(h.Root, "ns", "stray"), ids, ids)
			check(t, err)
		}, engine.FindingOrphan, "ns/stray", false},
		"an orphan control group": {func(t *testing.T, h *enginetest.Host) {
			_, err := h.Cgroups.Create(t.Context(), "stray", limits)
			check(t, err)
		}, engine.FindingOrphan, "cgroup/stray", false},
		"a temporary file": {func(t *testing.T, h *enginetest.Host) {
			check(t, os.WriteFile(filepath.Join(h.Root, "tmp", "commit-1"), nil, 0o600))
		}, engine.FindingOrphan, "tmp/commit-1", false},
		"an orphan layer": {func(t *testing.T, h *enginetest.Host) {
			snaps, err := overlay.New(filepath.Join(h.Root, "snapshots"))
			check(t, err)
			defer snaps.Close()
			check(t, snaps.Unpack(t.Context(), "sha256:"+strings.Repeat("7", 64), func(string) error { return nil }))
		}, "orphan-layer", "7777", false},
		"an expired lease": {func(t *testing.T, h *enginetest.Host) {
			edit(t, h, func(s *store.Bolt) error {
				return s.PutLease(t.Context(), store.Lease{ID: "old", Expires: time.Now().Add(-time.Hour)})
			})
		}, engine.FindingExpiredLease, "old", false},
		"an image without a layer": {func(t *testing.T, h *enginetest.Host) {
			edit(t, h, func(s *store.Bolt) error {
				return s.PutImage(t.Context(), store.Image{Ref: "broken", Chain: []string{"sha256:" + strings.Repeat("8", 64)}})
			})
		}, engine.FindingBrokenImage, "broken", false},
		"an interrupted operation": {func(t *testing.T, h *enginetest.Host) {
			intend(t, h, "delete", "other", "")
		}, engine.FindingInterrupted, "other", true},
		"a record without a disk": {func(t *testing.T, h *enginetest.Host) {
			edit(t, h, func(s *store.Bolt) error {
				return s.PutContainer(t.Context(), store.Container{ID: "half", Image: "busybox"})
			})
		}, engine.FindingInterrupted, "half", true},
		"a disk without a record": {func(t *testing.T, h *enginetest.Host) {
			edit(t, h, func(s *store.Bolt) error { return s.DeleteContainer(t.Context(), "c") })
		}, engine.FindingLostRecord, "c", true},
		"a damaged record": {func(t *testing.T, h *enginetest.Host) {
			db, err := bolt.Open(filepath.Join(h.Root, "gantry.db"), 0o600, nil)
			check(t, err)
			check(t, errors.Join(db.Update(func(tx *bolt.Tx) error {
				return tx.Bucket([]byte("images")).Put([]byte("bad"), []byte(`{"v":1}`))
			}), db.Close()))
		}, engine.FindingDamagedRecord, "images/bad", true},
	} {
		t.Run(name, func(t *testing.T) {
			h, e, done := fixture(t)
			run(t, e, "c")
			done()
			if found := doctor(t, h, engine.CheckOptions{Deep: true}); len(found) != 0 {
				t.Fatalf("before: %+v", found)
			}
			c.damage(t, h)
			matches := func(f engine.Finding) bool { return f.Kind == c.kind && strings.Contains(f.What, c.what) }
			if found := doctor(t, h, engine.CheckOptions{}); !slices.ContainsFunc(found, matches) || slices.ContainsFunc(found, func(f engine.Finding) bool { return f.Mended }) {
				t.Errorf("found %+v", found)
			}
			for _, f := range doctor(t, h, engine.CheckOptions{Repair: true}) {
				if f.Mended == c.keeps {
					t.Errorf("repair: %+v", f)
				}
			}
			if found := doctor(t, h, engine.CheckOptions{Deep: true}); (len(found) != 0) != c.keeps {
				t.Errorf("after: %+v", found)
			}
			if s, err := h.Runner.Status(t.Context(), "c"); err != nil || !s.Running {
				t.Errorf("the container: %+v %v", s, err)
			}
			e, done = h.Engine(t)
			defer done()
			check(t, e.Delete(t.Context(), "c"))
		})
	}
}

// TestAnOpenEngineChecksItself while it works: nothing is found that is not there.
func TestAnOpenEngineChecksItself(t *testing.T) {
	h, e, done := fixture(t)
	defer done()
	run(t, e, "c")
	check(t, os.MkdirAll(filepath.Join(h.Root, "console", "stray"), 0o700))
	found, err := e.Check(t.Context(), engine.CheckOptions{Repair: true})
	if err != nil || len(found) != 1 || found[0].What != "console/stray" || found[0].Mended {
		t.Errorf("%+v %v", found, err)
	}
	check(t, errors.Join(os.Remove(filepath.Join(h.Root, "console", "stray")), e.Delete(t.Context(), "c")))
}
