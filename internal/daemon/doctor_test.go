package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/doctor"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestDoctorOfTheHost(t *testing.T) {
	root := filepath.Join(t.TempDir(), "engine")
	r, err := Doctor(t.Context(), DoctorOptions{StorePath: root})
	if err != nil || !r.Healthy() || len(r.Host) < 20 {
		t.Errorf("%+v %v", r, err)
	}
	if left, err := os.ReadDir(filepath.Dir(root)); err != nil || len(left) != 0 {
		t.Errorf("it left %v %v", left, err)
	}
	// what the description of the groups looks at is not made again by the look
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		if left, err := filepath.Glob(fmt.Sprintf("%sgantry-doctor-%d", pattern, os.Getpid())); err != nil || len(left) != 0 {
			t.Errorf("it left %v %v", left, err)
		}
	}
	if (DoctorReport{Host: []doctor.Result{{Level: doctor.Fail}}}).Healthy() {
		t.Error("healthy without what is needed")
	}
}

func TestDoctorOfTheStorage(t *testing.T) {
	root := filepath.Join(t.TempDir(), "engine")
	o := DoctorOptions{StorePath: root, Cgroup: "gantry-test-doctor", Storage: true, Deep: true}
	t.Cleanup(func() {
		if err := removeGroupTree(o.Cgroup); err != nil {
			t.Error(err)
		}
	})
	if _, err := Doctor(t.Context(), o); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
	db, err := store.Open(filepath.Join(root, "gantry.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, o.Repair = range []bool{false, true} {
		if _, err := Doctor(t.Context(), o); !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "a service runs") {
			t.Errorf("a service runs: %v", err)
		}
	}
	if err := errors.Join(db.Close(), os.MkdirAll(filepath.Join(root, "console", "stray"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		repair, healthy bool
		findings        int
	}{{false, false, 1}, {true, true, 1}, {false, true, 0}} {
		o.Repair = c.repair
		r, err := Doctor(t.Context(), o)
		if err != nil || len(r.Storage) != c.findings || r.Healthy() != c.healthy {
			t.Errorf("%+v: %+v %v", c, r, err)
		}
		if c.findings > 0 && r.Storage[0].Kind != engine.FindingOrphan {
			t.Errorf("%+v", r.Storage)
		}
	}
}
