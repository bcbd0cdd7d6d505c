package compute

import (
	"cmp"
	"context"
	"strings"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
)

// CPUPolicy is what a flavor asks of processors for the instance, with what the
// instance's image says where the flavor does not: "dedicated", "shared" or
// "mixed"; thread is "prefer", "isolate", "require" or empty. The API has seen to
// it that the two do not contradict each other. Source: nova/virt/hardware.py,
// get_cpu_policy_constraint, numa_get_constraints.
func CPUPolicy(inst, flavor *objects.Object) (policy, thread string) {
	specs, image := flavor.Strings("extra_specs"), inst.Strings("system_metadata")
	policy = cmp.Or(specs["hw:cpu_policy"], image["image_hw_cpu_policy"], "shared")
	thread = cmp.Or(specs["hw:cpu_thread_policy"], image["image_hw_cpu_thread_policy"])
	for key, value := range specs {
		group, name, _ := strings.Cut(key, ":")
		switch {
		case strings.HasPrefix(group, "resources") && name == "PCPU" && value != "0":
			policy = "dedicated"
		case strings.HasPrefix(group, "trait") && name == "HW_CPU_HYPERTHREADING" && value == "required":
			thread = "require"
		case strings.HasPrefix(group, "trait") && name == "HW_CPU_HYPERTHREADING" && value == "forbidden":
			thread = "isolate"
		}
	}
	return policy, thread
}

// pinned is the flavor with the processors of a topology, nil for none.
func pinned(f driver.Flavor, topology *objects.Object) driver.Flavor {
	f.Processors = objects.InstanceNUMATopology{Object: topology}.Processors()
	return f
}

// loadProcessors reads the instance's topology where its flavor asks for one.
func (m *Manager) loadProcessors(ctx context.Context, o *op) error {
	if policy, _ := CPUPolicy(o.inst, o.inst.Object("flavor")); policy == "shared" {
		return nil
	}
	return m.load(ctx, o, "numa_topology")
}

// topology is the one that the instance has before ("old") or after ("new") its
// move, nil for none.
func (v *move) topology(side string) *objects.Object {
	if c := v.inst.Object("migration_context"); c != nil {
		return c.Object(side + "_numa_topology")
	}
	return v.inst.Object("numa_topology")
}

// settleProcessors gives the row the topology of one side of the move, unless neither has one.
func (v *move) settleProcessors(side string, fields map[string]any) {
	if v.topology("old") != nil || v.topology("new") != nil {
		fields["numa_topology"] = v.topology(side)
	}
}
