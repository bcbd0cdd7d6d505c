package tracker

import (
	"slices"

	"github.com/gantry-project/gantry/driver"
)

const (
	traitNode     = "COMPUTE_NODE"
	traitDisabled = "COMPUTE_STATUS_DISABLED"
)

// provider computes what placement should say of the host.
func provider(o Options, id string, r driver.Resources, disabled bool) Provider {
	p := Provider{UUID: id, Name: r.Node, Inventories: map[string]Inventory{}}
	all := map[string]Inventory{
		"VCPU":      {r.VCPUs, o.ReservedCPUs, o.CPURatio, o.InitialCPURatio},
		"MEMORY_MB": {r.MemoryMB, o.ReservedMemoryMB, o.RAMRatio, o.InitialRAMRatio},
		"DISK_GB":   {r.DiskGB, ceilGB(o.ReservedDiskMB), o.DiskRatio, o.InitialDiskRatio},
	}
	for class, inv := range all {
		if inv.Total > 0 { // placement takes no empty inventory
			p.Inventories[class] = inv
		}
	}
	p.Traits = append([]string{traitNode}, r.Traits...)
	if disabled {
		p.Traits = append(p.Traits, traitDisabled)
	} else {
		p.NotTraits = []string{traitDisabled}
	}
	slices.Sort(p.Traits)
	p.Traits = slices.Compact(p.Traits)
	return p
}

// ceilGB converts MiB to GiB, rounded up (convert_mb_to_ceil_gb).
func ceilGB(mb int64) int64 { return (mb + 1023) / 1024 }
