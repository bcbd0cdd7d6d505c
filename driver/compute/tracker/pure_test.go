package tracker

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/driver/placement"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestFit(t *testing.T) {
	have := driver.Resources{VCPUs: 4, MemoryMB: 8000, DiskGB: 100}
	now := totals{vcpus: 16, memoryMB: 9000, diskMB: 90 * 1024}
	tests := []struct {
		name   string
		want   usage
		limits string
		err    error
		says   string
	}{
		{"fits; the sum is placement's affair", usage{vcpus: 4, memoryMB: 8000, diskMB: 100 * 1024}, `{}`, nil, ""},
		{"nothing", usage{}, `null`, nil, ""},
		{"too much memory", usage{memoryMB: 8001}, ``, errdefs.ErrExhausted, "memory"},
		{"too many CPUs", usage{vcpus: 5}, ``, errdefs.ErrExhausted, "vcpus"},
		{"too much disk", usage{diskMB: 100*1024 + 1}, ``, errdefs.ErrExhausted, "disk"},
		{"negative", usage{vcpus: -1}, ``, errdefs.ErrInvalid, ""},
		{"at the limit", usage{memoryMB: 1000}, `{"memory_mb": 10000.0, "vcpu": null}`, nil, ""},
		{"above the limit", usage{memoryMB: 1001}, `{"memory_mb": 10000}`, errdefs.ErrExhausted, "memory"},
		{"disk above the limit", usage{diskMB: 11 * 1024}, `{"disk_gb": 100}`, errdefs.ErrExhausted, "disk"},
		{"limits as an object", usage{vcpus: 1}, `{"nova_object.name": "SchedulerLimits", "nova_object.data": {"vcpu": 16}}`, errdefs.ErrExhausted, "vcpus"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := parseLimits(json.RawMessage(tt.limits))
			if err != nil {
				t.Fatal(err)
			}
			err = fit(tt.want, have, now, l)
			if !errors.Is(err, tt.err) {
				t.Fatalf("fit = %v", err)
			}
			public := errdefs.PublicText(err, "")
			if !strings.Contains(public, tt.says) || strings.ContainsAny(public, "0123456789") {
				t.Errorf("public text %q", public)
			}
		})
	}
}

func FuzzParseLimits(f *testing.F) {
	for _, s := range []string{``, `null`, `{}`, `{"memory_mb": 1.5}`, `{"nova_object.data": {"vcpu": 3}}`, `[]`, `{"vcpu": "x"}`, `{"nova_object.data": 1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := parseLimits(raw); err != nil && !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("error of no class: %v", err)
		}
	})
}

func TestUsageOf(t *testing.T) {
	inst := instance("a", "", "building")
	inst.Object("flavor").SetClean("swap", 512)
	inst.Object("flavor").SetClean("ephemeral_gb", 2)
	if got := usageOf(inst); got.diskMB != 12*1024+512 || got.memoryMB != 512 || got.vcpus != 1 || got.project != "p1" {
		t.Errorf("usage = %+v", got)
	}
	inst.SetClean("image_ref", "")
	if got := usageOf(inst); got.diskMB != 2*1024+512 {
		t.Errorf("booted from a volume: %+v", got)
	}
	inst.Unset("flavor")
	inst.SetClean("memory_mb", 64)
	if got := usageOf(inst); got.memoryMB != 64 {
		t.Errorf("without flavor: %+v", got)
	}
}

func TestStatistics(t *testing.T) {
	used := map[string]usage{
		"a": {vmState: "building", taskState: "spawning", project: "p1"},
		"b": {vmState: "active", project: "p1", os: "linux"},
	}
	stats, workload := statistics(used, 3)
	want := map[string]string{
		"failed_builds": "3", "num_instances": "2", "num_vm_building": "1", "num_vm_active": "1", "num_task_spawning": "1",
		"num_task_None": "1", "num_os_type_None": "1", "num_os_type_linux": "1", "num_proj_p1": "2", "io_workload": "2",
	}
	if d := cmp.Diff(want, stats); d != "" || workload != 1 {
		t.Errorf("workload %d, stats %s", workload, d)
	}
	if stats, _ := statistics(nil, 0); !maps.Equal(stats, map[string]string{"failed_builds": "0"}) {
		t.Errorf("an empty host: %v", stats)
	}
}

func TestWanted(t *testing.T) {
	o := DefaultOptions()
	o.ReservedDiskMB, o.ReservedCPUs, o.CPURatio = 1025, 1, 4
	r := driver.Resources{Node: "n", VCPUs: 8, MemoryMB: 16000, Traits: []string{"CUSTOM_HV_CONTAINER"}, OwnTraits: []string{"HW_CPU_X86_VMX"}}
	got := wanted(o, nodeUUID, r, false)
	want := placement.Wanted{
		UUID: nodeUUID, Name: "n",
		Inventories: map[string]placement.Inventory{
			"VCPU":      {Total: 8, Reserved: 1, AllocationRatio: 4, InitialRatio: 16},
			"MEMORY_MB": {Total: 16000, Reserved: 512, InitialRatio: 1.5},
		},
		Traits: []string{"COMPUTE_NODE", "OWNER_NOVA", "CUSTOM_HV_CONTAINER"}, Owned: append(placement.ServiceTraits(), "HW_CPU_X86_VMX"),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	r.DiskGB = 10
	got = wanted(o, nodeUUID, r, true)
	if got.Inventories["DISK_GB"].Reserved != 2 || !slices.Contains(got.Traits, placement.TraitDisabled) {
		t.Errorf("disabled: %+v", got)
	}
}

func TestApplyMarksOnlyDifferences(t *testing.T) {
	fields := nodeFields(DefaultOptions(), snapshot{resources: newHost().res}, false)
	row := objects.NewComputeNode(nodeUUID, "cmp1", "cmp1").Wire()
	apply(row, fields)
	row = clone(row)
	row.SetClean("cpu_allocation_ratio", json.Number("16.0"))
	row.SetClean("vcpus", json.Number("4.0"))
	fields["cpu_allocation_ratio"] = 16.0
	apply(row, fields)
	if c := row.Changes(); len(c) != 0 {
		t.Errorf("the same again changes %v", c)
	}
	fields["running_vms"] = 7
	fields["stats"] = map[string]string{"failed_builds": "1"}
	fields["supported_hv_specs"] = hvSpecs([]driver.HVSpec{{Arch: "aarch64", HVType: "docker", VMMode: "exe"}})
	apply(row, fields)
	if want := []string{"running_vms", "stats", "supported_hv_specs"}; !slices.Equal(row.Changes(), want) {
		t.Errorf("changes %v, want %v", row.Changes(), want)
	}
}

func node(uuid, host, name string) *objects.Object {
	return clone(objects.NewComputeNode(uuid, host, name).Wire())
}

func TestIdentify(t *testing.T) {
	const other = "11111111-3560-4864-9006-583d6dd61bbd"
	tests := []struct {
		name  string
		e     evidence
		id    string
		write bool
		err   string
	}{
		{"new host", evidence{}, "", true, ""},
		{"new host with a file", evidence{file: nodeUUID}, nodeUUID, false, ""},
		{"host of stock Zed", evidence{previous: 64, byName: node(other, "cmp1", "cmp1")}, other, true, ""},
		{"restart", evidence{previous: 64, file: nodeUUID, byName: node(nodeUUID, "cmp1", "cmp1"), guests: 3}, nodeUUID, false, ""},
		{"record deleted", evidence{previous: 64, file: nodeUUID, guests: 3}, nodeUUID, false, ""},
		{"guests of an unknown host", evidence{file: nodeUUID, guests: 1}, "", false, "no service record"},
		{"file lost", evidence{previous: 66, byName: node(nodeUUID, "cmp1", "cmp1")}, "", false, "is missing"},
		{"file of another machine", evidence{previous: 64, file: nodeUUID, byName: node(other, "cmp1", "cmp1")}, "", false, "holds"},
		{"host renamed", evidence{file: nodeUUID, byFile: node(nodeUUID, "cmp0", "cmp1")}, "", false, "belongs to host"},
		{"machine renamed", evidence{previous: 64, file: nodeUUID, byFile: node(nodeUUID, "cmp1", "old")}, "", false, "node name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.e.host, tt.e.node = "cmp1", "cmp1"
			id, write, err := identify(tt.e)
			if tt.err != "" {
				if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("identify = %v", err)
				}
				return
			}
			if err != nil || id != tt.id || write != tt.write {
				t.Errorf("identify = %q, %v, %v", id, write, err)
			}
		})
	}
}

func TestIdentityFile(t *testing.T) {
	dir := t.TempDir()
	if id, err := readIdentity(dir); id != "" || err != nil {
		t.Errorf("no file: %q, %v", id, err)
	}
	if err := writeIdentity(dir, nodeUUID); err != nil {
		t.Fatal(err)
	}
	if id, err := readIdentity(dir); id != nodeUUID || err != nil {
		t.Errorf("read %q, %v", id, err)
	}
	for _, bad := range []string{"", "\n", "x", nodeUUID + nodeUUID, "{" + nodeUUID + "}", strings.Repeat("\x00", 36)} {
		if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readIdentity(dir); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("content %q: %v", bad, err)
		}
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add(nodeUUID + "\n")
	f.Add("x")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := parseIdentity(text)
		if err == nil && len(id) != 36 {
			t.Errorf("accepted %q as %q", text, id)
		}
	})
}
