package engine_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// edit changes the host's records while no engine has them.
func edit(t *testing.T, h *enginetest.Host, fn func(*store.Bolt) error) {
	t.Helper()
	db, err := store.Open(filepath.Join(h.Root, "gantry.db"))
	check(t, err)
	check(t, errors.Join(fn(db), db.Close()))
}

// nothing wants an engine without containers on a host without what they have.
func nothing(t *testing.T, h *enginetest.Host, e *engine.Engine) {
	t.Helper()
	if all, err := e.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("containers %v %v", all, err)
	}
	for _, dir := range []string{"ns", "rootfs", "console", "snapshots/active"} {
		if n := entries(t, h, dir); n != 0 {
			t.Errorf("%d entries in %s", n, dir)
		}
	}
	if groups, err := h.Cgroups.List(t.Context()); err != nil || len(groups) != 0 {
		t.Errorf("groups %v %v", groups, err)
	}
	if procs, err := h.Runner.List(t.Context()); err != nil || len(procs) != 0 {
		t.Errorf("processes %v %v", procs, err)
	}
}

// TestARecordWithoutADiskIsRemoved: a create or a delete that was cut off.
func TestARecordWithoutADiskIsRemoved(t *testing.T) {
	h, _, done := fixture(t)
	done()
	edit(t, h, func(s *store.Bolt) error {
		_, err := s.CreateContainer(t.Context(), store.Container{ID: "half", Image: "busybox"})
		return err
	})
	e, done := h.Engine(t)
	defer done()
	nothing(t, h, e)
	// its block of ids is free again, and so is its name
	run(t, e, "half")
	check(t, e.Delete(t.Context(), "half"))
}

// TestLeftoversWithoutARecordAreRemoved: a mount, a control group with a
// process in it, namespaces and a log of an id that no record has.
func TestLeftoversWithoutARecordAreRemoved(t *testing.T) {
	h, _, done := fixture(t)
	done()
	ctx := t.Context()
	root := filepath.Join(h.Root, "rootfs", "stray")
	check(t, os.MkdirAll(root, 0o700))
	check(t, unix.Mount("none", root, "tmpfs", 0, ""))
	check(t, os.MkdirAll(filepath.Join(h.Root, "console", "stray"), 0o700))
	ids := []process.IDMap{{HostID: 5_000_000, Size: 65536}}
	_, _, err := process.CreateNamespaces(ctx, filepath.Join(h.Root, "ns", "stray"), ids, ids)
	check(t, err)
	group, err := h.Cgroups.Create(ctx, "stray", limits)
	check(t, err)
	sleep := exec.Command("/bin/busybox", "sleep", "1000")
	check(t, sleep.Start())
	defer func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }()
	files, err := group.JoinFiles()
	check(t, err)
	for _, f := range files {
		_, err := f.WriteString(strconv.Itoa(sleep.Process.Pid))
		check(t, errors.Join(err, f.Close()))
	}
	e, done := h.Engine(t)
	defer done()
	nothing(t, h, e)
	if err := sleep.Wait(); err == nil {
		t.Error("the stray process lives")
	}
}

// TestAStartThatWasNotRecorded: the process runs, the record does not know it.
func TestAStartThatWasNotRecorded(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "c")
	done()
	edit(t, h, func(s *store.Bolt) error {
		rec, err := s.Container(t.Context(), "c")
		rec.Started, rec.Pid = rec.Exited, 0 // Exited is zero
		return errors.Join(err, s.PutContainer(t.Context(), rec))
	})
	e, done = h.Engine(t)
	defer done()
	if s, err := e.State(t.Context(), "c"); err != nil || s.Status != engine.StatusCreated {
		t.Errorf("state %+v %v", s, err)
	}
	check(t, e.Start(t.Context(), "c", initRequest))
	check(t, e.Delete(t.Context(), "c"))
	nothing(t, h, e)
}

// TestADamagedRecord: the container of a record that cannot be read is left
// alone, its name stays taken, its layers stay, and a delete removes it all.
func TestADamagedRecord(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "bad")
	run(t, e, "good")
	done()
	db, err := bolt.Open(filepath.Join(h.Root, "gantry.db"), 0o600, nil)
	check(t, err)
	check(t, errors.Join(db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("containers")).Put([]byte("bad"), []byte(`{"v":1}`))
	}), db.Close()))
	e, done = h.Engine(t)
	defer done()
	ctx := t.Context()
	if all, err := e.List(ctx); err != nil || len(all) != 1 || all[0].ID != "good" {
		t.Errorf("containers %v %v", all, err)
	}
	if s, err := h.Runner.Status(ctx, "bad"); err != nil || !s.Running {
		t.Errorf("its process: %+v %v", s, err)
	}
	if err := e.Create(ctx, engine.CreateRequest{ID: "bad", Image: "busybox"}); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("create: %v", err)
	}
	if n := entries(t, h, "snapshots/active"); n != 2 {
		t.Errorf("%d disks, want 2", n)
	}
	if err := e.RemoveImage(ctx, "busybox"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("remove image: %v", err)
	}
	check(t, e.Delete(ctx, "bad"))
	check(t, e.Delete(ctx, "good"))
	nothing(t, h, e)
}

// TestDeleteWithoutARecord: the store was lost, and still a delete leaves
// nothing of the container.
func TestDeleteWithoutARecord(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "c")
	done()
	edit(t, h, func(s *store.Bolt) error { return s.DeleteContainer(t.Context(), "c") })
	e, done = h.Engine(t)
	defer done()
	check(t, e.Delete(t.Context(), "c"))
	nothing(t, h, e)
}
