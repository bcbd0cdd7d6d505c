package tracker

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/driver/placement"
	"github.com/gantry-project/gantry/internal/errdefs"
)

var admin = messaging.AdminContext()

func TestFirstStart(t *testing.T) {
	c := newCloud()
	tr := started(t, c, newHost())
	row := c.row(t)
	want := map[string]int64{
		"vcpus": 4, "memory_mb": 8000, "local_gb": 100, "memory_mb_used": 512, "free_ram_mb": 7488, "free_disk_gb": 100,
		"running_vms": 0, "disk_available_least": 90, "hypervisor_version": 1000,
	}
	for field, n := range want {
		if !row.Has(field) || row.Int(field) != n {
			t.Errorf("%s = %v, want %d", field, row.Get(field), n)
		}
	}
	if row.String("uuid") != tr.NodeUUID() || row.Float("ram_allocation_ratio") != 1.5 || row.Get("cpu_info") != "" {
		t.Errorf("row %v", row)
	}
	if c.provider.UUID != tr.NodeUUID() || c.provider.Name != "cmp1" || !slices.Contains(c.provider.Traits, placement.TraitComputeNode) {
		t.Errorf("provider %+v", c.provider)
	}
	if err := tr.UpdateAvailableResource(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := c.saved(); n != 1 {
		t.Errorf("%d saves, the second survey changed nothing", n)
	}
}

func TestIdentitySurvivesALostRecord(t *testing.T) {
	c, h := newCloud(), newHost()
	tr := started(t, c, h)
	c.nodes = nil
	again := New(Deps{Driver: h, Conductor: c, Reporter: c}, tr.opts, tr.log)
	if err := again.Identify(t.Context(), 64); err != nil {
		t.Fatal(err)
	}
	if err := again.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again.NodeUUID() != tr.NodeUUID() || c.row(t).String("uuid") != tr.NodeUUID() {
		t.Errorf("uuid %s became %s", tr.NodeUUID(), again.NodeUUID())
	}
}

func TestIdentifyNeedsAnAnswer(t *testing.T) {
	c := newCloud()
	c.fail["node"] = errAway
	tr := newTracker(t, c, newHost())
	if err := tr.Identify(t.Context(), 0); !errors.Is(err, errAway) {
		t.Errorf("Identify = %v", err)
	}
	if id, err := readIdentity(tr.opts.StatePath); id != "" || err != nil {
		t.Errorf("a file was written: %q, %v", id, err)
	}
	if err := tr.Init(t.Context()); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("Init = %v", err)
	}
}

func TestLostCreateReply(t *testing.T) {
	c := newCloud()
	tr := newTracker(t, c, newHost())
	if err := tr.Identify(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	c.fail["create"] = messaging.ErrTimeout
	if err := tr.Init(t.Context()); !errors.Is(err, messaging.ErrTimeout) {
		t.Fatalf("Init = %v", err)
	}
	delete(c.fail, "create")
	c.nodes = append(c.nodes, node(tr.NodeUUID(), "cmp1", "cmp1")) // it was done after all
	if err := tr.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.row(t).Int("free_ram_mb") != 7488 {
		t.Error("the found record was not brought up to date")
	}
}

func TestClaim(t *testing.T) {
	c := newCloud()
	tr := started(t, c, newHost())
	small := c.add(instance("a", "", "building"), tr.NodeUUID())
	big := c.add(instance("b", "", "building"), tr.NodeUUID())
	big.Object("flavor").SetClean("memory_mb", 8001)
	foreign := c.add(instance("c", "", "building"), "another provider")
	tests := []struct {
		name string
		inst *objects.Object
		req  compute.ClaimRequest
		err  error
	}{
		{"larger than the host", big, compute.ClaimRequest{Node: "cmp1"}, errdefs.ErrExhausted},
		{"unknown node", small, compute.ClaimRequest{Node: "cmp2"}, errdefs.ErrInvalid},
		{"allocated elsewhere", foreign, compute.ClaimRequest{Node: "cmp1"}, errdefs.ErrExhausted},
		{"not allocated", instance("d", "", "building"), compute.ClaimRequest{Node: "cmp1"}, errdefs.ErrExhausted},
		{"bad limits", small, compute.ClaimRequest{Limits: json.RawMessage(`[`)}, errdefs.ErrInvalid},
		{"fits", small, compute.ClaimRequest{Node: "cmp1", Limits: json.RawMessage(`{}`)}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			release, err := tr.Claim(t.Context(), admin, tt.inst, tt.req)
			if !errors.Is(err, tt.err) {
				t.Fatalf("Claim = %v", err)
			}
			if err != nil && len(tr.used) != 0 {
				t.Errorf("a refused claim counts: %v", tr.used)
			}
			if err == nil {
				release(t.Context())
				release(t.Context())
			}
		})
	}
	if len(tr.used) != 0 {
		t.Errorf("after release: %v", tr.used)
	}
	c.fail["providers"] = errAway
	if _, err := tr.Claim(t.Context(), admin, small, compute.ClaimRequest{Node: "cmp1"}); err != nil {
		t.Errorf("placement is away: %v", err)
	}
}

func TestClaimOutlivesASurveyThatDoesNotShowIt(t *testing.T) {
	c := newCloud()
	tr := started(t, c, newHost())
	inst := c.add(instance("a", "", "building"), tr.NodeUUID())
	release, err := tr.Claim(t.Context(), admin, inst, compute.ClaimRequest{Node: "cmp1"})
	if err != nil {
		t.Fatal(err)
	}
	survey := func(want int64) {
		t.Helper()
		if err := tr.UpdateAvailableResource(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.row(t).Int("memory_mb_used"); got != want {
			t.Errorf("memory_mb_used = %d, want %d", got, want)
		}
	}
	survey(1024) // the row has no host yet
	inst.SetClean("host", "cmp1")
	inst.SetClean("node", "cmp1")
	survey(1024)
	if len(tr.claims) != 0 {
		t.Error("the claim did not become ordinary usage")
	}
	release(t.Context())
	inst.SetClean("host", nil)
	survey(512)
}

func TestDropDuringASurvey(t *testing.T) {
	c := newCloud()
	tr := started(t, c, newHost())
	inst := c.add(instance("a", "cmp1", "active"), tr.NodeUUID())
	c.listing = func() {
		if err := tr.Drop(t.Context(), admin, inst); err != nil {
			t.Error(err)
		}
	}
	if err := tr.UpdateAvailableResource(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(tr.used) != 0 || c.row(t).Int("running_vms") != 0 {
		t.Errorf("the dropped instance counts: %v", tr.used)
	}
	if err := tr.Drop(t.Context(), admin, inst); err != nil {
		t.Errorf("a second drop: %v", err)
	}
	c.fail["delete"] = errAway
	if err := tr.Drop(t.Context(), admin, inst); !errors.Is(err, errAway) {
		t.Errorf("placement away: %v", err)
	}
}

func TestUpdate(t *testing.T) {
	c := newCloud()
	tr := started(t, c, newHost())
	inst := instance("a", "cmp1", "active")
	step := func(name string, want int) {
		t.Helper()
		if err := tr.Update(t.Context(), admin, inst); err != nil {
			t.Fatal(err)
		}
		if len(tr.used) != want {
			t.Errorf("%s: %v", name, tr.used)
		}
	}
	step("ours", 1)
	inst.SetClean("vm_state", "shelved_offloaded")
	step("offloaded", 0)
	inst.SetClean("vm_state", "active")
	step("back", 1)
	inst.SetClean("host", "cmp2")
	step("moved away", 0)
}

func TestSurveyNeedsAList(t *testing.T) {
	c := newCloud()
	tr := started(t, c, newHost())
	c.add(instance("a", "cmp1", "active"), tr.NodeUUID())
	if err := tr.UpdateAvailableResource(t.Context()); err != nil {
		t.Fatal(err)
	}
	saves, syncs := c.saved(), c.syncs
	c.fail["list"] = errAway
	if err := tr.UpdateAvailableResource(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("survey = %v", err)
	}
	if len(tr.used) != 1 || c.saved() != saves || c.syncs != syncs {
		t.Error("a list that did not come changed something")
	}
}

func TestPlacementAndRecordFailApart(t *testing.T) {
	c, h := newCloud(), newHost()
	tr := started(t, c, h)
	h.res.MemoryMB = 9000
	c.fail["sync"] = errAway
	if err := tr.UpdateAvailableResource(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("survey = %v", err)
	}
	if c.row(t).Int("memory_mb") != 9000 {
		t.Error("the record waits for placement")
	}
	c.fail = map[string]error{"save": errdefs.ErrUnavailable}
	h.res.MemoryMB = 7000
	if err := tr.UpdateAvailableResource(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("survey = %v", err)
	}
	if c.provider.Inventories["MEMORY_MB"].Total != 7000 {
		t.Error("placement waits for the record")
	}
	c.fail = map[string]error{}
	if err := tr.UpdateAvailableResource(t.Context()); err != nil || c.row(t).Int("memory_mb") != 7000 {
		t.Errorf("the record did not catch up: %v", err)
	}
}

func TestNodeNameMustNotChange(t *testing.T) {
	c, h := newCloud(), newHost()
	tr := started(t, c, h)
	h.res.Node = "other"
	if err := tr.UpdateAvailableResource(t.Context()); !errors.Is(err, errdefs.ErrConflict) || c.provider.Name != "cmp1" {
		t.Errorf("survey = %v", err)
	}
}

func TestHeal(t *testing.T) {
	c, h := newCloud(), newHost()
	gone := instance("gone", "cmp1", "deleted")
	gone.SetClean("deleted", true)
	hidden := instance("hidden", "cmp1", "deleted")
	hidden.SetClean("deleted", true)
	hidden.SetClean("hidden", true)
	setup := func(tr *Tracker) {
		id := tr.NodeUUID()
		for _, inst := range []*objects.Object{
			gone, hidden, instance("ours", "cmp1", "active"), instance("scheduled", "", "building"), instance("theirs", "cmp2", "active"),
		} {
			c.add(inst, id)
		}
		c.allocations["a migration"] = []string{id}
	}
	tr := started(t, c, h)
	setup(tr)
	if err := tr.UpdateAvailableResource(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"gone"}; !slices.Equal(c.released, want) {
		t.Errorf("released %v, want %v", c.released, want)
	}

	for _, verb := range []string{"consumers", "get", "release"} {
		c.released = nil
		c.allocations["gone"] = []string{tr.NodeUUID()}
		c.fail = map[string]error{verb: errAway}
		if err := tr.UpdateAvailableResource(t.Context()); !errors.Is(err, errAway) || c.released != nil {
			t.Errorf("%s: %v, released %v", verb, err, c.released)
		}
	}
	c.fail = map[string]error{"release": errdefs.ErrConflict}
	if err := tr.UpdateAvailableResource(t.Context()); err != nil {
		t.Errorf("conflict: %v", err)
	}
}

func TestHealNotOnAnEmptyAccount(t *testing.T) {
	c, h := newCloud(), newHost()
	tr := started(t, c, h)
	gone := instance("gone", "cmp1", "deleted")
	gone.SetClean("deleted", true)
	c.add(gone, tr.NodeUUID())
	h.guests = []driver.InstanceUUID{"x"}
	if err := tr.UpdateAvailableResource(t.Context()); err != nil || c.released != nil {
		t.Errorf("%v, released %v", err, c.released)
	}
	h.guests = nil
	if err := tr.UpdateAvailableResource(t.Context()); err != nil || len(c.released) != 1 {
		t.Errorf("%v, released %v", err, c.released)
	}
}

func TestSetHostEnabled(t *testing.T) {
	c := newCloud()
	tr := started(t, c, newHost())
	for _, enabled := range []bool{false, true} {
		if err := tr.SetHostEnabled(t.Context(), admin, enabled); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(c.provider.Traits, placement.TraitDisabled) == enabled {
			t.Errorf("enabled %v: traits %v", enabled, c.provider.Traits)
		}
	}
	c.fail["sync"] = errAway
	if err := tr.SetHostEnabled(t.Context(), admin, false); !errors.Is(err, errAway) {
		t.Errorf("placement away: %v", err)
	}
	delete(c.fail, "sync")
	if err := tr.UpdateAvailableResource(t.Context()); err != nil || !slices.Contains(c.provider.Traits, placement.TraitDisabled) {
		t.Errorf("not caught up: %v", err)
	}
}

func TestRunCollectsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud()
		tr := started(t, c, newHost())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tr.Run(ctx) }()
		before := c.saved()
		for _, uuid := range []string{"a", "b", "c"} {
			inst := c.add(instance(uuid, "", "building"), tr.NodeUUID())
			if _, err := tr.Claim(ctx, admin, inst, compute.ClaimRequest{Node: "cmp1"}); err != nil {
				t.Fatal(err)
			}
		}
		tr.BuildEnded(ctx, "cmp1", true)
		<-time.After(3 * time.Second)
		if n := c.saved() - before; n != 1 {
			t.Errorf("%d saves for one burst", n)
		}
		if row := c.row(t); row.Int("running_vms") != 3 || row.Strings("stats")["failed_builds"] != "1" {
			t.Errorf("row %v", row)
		}
		c.mu.Lock()
		c.fail["save"] = errAway
		c.mu.Unlock()
		tr.BuildEnded(ctx, "cmp1", false)
		<-time.After(3 * time.Second)
		c.mu.Lock()
		delete(c.fail, "save")
		c.mu.Unlock()
		if err := tr.UpdateAvailableResource(ctx); err != nil {
			t.Error(err)
		}
		if row := c.row(t); row.Strings("stats")["failed_builds"] != "0" {
			t.Errorf("a failed save was not made up for: %v", row.Strings("stats"))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
