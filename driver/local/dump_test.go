package local_test

import (
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// A dump is an ELF core that only the host's root reads; all together take no more
// than they may, the oldest go first, and each goes with its instance.
func TestCrashDumps(t *testing.T) {
	r := newRig(t)
	r.end()
	r.dumps = 96 << 10 // one guest of busybox takes some 60
	r.open(t)
	file := func(uuid driver.InstanceUUID) string {
		return filepath.Join(r.host.Root, "crash-dumps", string(uuid)+".core")
	}
	here := func(uuid driver.InstanceUUID, want bool) {
		t.Helper()
		if _, err := os.Stat(file(uuid)); (err == nil) != want {
			t.Errorf("dump of %s: %v, want one: %t", uuid, err, want)
		}
	}
	var uuids []driver.InstanceUUID
	for range 3 {
		req := request()
		check(t, r.driver.Spawn(t.Context(), req))
		check(t, r.driver.CrashDump(t.Context(), req.UUID))
		uuids = append(uuids, req.UUID)
	}
	here(uuids[0], false)
	here(uuids[2], true)
	core, err := elf.Open(file(uuids[2]))
	check(t, err)
	defer core.Close()
	if st := must(os.Stat(file(uuids[2])))(t); core.Type != elf.ET_CORE || st.Mode().Perm() != 0o600 {
		t.Errorf("type %s, mode %s", core.Type, st.Mode())
	}
	// what a killed service has left, and what is nobody's
	half := filepath.Join(r.host.Root, "crash-dumps", string(uuids[2])+".123")
	check(t, os.WriteFile(half, nil, 0o600))
	r.end()
	r.dumps = 0
	r.open(t)
	must(r.driver.Recover(t.Context()))(t)
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a dump: %v", err)
	}
	here(uuids[2], true)
	if err := r.driver.CrashDump(t.Context(), uuids[2]); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("no room at all: %v", err)
	}
	for _, uuid := range uuids {
		check(t, r.driver.Destroy(t.Context(), uuid))
		here(uuid, false)
	}
}

// A quiet guest stands still; what it had written before is on the disk.
func TestQuiesceHoldsStill(t *testing.T) {
	r := newRig(t)
	req := request()
	check(t, r.driver.Spawn(t.Context(), req))
	check(t, r.driver.Quiesce(t.Context(), req.UUID))
	frozen := func() bool {
		group := must(r.host.Cgroups.Open(t.Context(), string(req.UUID)))(t)
		return must(group.Frozen(t.Context()))(t)
	}
	if !frozen() {
		t.Error("it runs on")
	}
	r.wantInfo(t, req.UUID, driver.Info{State: driver.PowerRunning})
	// the next life of the service lets it go
	r.end()
	r.open(t)
	must(r.driver.Recover(t.Context()))(t)
	r.wantInfo(t, req.UUID, driver.Info{State: driver.PowerRunning})
	if frozen() {
		t.Error("it stands still after a restart of the service")
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}
