package recovery

import (
	"slices"

	"github.com/gantry-project/gantry/driver"
)

// Found is what is known of one instance when the service starts.
type Found struct {
	// Ours says that the row names this host.
	Ours bool
	// Evacuated says that a finished evacuation took the instance away from
	// this host (migration type evacuation, source this host).
	Evacuated bool
	// VMState and TaskState of the row; the empty task is Nova's null.
	VMState, TaskState string
	// Stored is the power state of the row, Real the driver's. A guest that
	// is not there is PowerNoState.
	Stored, Real driver.PowerState
	// Rescued says that the guest is a rescue system.
	Rescued bool
	// Resume is resume_guests_state_on_host_boot.
	Resume bool
}

// Action is the one thing to do with an instance.
type Action string

// The actions. Those that end with the network ("then plug") are Continue,
// ClearTask, SettleActive, SettleRescued, AbandonMove and Thaw; every other one is the last word.
const (
	// Skip leaves the instance as it is.
	Skip Action = "skip"
	// Foreign leaves it too, with a warning: it belongs to another host.
	Foreign Action = "foreign"
	// Discard destroys the local guest of an evacuated instance, its share of
	// the allocation and nothing that the other host now uses.
	Discard Action = "discard"
	// FinishDelete destroys the row of an instance whose guest is gone.
	FinishDelete Action = "finish delete"
	// RepeatDelete runs the whole delete again.
	RepeatDelete Action = "repeat delete"
	// AbandonBuild destroys what a cut-off build left, frees its network and
	// allocation and sets error.
	AbandonBuild Action = "abandon build"
	// AbandonUnshelve destroys what a cut-off unshelve left and makes the row
	// one of an offloaded instance again: its image goes only after the row
	// has said that it runs.
	AbandonUnshelve Action = "abandon unshelve"
	// Offload runs the offload of a shelved instance again.
	Offload Action = "offload"
	// AbandonMove undoes a cut-off resize: the guest has what it had before.
	AbandonMove Action = "abandon move"
	// AbandonRescue undoes a cut-off rescue: the guest is its own again, and runs
	// if the instance is active.
	AbandonRescue Action = "abandon rescue"
	// SettleRescued completes a rescue whose system runs.
	SettleRescued Action = "settle rescued"
	// Unrescue runs the operation again.
	Unrescue Action = "unrescue"
	// SettleSuspended completes a suspension that had taken hold.
	SettleSuspended Action = "settle suspended"
	// Resume runs the operation again.
	Resume Action = "resume"
	// Fail sets vm_state error and no task; the guest stays for the user to delete.
	Fail Action = "fail"
	// RebootSoft and RebootHard run the reboot again.
	RebootSoft Action = "reboot soft"
	// RebootHard also turns a soft task state into a hard one first.
	RebootHard Action = "reboot hard"
	// Unpause ends the pause and the task.
	Unpause Action = "unpause"
	// SettlePaused completes a pause that had taken hold.
	SettlePaused Action = "settle paused"
	// Stop and Start run the operation again.
	Stop Action = "stop"
	// Start: see Stop.
	Start Action = "start"
	// Continue has nothing to repair: match the network, start the guest if
	// Decision.PowerOn says so.
	Continue Action = "continue"
	// ClearTask saves no task, then continues.
	ClearTask Action = "clear task"
	// SettleActive saves active and no task, then continues.
	SettleActive Action = "settle active"
	// Thaw ends the pause that a cut-off snapshot put the guest in, clears
	// the task and continues.
	Thaw Action = "thaw"
)

// Decision is the judgement on one instance.
type Decision struct {
	Action Action
	// PowerOn asks for a start of the guest after the network has been
	// matched. Only with the actions that continue.
	PowerOn bool
}

// Decide says what to do with an instance. It is total: states that it does
// not know are continued with.
func Decide(f Found) Decision {
	switch {
	case f.Evacuated:
		return Decision{Action: Discard}
	case !f.Ours:
		return Decision{Action: Foreign}
	}
	if a := decideEnding(f); a != "" {
		return Decision{Action: a}
	}
	if a := decideInterrupted(f); a != "" {
		return Decision{Action: a}
	}
	d := Decision{Action: decideTask(f)}
	if d.Action == Continue || d.Action == ClearTask {
		d.PowerOn = f.Resume && f.Stored == driver.PowerRunning && f.Real != driver.PowerRunning
	}
	return d
}

// decideEnding judges instances that are on their way out or beyond repair.
func decideEnding(f Found) Action {
	switch {
	case f.VMState == vmSoftDeleted:
		return Skip
	case f.VMState == vmError && !slices.Contains([]string{taskDeleting, taskResizeMigrating, taskRescuing}, f.TaskState):
		return Skip
	case f.VMState == vmDeleted:
		return FinishDelete
	}
	return ""
}

// decideInterrupted judges what cannot be gone on with, and deletes.
func decideInterrupted(f Found) Action {
	switch f.TaskState {
	case taskDeleting:
		// Nova looks at vm_state building first and leaves such an instance in
		// error, for the user to delete once more. The wish is known: delete.
		return RepeatDelete
	case taskScheduling, taskBlockDeviceMapping, taskNetworking, taskSpawning:
		switch f.VMState {
		case vmBuilding:
		case vmOffloaded:
			return AbandonUnshelve
		default:
			return Fail // its disk is not ours to destroy
		}
	case taskRebuilding, taskRebuildBDM, taskRebuildSpawning:
		if f.VMState == vmActive || f.VMState == vmStopped {
			return Fail
		}
	}
	if f.VMState == vmBuilding {
		return AbandonBuild
	}
	return ""
}

// decideTask judges an instance whose guest is worth going on with.
func decideTask(f Found) Action {
	if a := decideReboot(f); a != "" {
		return a
	}
	running, paused := f.Real == driver.PowerRunning, f.Real == driver.PowerPaused
	switch f.TaskState {
	case taskSnapshotPending, taskSnapshot, taskUploadPending, taskUploading, taskBackup,
		taskShelving, taskShelvingWait, taskShelvingUpload:
		if paused && f.VMState == vmActive {
			return Thaw
		}
		return ClearTask
	case taskRebootStarted, taskRebootStartedHard:
		return SettleActive // running, else decideReboot has it
	case taskPausing, taskUnpausing:
		switch {
		case running:
			return SettleActive
		case paused && f.TaskState == taskUnpausing:
			return Unpause
		case paused:
			return SettlePaused
		}
		return ClearTask // the guest has ended: the power state sync sees to it
	case taskOffloading:
		if f.VMState == vmShelved {
			return Offload
		}
		return ClearTask
	case taskSuspending, taskResuming:
		switch {
		case running:
			return SettleActive
		case f.TaskState == taskResuming:
			return Resume
		case f.Real == driver.PowerSuspended:
			return SettleSuspended
		}
		return ClearTask // the guest has ended: the power state sync sees to it
	case taskRescuing:
		if f.Rescued && running {
			return SettleRescued
		}
		return AbandonRescue
	case taskUnrescuing:
		return Unrescue
	case taskPoweringOff:
		return Stop
	case taskPoweringOn:
		return Start
	case taskResizePrep, taskResizeMigrating, taskResizeMigrated, taskResizeFinish, taskResizeReverting:
		return AbandonMove
	case taskMigrating:
		return ClearTask // no guest ever moves as it runs
	}
	return Continue
}

// decideReboot says whether a reboot has to be run again, and how. A soft one
// whose guest is off already can only be hard.
func decideReboot(f Found) Action {
	soft := f.TaskState == taskRebootPending || f.TaskState == taskRebootStarted
	running := f.Real == driver.PowerRunning
	again := false
	switch f.TaskState {
	case taskRebootPending:
		again = f.VMState == vmActive
	case taskRebootPendingHard:
		again = slices.Contains([]string{vmActive, vmStopped, vmPaused, vmSuspended, vmError}, f.VMState)
	case taskRebootStarted, taskRebootStartedHard:
		again = !running
	}
	switch {
	case !again:
		return ""
	case soft && running:
		return RebootSoft
	}
	return RebootHard
}
