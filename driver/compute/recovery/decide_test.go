package recovery

import (
	"testing"

	"github.com/gantry-project/gantry/driver"
)

const (
	off     = driver.PowerShutdown
	on      = driver.PowerRunning
	frozen  = driver.PowerPaused
	missing = driver.PowerNoState
)

func TestDecide(t *testing.T) {
	tests := []struct {
		name     string
		vm, task string
		real     driver.PowerState
		want     Action
	}{
		{"nothing to do", vmActive, "", on, Continue},
		{"stopped", vmStopped, "", off, Continue},
		{"asked but not taken up", vmActive, "rebooting", on, Continue},
		{"unknown states", "hibernating", "dreaming", on, Continue},

		{"soft deleted", vmSoftDeleted, "", off, Skip},
		{"soft deleted, being restored", vmSoftDeleted, "restoring", off, Skip},
		{"error", vmError, "", on, Skip},
		{"error while spawning", vmError, taskSpawning, missing, Skip},
		{"error while deleting", vmError, taskDeleting, on, RepeatDelete},
		{"error while moving", vmError, taskResizeMigrating, on, AbandonMove},
		{"guest deleted, row not", vmDeleted, "", missing, FinishDelete},
		{"deleted with a task", vmDeleted, taskDeleting, missing, FinishDelete},

		{"building, before claim", vmBuilding, "", missing, AbandonBuild},
		{"building, scheduling", vmBuilding, taskScheduling, missing, AbandonBuild},
		{"building, networking", vmBuilding, taskNetworking, missing, AbandonBuild},
		{"building, block devices", vmBuilding, taskBlockDeviceMapping, missing, AbandonBuild},
		{"building, spawning", vmBuilding, taskSpawning, missing, AbandonBuild},
		{"building, guest half there", vmBuilding, taskSpawning, off, AbandonBuild},
		{"building, guest runs", vmBuilding, taskSpawning, on, AbandonBuild},
		{"building, deleted meanwhile", vmBuilding, taskDeleting, on, RepeatDelete},
		{"unshelving", vmOffloaded, taskSpawning, missing, AbandonUnshelve},
		{"unshelving, guest runs", vmOffloaded, taskSpawning, on, AbandonUnshelve},
		{"spawning what was built", vmActive, taskSpawning, on, Fail},

		{"shelving", vmActive, taskShelving, on, ClearTask},
		{"shelving, stopped", vmActive, taskShelvingUpload, off, ClearTask},
		{"offloading", vmShelved, taskOffloading, off, Offload},
		{"offloading, guest gone", vmShelved, taskOffloading, missing, Offload},
		{"backup", vmActive, taskBackup, on, ClearTask},
		{"backup left it frozen", vmActive, taskBackup, frozen, Thaw},

		{"rebuilding", vmActive, taskRebuilding, on, Fail},
		{"rebuilding a stopped one", vmStopped, taskRebuildSpawning, off, Fail},
		{"rebuilding, block devices", vmActive, taskRebuildBDM, off, Fail},

		{"deleting", vmActive, taskDeleting, on, RepeatDelete},
		{"deleting a stopped one", vmStopped, taskDeleting, off, RepeatDelete},
		{"deleting, guest gone", vmActive, taskDeleting, missing, RepeatDelete},

		{"snapshot asked", vmActive, taskSnapshotPending, on, ClearTask},
		{"snapshot", vmActive, taskSnapshot, on, ClearTask},
		{"snapshot of a stopped one", vmStopped, taskSnapshot, off, ClearTask},
		{"snapshot of a paused one", vmPaused, taskSnapshot, frozen, ClearTask},
		{"snapshot left it frozen", vmActive, taskSnapshot, frozen, Thaw},
		{"upload asked", vmActive, taskUploadPending, on, ClearTask},
		{"uploading", vmActive, taskUploading, on, ClearTask},

		{"resize preparing", vmActive, taskResizePrep, on, AbandonMove},
		{"resize moving", vmActive, taskResizeMigrating, off, AbandonMove},
		{"resize moved", vmActive, taskResizeMigrated, on, AbandonMove},
		{"resize ending", vmStopped, taskResizeFinish, off, AbandonMove},
		{"resize reverting", "resized", taskResizeReverting, on, AbandonMove},
		{"live migrating", vmActive, taskMigrating, on, ClearTask},

		{"soft reboot pending", vmActive, taskRebootPending, on, RebootSoft},
		{"soft reboot pending, off", vmActive, taskRebootPending, off, RebootHard},
		{"soft reboot pending, stopped", vmStopped, taskRebootPending, off, Continue},
		{"hard reboot pending", vmActive, taskRebootPendingHard, on, RebootHard},
		{"hard reboot pending, stopped", vmStopped, taskRebootPendingHard, off, RebootHard},
		{"soft reboot started, runs", vmActive, taskRebootStarted, on, SettleActive},
		{"soft reboot started, off", vmActive, taskRebootStarted, off, RebootHard},
		{"hard reboot started, runs", vmActive, taskRebootStartedHard, on, SettleActive},
		{"hard reboot started, off", vmActive, taskRebootStartedHard, off, RebootHard},
		{"hard reboot started, gone", vmActive, taskRebootStartedHard, missing, RebootHard},

		{"pausing, runs", vmActive, taskPausing, on, SettleActive},
		{"pausing, paused", vmActive, taskPausing, frozen, SettlePaused},
		{"pausing, ended", vmActive, taskPausing, off, ClearTask},
		{"unpausing, runs", vmPaused, taskUnpausing, on, SettleActive},
		{"unpausing, paused", vmPaused, taskUnpausing, frozen, Unpause},
		{"unpausing, ended", vmPaused, taskUnpausing, off, ClearTask},

		{"suspending, runs", vmActive, taskSuspending, on, SettleActive},
		{"suspending, put aside", vmActive, taskSuspending, driver.PowerSuspended, SettleSuspended},
		{"suspending, ended", vmActive, taskSuspending, off, ClearTask},
		{"suspended", vmSuspended, "", driver.PowerSuspended, Continue},
		{"resuming, runs", vmSuspended, taskResuming, on, SettleActive},
		{"resuming, put aside", vmSuspended, taskResuming, driver.PowerSuspended, Resume},
		{"resuming, lost", vmSuspended, taskResuming, off, Resume},
		{"rescuing, own guest", vmActive, taskRescuing, on, AbandonRescue},
		{"rescuing one in error", vmError, taskRescuing, off, AbandonRescue},
		{"unrescuing", vmRescued, taskUnrescuing, off, Unrescue},
		{"rescued", vmRescued, "", on, Continue},
		{"powering off, runs", vmActive, taskPoweringOff, on, Stop},
		{"powering off, off", vmActive, taskPoweringOff, off, Stop},
		{"powering on, off", vmStopped, taskPoweringOn, off, Start},
		{"powering on, runs", vmStopped, taskPoweringOn, on, Start},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := Found{Ours: true, VMState: tt.vm, TaskState: tt.task, Stored: tt.real, Real: tt.real}
			if got := Decide(f); got != (Decision{Action: tt.want}) {
				t.Errorf("Decide(%+v) = %+v, want %s", f, got, tt.want)
			}
			f.Ours = false
			if got := Decide(f); got.Action != Foreign {
				t.Errorf("an instance of another host: %+v", got)
			}
			f.Evacuated = true
			if got := Decide(f); got.Action != Discard {
				t.Errorf("an evacuated instance: %+v", got)
			}
		})
	}
}

// allStates is every state that the table could meet.
var (
	allVM   = []string{"", vmActive, vmBuilding, vmPaused, vmSuspended, vmStopped, vmDeleted, vmSoftDeleted, vmError, vmRescued, "resized", vmShelved, vmOffloaded}
	allTask = []string{"", taskScheduling, taskBlockDeviceMapping, taskNetworking, taskSpawning, taskRebuilding, taskRebuildBDM, taskRebuildSpawning, taskSnapshotPending, taskSnapshot, taskUploadPending, taskUploading, taskResizePrep, taskResizeMigrating, taskResizeMigrated, taskResizeFinish, taskResizeReverting, taskMigrating, taskDeleting, taskPoweringOff, taskPoweringOn, taskPausing, taskUnpausing, taskRebootPending, taskRebootStarted, taskRebootPendingHard, taskRebootStartedHard, "rebooting", taskSuspending, taskResuming, taskRescuing, taskUnrescuing, taskBackup, taskShelving, taskShelvingWait, taskShelvingUpload, taskOffloading}
	allReal = []driver.PowerState{missing, on, frozen, off, driver.PowerCrashed, driver.PowerSuspended}
)

// TestDecideInvariants goes through the whole matrix.
func TestDecideInvariants(t *testing.T) {
	for _, vm := range allVM {
		for _, task := range allTask {
			for _, real := range allReal {
				for _, resume := range []bool{false, true} {
					f := Found{Ours: true, VMState: vm, TaskState: task, Stored: on, Real: real, Resume: resume}
					check(t, f, Decide(f))
				}
			}
		}
	}
}

// check states what must hold whatever the table says.
func check(t *testing.T, f Found, d Decision) {
	t.Helper()
	switch d.Action {
	case RepeatDelete:
		if f.TaskState != taskDeleting {
			t.Errorf("%+v: deletes what nobody asked to delete", f)
		}
	case FinishDelete:
		if f.VMState != vmDeleted {
			t.Errorf("%+v: finishes a delete of a living row", f)
		}
	case AbandonBuild:
		if f.VMState != vmBuilding {
			t.Errorf("%+v: destroys the disk of an instance that was built", f)
		}
	case AbandonUnshelve:
		if f.VMState != vmOffloaded {
			t.Errorf("%+v: destroys the disk of an instance that has no image", f)
		}
	case Offload:
		if f.VMState != vmShelved {
			t.Errorf("%+v: offloads what is not shelved", f)
		}
	case Discard, Foreign:
		t.Errorf("%+v: takes our instance for another's", f)
	case "":
		t.Errorf("%+v: no decision", f)
	}
	if d.PowerOn && (!f.Resume || f.Real == on) {
		t.Errorf("%+v: starts a guest that needs none", f)
	}
}

func TestDecideResume(t *testing.T) {
	tests := []struct {
		name         string
		task         string
		stored, real driver.PowerState
		resume, want bool
	}{
		{"was running", "", on, off, true, true},
		{"was running, crashed", "", on, driver.PowerCrashed, true, true},
		{"after a cut-off snapshot", taskSnapshot, on, off, true, true},
		{"not wanted", "", on, off, false, false},
		{"was off", "", off, off, true, false},
		{"runs", "", on, on, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Decide(Found{Ours: true, VMState: vmActive, TaskState: tt.task, Stored: tt.stored, Real: tt.real, Resume: tt.resume})
			if d.PowerOn != tt.want {
				t.Errorf("Decide = %+v", d)
			}
		})
	}
}
