package tracker

import (
	"maps"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/placement"
)

// wanted computes what placement should say of the host: the driver's totals
// and traits, what every compute host says, and the disabled mark. Traits that
// a nova-compute before us may have set and that are not true go away; all
// others are somebody else's.
func wanted(o Options, id string, r driver.Resources, disabled bool) placement.Wanted {
	w := placement.Wanted{
		UUID: id, Name: r.Node,
		Inventories: map[string]placement.Inventory{},
		Traits:      append([]string{placement.TraitComputeNode, placement.TraitOwnerNova}, r.Traits...),
		Owned:       append(placement.ServiceTraits(), r.OwnTraits...),
	}
	for class, inv := range map[string]placement.Inventory{
		"VCPU":      {Total: r.VCPUs, Reserved: o.ReservedCPUs, AllocationRatio: o.CPURatio, InitialRatio: o.InitialCPURatio},
		"MEMORY_MB": {Total: r.MemoryMB, Reserved: o.ReservedMemoryMB, AllocationRatio: o.RAMRatio, InitialRatio: o.InitialRAMRatio},
		"DISK_GB":   {Total: r.DiskGB, Reserved: ceilGB(o.ReservedDiskMB), AllocationRatio: o.DiskRatio, InitialRatio: o.InitialDiskRatio},
	} {
		if inv.Total > 0 {
			w.Inventories[class] = inv
		}
	}
	if len(r.Cells) > 0 { // as libvirt's driver has it: of the sets, and no processor of its own is given twice
		var shared, dedicated int64
		for _, c := range r.Cells {
			shared, dedicated = shared+int64(len(c.Shared)), dedicated+int64(len(c.Dedicated))
		}
		vcpu := w.Inventories["VCPU"]
		vcpu.Total = shared
		w.Inventories["VCPU"] = vcpu
		w.Inventories["PCPU"] = placement.Inventory{Total: dedicated, AllocationRatio: 1}
		maps.DeleteFunc(w.Inventories, func(_ string, inv placement.Inventory) bool { return inv.Total == 0 })
	}
	if disabled {
		w.Traits = append(w.Traits, placement.TraitDisabled)
	}
	return w
}

// ceilGB converts MiB to GiB, rounded up (convert_mb_to_ceil_gb).
func ceilGB(mb int64) int64 { return (mb + 1023) / 1024 }
