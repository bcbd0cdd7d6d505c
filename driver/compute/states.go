package compute

import (
	"slices"

	"github.com/gantry-project/gantry/driver"
)

// Source: nova/compute/vm_states.py and nova/compute/task_states.py.

// The vm states that the manager sets or asks about.
const (
	vmBuilding         = "building"
	vmActive           = "active"
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
)

// The task states that the manager sets or expects. noTask is null.
const (
	noTask               = ""
	taskScheduling       = "scheduling"
	taskSpawning         = "spawning"
	taskSnapshotPending  = "image_snapshot_pending"
	taskSnapshot         = "image_snapshot"
	taskImageUploading   = "image_uploading"
	taskRebooting        = "rebooting"
	taskRebootPending    = "reboot_pending"
	taskRebootStarted    = "reboot_started"
	taskRebootingHard    = "rebooting_hard"
	taskRebootPendHard   = "reboot_pending_hard"
	taskRebootStartHard  = "reboot_started_hard"
	taskPausing          = "pausing"
	taskUnpausing        = "unpausing"
	taskPoweringOff      = "powering-off"
	taskPoweringOn       = "powering-on"
	taskDeleting         = "deleting"
	taskSoftDeleting     = "soft-deleting"
	taskRestoring        = "restoring"
	taskUpdatingPassword = "updating_password"
	taskRebuilding       = "rebuilding"
	taskRebuildSpawning  = "rebuild_spawning"
	taskShelving         = "shelving"
	taskShelvingUpload   = "shelving_image_uploading"
	taskOffloading       = "shelving_offloading"
	taskUnshelving       = "unshelving"
	taskImageBackup      = "image_backup"
	taskSuspending       = "suspending"
	taskResuming         = "resuming"
	taskRescuing         = "rescuing"
	taskUnrescuing       = "unrescuing"
	taskResizePrep       = "resize_prep"
	taskResizeMigrating  = "resize_migrating"
	taskResizeMigrated   = "resize_migrated"
	taskResizeFinish     = "resize_finish"
	taskResizeReverting  = "resize_reverting"
)

// verb is an operation that takes an instance from a task to a vm state.
type verb string

const (
	verbStop       verb = "stop"
	verbStart      verb = "start"
	verbRebootSoft verb = "reboot soft"
	verbRebootHard verb = "reboot hard"
	verbPause      verb = "pause"
	verbUnpause    verb = "unpause"
	verbSoftDelete verb = "soft delete"
	verbRestore    verb = "restore"
)

// transition says which tasks the row may be in when a verb ends (or, with a
// task of its own, when it begins), and the vm state that it ends in.
type transition struct {
	expect []string
	task   string // set while the verb runs, noTask when it sets none
	to     string
}

// transitionOf is the state table of the verbs.
func transitionOf(v verb) transition {
	switch v {
	case verbStop:
		return transition{expect: []string{taskPoweringOff}, to: vmStopped}
	case verbStart:
		return transition{expect: []string{taskPoweringOn}, to: vmActive}
	case verbRebootSoft:
		return transition{[]string{taskRebooting, taskRebootPending, taskRebootStarted}, taskRebootStarted, vmActive}
	case verbRebootHard:
		return transition{[]string{taskRebootingHard, taskRebootPendHard, taskRebootStartHard}, taskRebootStartHard, vmActive}
	case verbPause:
		return transition{expect: []string{taskPausing}, to: vmPaused}
	case verbUnpause:
		return transition{expect: []string{taskUnpausing}, to: vmActive}
	case verbSoftDelete:
		return transition{expect: []string{taskSoftDeleting}, to: vmSoftDeleted}
	case verbRestore:
		return transition{expect: []string{taskRestoring}, to: vmActive}
	}
	return transition{}
}

// syncAction is what a difference between a row and the guest leads to.
type syncAction int

const (
	syncNothing syncAction = iota
	syncStop               // stop through the API's path
	syncDelete             // the instance was to be deleted when it ends
	syncWarn               // wrong, but nothing safe can be done
)

// decideSync is the table of _sync_instance_power_state in
// nova/compute/manager.py.
func decideSync(vmState string, real driver.PowerState, shutdownTerminate bool) syncAction {
	is := func(states ...driver.PowerState) bool { return slices.Contains(states, real) }
	switch vmState {
	case vmActive:
		switch {
		case is(driver.PowerShutdown, driver.PowerCrashed) && shutdownTerminate:
			return syncDelete
		case is(driver.PowerShutdown, driver.PowerCrashed, driver.PowerSuspended):
			return syncStop
		case is(driver.PowerPaused, driver.PowerNoState):
			return syncWarn
		}
	case vmStopped:
		if is(driver.PowerRunning, driver.PowerPaused, driver.PowerSuspended) {
			return syncStop
		}
	case vmPaused:
		if is(driver.PowerShutdown, driver.PowerCrashed) {
			return syncStop
		}
	case vmSoftDeleted, vmDeleted:
		if !is(driver.PowerNoState, driver.PowerShutdown) {
			return syncWarn
		}
	}
	return syncNothing
}
