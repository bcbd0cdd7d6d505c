package tracker

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
)

// snapshot is everything that the compute node record is made of.
type snapshot struct {
	resources    driver.Resources
	used         map[string]usage
	failedBuilds int
}

// nodeFields computes the record's fields that are ours to write: not mapped,
// which is the control plane's. A record is new until it has been created.
func nodeFields(o Options, s snapshot, isNew bool) map[string]any {
	r, t := s.resources, sum(o, s.used)
	stats, workload := statistics(s.used, s.failedBuilds)
	fields := map[string]any{
		"host_ip":              o.MyIP,
		"vcpus":                r.VCPUs,
		"memory_mb":            r.MemoryMB,
		"local_gb":             r.DiskGB,
		"vcpus_used":           t.vcpus,
		"memory_mb_used":       t.memoryMB,
		"local_gb_used":        t.diskGB(),
		"disk_available_least": r.DiskFreeGB,
		"hypervisor_type":      r.HypervisorType,
		"hypervisor_version":   r.HypervisorVersion,
		"cpu_info":             r.CPUInfo,
		"stats":                stats,
		"numa_topology":        numaTopology(r.Cells, s.used),
		"supported_hv_specs":   hvSpecs(r.Supported),
	}
	ratios(o, fields, isNew)
	if isNew {
		return fields // the rest comes with the first save, as stock does it
	}
	fields["free_ram_mb"] = r.MemoryMB - t.memoryMB
	fields["free_disk_gb"] = r.DiskGB - t.diskGB()
	fields["running_vms"] = t.instances
	fields["current_workload"] = workload
	fields["metrics"] = "[]"
	return fields
}

// ratios sets the configured allocation ratios; a new record gets the initial
// ones where none is configured, an old one keeps what it has.
func ratios(o Options, fields map[string]any, isNew bool) {
	for _, r := range []struct {
		field               string
		configured, initial float64
	}{
		{"cpu_allocation_ratio", o.CPURatio, o.InitialCPURatio},
		{"ram_allocation_ratio", o.RAMRatio, o.InitialRAMRatio},
		{"disk_allocation_ratio", o.DiskRatio, o.InitialDiskRatio},
	} {
		switch {
		case r.configured > 0:
			fields[r.field] = r.configured
		case isNew && r.initial > 0:
			fields[r.field] = r.initial
		}
	}
}

func hvSpecs(specs []driver.HVSpec) []*objects.Object {
	out := make([]*objects.Object, len(specs))
	for i, s := range specs {
		out[i] = objects.NewHVSpec(s.Arch, s.HVType, s.VMMode).Wire()
	}
	return out
}

// apply sets those of the fields that differ, so that the row does not churn.
func apply(row *objects.Object, fields map[string]any) {
	scratch := &objects.Object{}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		scratch.SetClean(name, fields[name])
		if !row.Has(name) || !same(row.Get(name), scratch.Get(name)) {
			row.Set(name, fields[name])
		}
	}
}

// same compares two field values; the marks of nested objects and the form of
// numbers do not count.
func same(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && sameNumber(a, b)
	case *objects.Object:
		b, ok := b.(*objects.Object)
		return ok && sameObject(a, b)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, same)
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, same)
	}
	switch b.(type) {
	case json.Number, *objects.Object, []any, map[string]any:
		return false
	}
	return a == b
}

func sameNumber(a, b json.Number) bool {
	if a == b {
		return true
	}
	x, errA := a.Float64()
	y, errB := b.Float64()
	return errA == nil && errB == nil && x == y
}

func sameObject(a, b *objects.Object) bool {
	if a == nil || b == nil {
		return a == b
	}
	if a.Name != b.Name || !slices.Equal(a.Fields(), b.Fields()) {
		return false
	}
	for _, f := range a.Fields() {
		if !same(a.Get(f), b.Get(f)) {
			return false
		}
	}
	return true
}
