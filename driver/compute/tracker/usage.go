package tracker

import (
	"strconv"

	"github.com/gantry-project/gantry/driver/objects"
)

// usage is what one instance takes, and what the statistics count of it.
type usage struct {
	vcpus, memoryMB, diskMB         int64
	vmState, taskState, os, project string
	// move says that it is none of an instance but of its move.
	move bool
	// pins are the processors that it alone has.
	pins cpuList
}

// usageOf reads an instance. A root disk on a volume takes nothing here.
func usageOf(inst *objects.Object) usage {
	u := usage{
		vmState:   inst.String("vm_state"),
		taskState: inst.String("task_state"),
		os:        inst.String("os_type"),
		project:   inst.String("project_id"),
	}
	size := inst.Object("flavor")
	if size == nil {
		size = inst // the row repeats the flavor's sizes, swap excepted
	}
	u.vcpus, u.memoryMB = size.Int("vcpus"), size.Int("memory_mb")
	u.pins = pinsOf(inst)
	u.diskMB = size.Int("ephemeral_gb")*1024 + size.Int("swap")
	if inst.String("image_ref") != "" {
		u.diskMB += size.Int("root_gb") * 1024
	}
	return u
}

// released says that an instance in the vm state takes nothing of its host.
func released(vmState string) bool { return vmState == "deleted" || vmState == "shelved_offloaded" }

// totals is the sum of a host.
type totals struct {
	vcpus, memoryMB, diskMB int64
	instances               int64
}

// diskGB is the used disk in whole GiB, rounded down as Nova does.
func (t totals) diskGB() int64 { return t.diskMB / 1024 }

// sum adds the reserved amounts and all instances.
func sum(o Options, used map[string]usage) totals {
	t := totals{vcpus: o.ReservedCPUs, memoryMB: o.ReservedMemoryMB, diskMB: o.ReservedDiskMB / 1024 * 1024}
	for _, u := range used {
		t.vcpus += u.vcpus
		t.memoryMB += u.memoryMB
		t.diskMB += u.diskMB
		if !u.move {
			t.instances++
		}
	}
	return t
}

// ioTasks are the task states that count as heavy input and output.
func ioTasks() []string {
	return []string{"resize_migrating", "rebuilding", "resize_prep", "image_snapshot", "image_backup", "rescuing", "spawning"}
}

// statistics computes the stats of the compute node record and the number of
// instances with a task (current_workload). Source: nova/compute/stats.py.
func statistics(used map[string]usage, failedBuilds int) (stats map[string]string, workload int64) {
	counts := map[string]int64{}
	for _, u := range used {
		if u.move {
			continue
		}
		counts["num_instances"]++
		counts["num_vm_"+u.vmState]++
		counts["num_task_"+orNone(u.taskState)]++
		counts["num_os_type_"+orNone(u.os)]++
		counts["num_proj_"+u.project]++
		if u.taskState != "" {
			workload++
		}
	}
	stats = map[string]string{"failed_builds": strconv.Itoa(failedBuilds)}
	if len(used) == 0 {
		return stats, 0
	}
	io := counts["num_vm_building"]
	for _, task := range ioTasks() {
		io += counts["num_task_"+task]
	}
	counts["io_workload"] = io
	for name, n := range counts {
		stats[name] = strconv.FormatInt(n, 10)
	}
	return stats, workload
}

// orNone is Python's word for null in the names of counters.
func orNone(s string) string {
	if s == "" {
		return "None"
	}
	return s
}
