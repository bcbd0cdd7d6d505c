package engine_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/gantry-project/gantry/engine"
)

// TestALostRecordLosesNoDisk opens an engine whose store was lost while a
// container ran: neither its disk nor its process may be touched.
func TestALostRecordLosesNoDisk(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "kept")
	console(t, e, "kept", "up as 1")
	s, err := e.State(t.Context(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	done()
	db := filepath.Join(h.Root, "gantry.db")
	if err := os.Rename(db, db+".lost"); err != nil {
		t.Fatal(err)
	}
	e, done = h.Engine(t)
	if all, err := e.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("containers without a record: %v %v", all, err)
	}
	done()
	if _, err := os.Stat(filepath.Join(h.Root, "snapshots/active/kept/upper")); err != nil {
		t.Errorf("the disk: %v", err)
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(s.Process.Pid)); err != nil {
		t.Errorf("the process: %v", err)
	}
	// with the record back it is all there
	if err := os.Rename(db+".lost", db); err != nil {
		t.Fatal(err)
	}
	e, done = h.Engine(t)
	defer done()
	if s, err := e.State(t.Context(), "kept"); err != nil || s.Status != engine.StatusRunning {
		t.Errorf("after the record is back: %+v %v", s, err)
	}
	if err := e.Delete(t.Context(), "kept"); err != nil {
		t.Error(err)
	}
}
