package compute

import (
	"slices"
	"strings"

	"github.com/gantry-project/gantry/driver/objects"
)

// States of instances (nova/compute/{vm_states,task_states}.py).
const (
	vmActive           = "active"
	vmBuilding         = "building"
	vmPaused           = "paused"
	vmSuspended        = "suspended"
	vmStopped          = "stopped"
	vmRescued          = "rescued"
	vmResized          = "resized"
	vmSoftDeleted      = "soft-delete"
	vmDeleted          = "deleted"
	vmError            = "error"
	vmShelved          = "shelved"
	vmShelvedOffloaded = "shelved_offloaded"

	taskScheduling = "scheduling"
	taskDeleting   = "deleting"
)

// statuses are the words for the states: by vm_state the usual one and those
// that a task makes of it (nova/api/openstack/common.py).
func statuses() map[string]map[string]string {
	rebuild := func(m map[string]string) map[string]string {
		for _, t := range []string{"rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"} {
			m[t] = "REBUILD"
		}
		return m
	}
	resize := func(m map[string]string) map[string]string {
		for _, t := range []string{"resize_prep", "resize_migrating", "resize_migrated", "resize_finish"} {
			m[t] = "RESIZE"
		}
		return m
	}
	return map[string]map[string]string{
		vmActive: rebuild(resize(map[string]string{
			"": "ACTIVE", "rebooting": "REBOOT", "reboot_pending": "REBOOT", "reboot_started": "REBOOT",
			"rebooting_hard": "HARD_REBOOT", "reboot_pending_hard": "HARD_REBOOT", "reboot_started_hard": "HARD_REBOOT",
			"updating_password": "PASSWORD", "migrating": "MIGRATING",
		})),
		vmBuilding:         {"": "BUILD"},
		vmStopped:          rebuild(resize(map[string]string{"": "SHUTOFF"})),
		vmResized:          {"": "VERIFY_RESIZE", "resize_reverting": "REVERT_RESIZE"},
		vmPaused:           {"": "PAUSED", "migrating": "MIGRATING"},
		vmSuspended:        {"": "SUSPENDED"},
		vmRescued:          {"": "RESCUE"},
		vmError:            rebuild(map[string]string{"": "ERROR"}),
		vmDeleted:          {"": "DELETED"},
		vmSoftDeleted:      {"": "SOFT_DELETED"},
		vmShelved:          {"": "SHELVED"},
		vmShelvedOffloaded: {"": "SHELVED_OFFLOADED"},
	}
}

// stateWords is statuses, made once.
type stateWords map[string]map[string]string

// of is the status of an instance.
func (w stateWords) of(i objects.Instance) string {
	if i.Deleted() {
		return "DELETED"
	}
	byTask, ok := w[i.VMState()]
	if !ok {
		return "UNKNOWN"
	}
	if s, ok := byTask[i.TaskState()]; ok {
		return s
	}
	return byTask[""]
}

// states are the vm_states that have one of the statuses, and the tasks that
// they have then; nil tasks are all that the states may have.
func (w stateWords) states(asked []string) (vm, tasks []any) {
	usual := false
	for state, byTask := range w {
		found := false
		for task, status := range byTask {
			if slices.ContainsFunc(asked, func(a string) bool { return strings.EqualFold(a, status) }) {
				found = true
				usual = usual || task == ""
				tasks = append(tasks, task)
			}
		}
		if found {
			vm = append(vm, state)
		}
	}
	if usual {
		return vm, nil
	}
	return vm, tasks
}
