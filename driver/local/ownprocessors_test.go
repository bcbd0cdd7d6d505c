package local_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/drivertest"
	"github.com/gantry-project/gantry/driver/local"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// runsOn waits until the guest's first process may run on these processors and
// on no other.
func (r *rig) runsOn(t *testing.T, uuid driver.InstanceUUID, want string) {
	t.Helper()
	got := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && got != want; {
		s, err := r.engine.State(t.Context(), engine.ContainerID(uuid))
		check(t, err)
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Process.Pid))
		check(t, err)
		_, rest, _ := strings.Cut(string(raw), "Cpus_allowed_list:")
		line, _, _ := strings.Cut(rest, "\n")
		got = strings.TrimSpace(line)
	}
	if got != want {
		t.Fatalf("it runs on %s, want %s", got, want)
	}
}

// TestProcessorsOfItsOwn: guests run where they shall, over stops, resizes and
// restarts of the service, also those that were there before.
func TestProcessorsOfItsOwn(t *testing.T) {
	var mask unix.CPUSet
	check(t, unix.SchedGetaffinity(0, &mask))
	var all []int
	for cpu := range 1024 {
		if mask.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	if len(all) < 2 {
		t.Fatalf("processors %v: the test needs two", all)
	}
	a, b := strconv.Itoa(all[0]), strconv.Itoa(all[1])
	r := newRig(t)
	ctx := t.Context()
	spawn := func(processors ...int) driver.SpawnRequest {
		t.Helper()
		req := request()
		req.UUID, req.Network, req.Events = drivertest.NewUUID(), drivertest.Ready(port(t)), &drivertest.Events{}
		req.Flavor.VCPUs, req.Flavor.Processors = 1, processors
		check(t, r.driver.Spawn(ctx, req))
		return req
	}
	floats := spawn()
	next := func() {
		t.Helper()
		r.end()
		r.open(t)
		here, err := r.driver.Recover(ctx)
		if err != nil || !slices.Contains(here, floats.UUID) {
			t.Fatalf("Recover = %v, %v", here, err)
		}
	}
	var err error
	r.dedicated, r.shared, err = local.ParseProcessors(b, a)
	check(t, err)
	next()
	r.runsOn(t, floats.UUID, a)
	own := spawn(all[1])
	r.runsOn(t, own.UUID, b)

	check(t, r.driver.PowerOff(ctx, own.UUID, driver.PowerOffOptions{}))
	next()
	check(t, r.driver.PowerOn(ctx, driver.PowerOnRequest{UUID: own.UUID}))
	r.runsOn(t, own.UUID, b)
	check(t, r.driver.Destroy(ctx, own.UUID))

	to := floats
	to.Flavor.Processors = []int{all[1]}
	info, err := r.driver.MigrateDiskAndPowerOff(ctx, driver.MigrateRequest{UUID: floats.UUID, Old: floats.Flavor, New: to.Flavor})
	check(t, err)
	check(t, r.driver.FinishMigration(ctx, driver.FinishMigrationRequest{SpawnRequest: to, DiskInfo: info, Old: floats.Flavor, PowerOn: true}))
	r.runsOn(t, floats.UUID, b)
	next() // it is not taken for one that floats
	r.runsOn(t, floats.UUID, b)
	check(t, r.driver.FinishRevertMigration(ctx, driver.RevertMigrationRequest{UUID: floats.UUID, Flavor: floats.Flavor, PowerOn: true}))
	r.runsOn(t, floats.UUID, a)
	r.dedicated, r.shared = nil, nil
	next()
	if s := must(r.engine.State(ctx, engine.ContainerID(floats.UUID)))(t); s.Limits.CPUSet != "" {
		t.Errorf("without sets it is kept to %q", s.Limits.CPUSet)
	}
}

// TestUnverifiedImages: where signatures are to be verified nothing boots, and
// the image is not even fetched.
func TestUnverifiedImages(t *testing.T) {
	r := newRig(t)
	r.refuse = true
	r.end()
	r.open(t)
	before := r.residue(t)
	for _, tt := range []struct{ signature, says string }{{"", "has no signature"}, {"c2lnbmVk", "cannot be verified"}} {
		req := request()
		req.UUID, req.Network, req.Events = drivertest.NewUUID(), drivertest.Ready(nil), &drivertest.Events{}
		req.Image.Properties = map[string]string{"img_signature": tt.signature}
		for what, err := range map[string]error{"Spawn": r.driver.Spawn(t.Context(), req), "Prepare": r.driver.Prepare(t.Context(), req)} {
			if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(errdefs.PublicText(err, ""), tt.says) {
				t.Errorf("%s with signature %q: %v", what, tt.signature, err)
			}
		}
	}
	if n := r.images.opens.Load(); n != 0 {
		t.Errorf("%d images were fetched", n)
	}
	asBefore(t, r, before)
}
