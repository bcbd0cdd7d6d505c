package tracker

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// pinning is a host that gives processors 2 and 3 away.
func pinning() *host {
	h := newHost()
	h.res.Cells = []driver.Cell{{
		Socket: -1, MemoryMB: 8000, PageKB: 4, Shared: []int{0, 1}, Dedicated: []int{2, 3}, Siblings: [][]int{{0}, {1}, {2}, {3}},
	}}
	return h
}

// withSpecs gives an instance's flavor extra specs.
func withSpecs(inst *objects.Object, specs map[string]string) *objects.Object {
	inst.Object("flavor").SetClean("extra_specs", specs)
	return inst
}

var dedicated = map[string]string{"hw:cpu_policy": "dedicated"}

// take claims, and returns the processors.
func take(t *testing.T, tr *Tracker, inst *objects.Object) ([]int, error) {
	t.Helper()
	_, err := tr.Claim(t.Context(), admin, inst, compute.ClaimRequest{Node: "cmp1", Took: func(topology *objects.Object) {
		inst.SetClean("numa_topology", topology)
	}})
	return objects.InstanceNUMATopology{Object: inst.Object("numa_topology")}.Processors(), err
}

func TestProcessorsAreGivenOnce(t *testing.T) {
	c := newCloud()
	tr := started(t, c, pinning())
	if inv := c.provider.Inventories; inv["PCPU"].Total != 2 || inv["PCPU"].AllocationRatio != 1 || inv["PCPU"].Reserved != 0 || inv["VCPU"].Total != 2 {
		t.Errorf("inventories %+v", inv)
	}
	add := func(uuid string, specs map[string]string) *objects.Object {
		return c.add(withSpecs(instance(uuid, "cmp1", "active"), specs), tr.NodeUUID())
	}
	a, b, third := add("a", dedicated), add("b", map[string]string{"resources:PCPU": "1"}), add("c", dedicated)
	first, err := take(t, tr, a)
	second, err2 := take(t, tr, b)
	if err != nil || err2 != nil || !slices.Equal(first, []int{2}) || !slices.Equal(second, []int{3}) {
		t.Fatalf("%v %v, %v %v", first, err, second, err2)
	}
	if got, err := take(t, tr, third); !errors.Is(err, errdefs.ErrExhausted) || got != nil || errdefs.PublicText(err, "") == "" {
		t.Errorf("a third: %v %v", got, err)
	}
	if got, err := take(t, tr, a); err != nil || !slices.Equal(got, first) {
		t.Errorf("again: %v %v", got, err)
	}
	c.mu.Lock()
	delete(c.instances, "c")
	c.mu.Unlock()

	// a service that starts knows them from the rows
	again := New(tr.deps, tr.opts, tr.log)
	if err := again.Identify(t.Context(), 64); err != nil {
		t.Fatal(err)
	}
	if err := again.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := take(t, again, c.add(withSpecs(instance("c", "", "building"), dedicated), again.NodeUUID())); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("after a restart: %v %v", got, err)
	}
	var topology objects.Object
	if err := json.Unmarshal([]byte(c.row(t).String("numa_topology")), &topology); err != nil {
		t.Fatal(err)
	}
	cell := topology.Objects("cells")[0]
	if pinned, _ := json.Marshal(cell.Get("pinned_cpus")); string(pinned) != "[2,3]" || cell.Int("memory_usage") != 1024 {
		t.Errorf("the record says pinned %s, memory %d", pinned, cell.Int("memory_usage"))
	}

	// what comes without the topology says nothing against it
	seen := instance("a", "cmp1", "active")
	if err := again.Update(t.Context(), admin, withSpecs(seen, dedicated)); err != nil {
		t.Fatal(err)
	}
	if got := again.used["a"].pins; got != "2" {
		t.Errorf("after an update: %q", got)
	}
	if err := again.Drop(t.Context(), admin, b); err != nil {
		t.Fatal(err)
	}
	if got, err := take(t, again, c.instances["c"]); err != nil || !slices.Equal(got, []int{3}) {
		t.Errorf("after a delete: %v %v", got, err)
	}
}

// A resize has both sets until it is over.
func TestProcessorsOfAMove(t *testing.T) {
	c := newCloud()
	tr := started(t, c, pinning())
	inst := c.add(withSpecs(instance("a", "cmp1", "active"), dedicated), tr.NodeUUID())
	if _, err := take(t, tr, inst); err != nil {
		t.Fatal(err)
	}
	old := inst.Object("numa_topology")
	inst.SetClean("new_flavor", inst.Object("flavor").Clone())
	mig := objects.New("Migration")
	for field, value := range map[string]any{
		"uuid": "m", "instance_uuid": "a", "source_compute": "cmp1", "dest_compute": "cmp1", "status": "migrating", "migration_type": "resize",
	} {
		mig.SetClean(field, value)
	}
	var topology *objects.Object
	if _, err := tr.ClaimMove(t.Context(), admin, inst, mig, compute.ClaimRequest{Node: "cmp1", Took: func(o *objects.Object) { topology = o }}); err != nil {
		t.Fatal(err)
	}
	if got := (objects.InstanceNUMATopology{Object: topology}).Processors(); !slices.Equal(got, []int{3}) {
		t.Errorf("the resize gets %v", got)
	}
	ctx := objects.New("MigrationContext")
	ctx.SetClean("old_numa_topology", old)
	ctx.SetClean("new_numa_topology", topology)
	inst.SetClean("migration_context", ctx)
	inst.SetClean("old_flavor", inst.Object("flavor"))
	c.migrations = []*objects.Object{mig}
	other := c.add(withSpecs(instance("b", "", "building"), dedicated), tr.NodeUUID())
	for _, at := range []struct {
		vm, task any
		has      *objects.Object
	}{{"active", "resize_prep", old}, {"active", "resize_migrated", old}, {"active", "resize_finish", topology}, {"resized", nil, topology}} {
		inst.SetClean("vm_state", at.vm)
		inst.SetClean("task_state", at.task)
		inst.SetClean("numa_topology", at.has)
		tr.CountMove(inst, mig)
		if err := tr.UpdateAvailableResource(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := take(t, tr, other); !errors.Is(err, errdefs.ErrExhausted) {
			t.Errorf("%v %v: another gets %v %v", at.vm, at.task, got, err)
		}
	}
	inst.SetClean("vm_state", "active")
	inst.SetClean("migration_context", nil)
	mig.SetClean("status", "confirmed")
	tr.CountMove(inst, mig)
	if got, err := take(t, tr, other); err != nil || !slices.Equal(got, []int{2}) {
		t.Errorf("confirmed: another gets %v %v", got, err)
	}
}

func TestChoose(t *testing.T) {
	two := driver.Cell{ID: 1, Shared: []int{0}, Dedicated: []int{1, 2, 3, 4, 5}, Siblings: [][]int{{0, 1}, {2, 3}, {4, 5}}}
	flat := driver.Cell{ID: 0, Dedicated: []int{8, 9}, Siblings: [][]int{{8}, {9}}}
	for _, tt := range []struct {
		name   string
		cells  []driver.Cell
		taken  []int
		n      int
		thread string
		want   []int
	}{
		{"none", nil, nil, 1, "", nil},
		{"whole cores first", []driver.Cell{two}, nil, 2, "", []int{2, 3}},
		{"what is left", []driver.Cell{two}, []int{2, 4}, 3, "prefer", []int{1, 3, 5}},
		{"siblings", []driver.Cell{two}, []int{2}, 2, "require", []int{4, 5}},
		{"no siblings", []driver.Cell{flat}, nil, 1, "require", nil},
		{"alone on a core with threads", []driver.Cell{two}, nil, 1, "isolate", nil},
		{"alone on a core without", []driver.Cell{two, flat}, nil, 2, "isolate", []int{8, 9}},
		{"of one node", []driver.Cell{flat, two}, nil, 3, "", []int{2, 3, 4}},
		{"not of two nodes", []driver.Cell{flat, two}, nil, 6, "", nil},
	} {
		taken := map[int]bool{}
		for _, cpu := range tt.taken {
			taken[cpu] = true
		}
		_, got, ok := choose(tt.cells, taken, tt.n, tt.thread)
		slices.Sort(got)
		if ok != (tt.want != nil) || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v %t, want %v", tt.name, got, ok, tt.want)
		}
	}
}

func TestWish(t *testing.T) {
	for _, tt := range []struct {
		specs, image map[string]string
		n            int
		thread       string
		err          error
	}{
		{nil, nil, 0, "", nil},
		{map[string]string{"hw:cpu_policy": "shared"}, nil, 0, "", nil},
		{dedicated, nil, 1, "", nil},
		{nil, map[string]string{"image_hw_cpu_policy": "dedicated", "image_hw_cpu_thread_policy": "prefer"}, 1, "prefer", nil},
		{map[string]string{"resources:PCPU": "1", "trait:HW_CPU_HYPERTHREADING": "forbidden"}, nil, 1, "isolate", nil},
		{map[string]string{"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require"}, nil, 1, "require", nil},
		{map[string]string{"hw:cpu_policy": "mixed"}, nil, 0, "", errdefs.ErrUnsupported},
		{map[string]string{"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "isolate"}, nil, 0, "", errdefs.ErrUnsupported},
	} {
		inst := withSpecs(instance("a", "", "building"), tt.specs)
		inst.SetClean("system_metadata", tt.image)
		n, thread, err := wishFor(inst, inst.Object("flavor"))
		if n != tt.n || thread != tt.thread || !errors.Is(err, tt.err) {
			t.Errorf("%v %v: %d %q %v", tt.specs, tt.image, n, thread, err)
		}
	}
}

// The scheduler goes by the record, so a processor that is taken or free is
// there without the wait that collects other changes.
func TestProcessorsAreToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud()
		tr := started(t, c, pinning())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tr.Run(ctx) }()
		began := time.Now()
		plain := c.add(instance("p", "", "building"), tr.NodeUUID())
		if _, err := tr.Claim(ctx, admin, plain, compute.ClaimRequest{Node: "cmp1"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // Run collects
		before := c.saved()
		inst := c.add(withSpecs(instance("a", "cmp1", "active"), dedicated), tr.NodeUUID())
		if _, err := take(t, tr, inst); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := c.saved() - before; n != 1 || !strings.Contains(c.row(t).String("numa_topology"), `"pinned_cpus":[2]`) {
			t.Errorf("taken: %d saves, %s", n, c.row(t).String("numa_topology"))
		}
		if err := tr.Drop(ctx, admin, inst); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := c.saved() - before; n != 2 || !strings.Contains(c.row(t).String("numa_topology"), `"pinned_cpus":[]`) {
			t.Errorf("free: %d saves, %s", n, c.row(t).String("numa_topology"))
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %s", waited)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
