package recovery

import (
	"errors"
	"slices"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func (w *world) recovery(resume bool) *Recovery {
	c := cloud{w}
	return New(Deps{Driver: w, Conductor: c, Operations: c, Ports: c, Tracker: c, Allocations: c},
		Options{Host: "cmp1", Provider: func() string { return "rp" }, ResumeGuests: resume}, zerolog.Nop())
}

func TestAct(t *testing.T) {
	tests := []struct {
		name     string
		vm, task string
		guest    driver.PowerState
		resume   bool
		rescued  bool
		fail     map[string]error
		want     []string
	}{
		{name: "healthy", vm: vmActive, guest: on, want: []string{"plug a port-a"}},
		{name: "guest gone", vm: vmActive, guest: missing},
		{name: "error", vm: vmError, guest: on},
		{
			name: "build", vm: vmBuilding, task: taskSpawning, guest: on,
			want: []string{
				"destroy a", "deallocate a 1", "drop a", "fault a 500",
				"save a if[spawning] availability_zone=<nil> host=<nil> launched_on=<nil> node=<nil> task_state=<nil> vm_state=error",
			},
		},
		{
			name: "build, guest cannot be destroyed", vm: vmBuilding, task: "", guest: on,
			fail: map[string]error{"destroy": errAway},
			want: []string{"destroy a", "fault a 500", "save a if[] task_state=<nil> vm_state=error"},
		},
		{
			name: "build, neutron is away", vm: vmBuilding, task: "", guest: on,
			fail: map[string]error{"deallocate": errAway},
			want: []string{"destroy a", "deallocate a 1", "fault a 500", "save a if[] task_state=<nil> vm_state=error"},
		},
		{
			name: "build, placement is away", vm: vmBuilding, task: "", guest: missing,
			fail: map[string]error{"drop": errAway},
			want: []string{"destroy a", "deallocate a 1", "drop a", "fault a 500", "save a if[] task_state=<nil> vm_state=error"},
		},
		{
			name: "rebuild", vm: vmActive, task: taskRebuilding, guest: on,
			want: []string{"fault a 500", "save a if[rebuilding] task_state=<nil> vm_state=error"},
		},
		{
			name: "unshelve", vm: vmOffloaded, task: taskSpawning, guest: on,
			want: []string{
				"destroy a", "drop a", "fault a 500",
				"save a if[spawning] availability_zone=<nil> host=<nil> launched_on=<nil> node=<nil> task_state=<nil>",
			},
		},
		{
			name: "unshelve, guest cannot be destroyed", vm: vmOffloaded, task: taskSpawning, guest: on,
			fail: map[string]error{"destroy": errAway},
			want: []string{"destroy a", "fault a 500", "save a if[spawning] task_state=<nil> vm_state=error"},
		},
		{name: "resize", vm: vmActive, task: taskResizeFinish, guest: on, want: []string{"fault a 500", "abandon move a", "plug a port-a"}},
		{
			name: "resize cannot be undone", vm: vmActive, task: taskResizeMigrated, guest: on, fail: map[string]error{"abandon move": errAway},
			want: []string{"fault a 500", "abandon move a"},
		},
		{name: "offload", vm: vmShelved, task: taskOffloading, guest: off, want: []string{"offload a"}},
		{name: "delete", vm: vmActive, task: taskDeleting, guest: on, want: []string{"terminate a"}},
		{
			name: "delete fails", vm: vmActive, task: taskDeleting, guest: on, fail: map[string]error{"terminate": errAway},
			want: []string{"terminate a"},
		},
		{name: "deleted", vm: vmDeleted, guest: missing, want: []string{"destroy a", "drop a", "consoles a", "destroyrow a"}},
		{
			name: "snapshot", vm: vmActive, task: taskSnapshot, guest: on,
			want: []string{"save a if[image_snapshot] task_state=<nil>", "plug a port-a"},
		},
		{
			name: "frozen by a snapshot", vm: vmActive, task: taskUploading, guest: frozen,
			want: []string{"thaw a", "save a if[image_uploading] task_state=<nil>", "plug a port-a"},
		},
		{
			name: "user changed the task meanwhile", vm: vmActive, task: taskSnapshot, guest: on, fail: map[string]error{"save": errAway},
			want: []string{"save a if[image_snapshot] task_state=<nil>"},
		},
		{name: "soft reboot", vm: vmActive, task: taskRebootPending, guest: on, want: []string{"reboot a SOFT"}},
		{
			name: "soft reboot, off", vm: vmActive, task: taskRebootStarted, guest: off,
			want: []string{"save a if[reboot_started] task_state=reboot_pending_hard", "reboot a HARD"},
		},
		{name: "hard reboot, off", vm: vmActive, task: taskRebootStartedHard, guest: off, want: []string{"reboot a HARD"}},
		{
			name: "reboot done", vm: vmActive, task: taskRebootStarted, guest: on,
			want: []string{"save a if[reboot_started] task_state=<nil> vm_state=active", "plug a port-a"},
		},
		{
			name: "paused", vm: vmActive, task: taskPausing, guest: frozen,
			want: []string{"save a if[pausing] power_state=3 task_state=<nil> vm_state=paused"},
		},
		{name: "unpause", vm: vmPaused, task: taskUnpausing, guest: frozen, want: []string{"unpause a"}},
		{
			name: "rescue", vm: vmActive, task: taskRescuing, guest: off,
			want: []string{"own system a 1 on=true", "fault a 500", "save a if[rescuing] power_state=4 task_state=<nil>"},
		},
		{
			name: "rescue of a stopped one", vm: vmStopped, task: taskRescuing, guest: off, rescued: true,
			want: []string{"own system a 1 on=false", "fault a 500", "save a if[rescuing] power_state=4 task_state=<nil>"},
		},
		{
			name: "rescue cannot be undone", vm: vmActive, task: taskRescuing, guest: off, fail: map[string]error{"own system": errAway},
			want: []string{"own system a 1 on=true", "fault a 500", "save a if[rescuing] task_state=<nil> vm_state=error"},
		},
		{
			name: "rescue done", vm: vmActive, task: taskRescuing, guest: on, rescued: true,
			want: []string{"save a if[rescuing] launched_at power_state=1 task_state=<nil> vm_state=rescued", "plug a port-a"},
		},
		{
			name: "suspended", vm: vmActive, task: taskSuspending, guest: driver.PowerSuspended,
			want: []string{"save a if[suspending] power_state=7 task_state=<nil> vm_state=suspended"},
		},
		{name: "resume again", vm: vmSuspended, task: taskResuming, guest: driver.PowerSuspended, want: []string{"resume a"}},
		{name: "unrescue", vm: vmRescued, task: taskUnrescuing, guest: on, want: []string{"unrescue a"}},
		{name: "stop", vm: vmActive, task: taskPoweringOff, guest: on, want: []string{"stop a"}},
		{name: "start", vm: vmStopped, task: taskPoweringOn, guest: off, want: []string{"start a"}},
		{name: "resume", vm: vmActive, guest: off, resume: true, want: []string{"plug a port-a", "poweron a 1"}},
		{
			name: "resume fails", vm: vmActive, guest: off, resume: true, fail: map[string]error{"poweron": errAway},
			want: []string{"plug a port-a", "poweron a 1", "fault a 500", "save a if[] task_state=<nil> vm_state=error"},
		},
		{name: "no resume", vm: vmActive, guest: off, want: []string{"plug a port-a"}},
		{name: "plug fails", vm: vmActive, guest: on, resume: true, fail: map[string]error{"plug": errAway}, want: []string{"plug a port-a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.instance("a", "cmp1", tt.vm, tt.task, tt.guest)
			w.rescued = tt.rescued
			if tt.fail != nil {
				w.fail = tt.fail
			}
			if err := w.recovery(tt.resume).Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, want := w.done(), append([]string{"recover "}, tt.want...); !slices.Equal(got, want) {
				t.Errorf("did\n%q, want\n%q", got, want)
			}
		})
	}
}

func TestFailedBindingIsAnError(t *testing.T) {
	w := newWorld()
	inst := w.instance("a", "cmp1", vmActive, "", on)
	inst.Object("info_cache").SetClean("network_info", `[{"id":"p","type":"binding_failed"}]`)
	if err := w.recovery(false).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"recover ", "fault a 500", "save a if[] task_state=<nil> vm_state=error"}; !slices.Equal(w.done(), want) {
		t.Errorf("did %q", w.done())
	}
}

func TestNothingIsDoneWithoutAnAnswer(t *testing.T) {
	for _, verb := range []string{"recover", "list", "migrations"} {
		t.Run(verb, func(t *testing.T) {
			w := newWorld()
			w.instance("a", "cmp1", vmBuilding, taskSpawning, on)
			w.fail[verb] = errAway
			r := w.recovery(false)
			if err := r.Run(t.Context()); !errors.Is(err, errAway) {
				t.Fatalf("Run = %v", err)
			}
			if got := w.done(); !slices.Equal(got, []string{"recover "}) {
				t.Errorf("did %q", got)
			}
			delete(w.fail, verb)
			if err := r.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(w.done(), "destroy a") {
				t.Errorf("the second run did %q", w.done())
			}
		})
	}
}

func TestAdoptIsOnce(t *testing.T) {
	w := newWorld()
	r := w.recovery(false)
	if err := r.Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.done(); !slices.Equal(got, []string{"recover "}) {
		t.Errorf("did %q", got)
	}
}

func TestUnknownGuestIsLeftAlone(t *testing.T) {
	w := newWorld()
	w.instance("a", "cmp1", vmBuilding, taskSpawning, on)
	w.fail["info"] = errdefs.ErrUnavailable
	if err := w.recovery(false).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.done(); !slices.Equal(got, []string{"recover "}) {
		t.Errorf("did %q", got)
	}
}

func TestOtherHostsInstanceIsLeftAlone(t *testing.T) {
	w := newWorld()
	w.instance("a", "cmp2", vmBuilding, taskDeleting, on)
	w.consumers = []string{"a"}
	if err := w.recovery(true).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.done(); !slices.Equal(got, []string{"recover "}) {
		t.Errorf("did %q", got)
	}
}

func TestEvacuated(t *testing.T) {
	migration := func(uuid string) *objects.Object {
		m := &objects.Object{Name: "Migration", Version: "1.7"}
		m.SetClean("instance_uuid", uuid)
		return m
	}
	w := newWorld()
	w.instance("gone", "", vmActive, "", on)
	w.rows["gone"].SetClean("host", "cmp2")
	w.instance("back", "cmp1", vmActive, "", on)
	w.instance("nowhere", "", vmActive, "", on)
	w.migrations = []*objects.Object{migration("gone"), migration("back"), migration("nowhere"), migration("unknown")}
	if err := w.recovery(false).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"recover ", "destroy gone", "removeprovider gone rp", "savemigration completed", "plug back port-back"}
	if got := w.done(); !slices.Equal(got, want) {
		t.Errorf("did %q, want %q", got, want)
	}
}

// Instances that have left this host, and confirmations, that the end of the
// service has cut off.
func TestMovesFromHere(t *testing.T) {
	const there = "cmp2"
	move := func(w *world, uuid, status string) {
		m := &objects.Object{Name: "Migration", Version: "1.7"}
		m.SetClean("instance_uuid", uuid)
		m.SetClean("status", status)
		w.moves = append(w.moves, m)
	}
	for name, tc := range map[string]struct {
		task, status string
		guest        driver.PowerState
		want         []string
	}{
		"left and lost":        {taskResizeMigrated, "post-migrating", driver.PowerShutdown, []string{"fault a 500", "abandon move a"}},
		"arriving there":       {taskResizeFinish, "post-migrating", driver.PowerShutdown, nil},
		"arrived there":        {"", "finished", driver.PowerShutdown, nil},
		"reverting there":      {taskResizeReverting, "reverting", driver.PowerShutdown, nil},
		"reverted and lost":    {taskResizeReverting, "reverted", driver.PowerShutdown, []string{"fault a 500", "abandon move a"}},
		"turned back and lost": {taskResizeReverting, "error", driver.PowerShutdown, []string{"fault a 500", "abandon move a"}},
		"confirming":           {"", "confirming", driver.PowerShutdown, []string{"confirm move a confirming"}},
		"confirmed nearly":     {"", "confirming", missing, []string{"confirm move a confirming"}},
		"of nobody here":       {taskResizeMigrated, "post-migrating", missing, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.instance("a", there, vmActive, tc.task, tc.guest)
			move(w, "a", tc.status)
			w.guests["operators-own"] = driver.PowerRunning
			if err := w.recovery(false).Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := w.done(); !slices.Equal(got[1:], tc.want) {
				t.Errorf("did %q, want %q", got[1:], tc.want)
			}
		})
	}
}

func TestUnclaimedBuilds(t *testing.T) {
	w := newWorld()
	w.instance("waiting", "", vmBuilding, taskScheduling, missing)
	w.instance("elsewhere", "cmp2", vmBuilding, taskSpawning, missing)
	w.instance("runs", "cmp1", vmActive, "", on)
	w.consumers = []string{"waiting", "elsewhere", "runs", "a-migration"}
	if err := w.recovery(false).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"recover ", "plug runs port-runs", "save waiting if[scheduling] task_state=<nil> vm_state=error"}
	if got := w.done(); !slices.Equal(got, want) {
		t.Errorf("did %q, want %q", got, want)
	}
	for _, verb := range []string{"consumers", "filter"} {
		w.did, w.fail[verb] = nil, errAway
		w.instance("waiting", "", vmBuilding, taskScheduling, missing)
		if err := w.recovery(false).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := w.done(); !slices.Equal(got, []string{"recover ", "plug runs port-runs"}) {
			t.Errorf("without %s: did %q", verb, got)
		}
		delete(w.fail, verb)
	}
}
