package local_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// inside runs a command in an instance and returns when it has ended, which a
// reboot makes it.
func (r *rig) inside(t testing.TB, uuid driver.InstanceUUID, command ...string) {
	t.Helper()
	id := engine.ContainerID(uuid)
	s, err := r.engine.Exec(t.Context(), id, engine.ExecRequest{Args: command})
	check(t, err)
	_, err = r.engine.ExecWait(t.Context(), id, s.ID)
	check(t, err)
}

func (r *rig) reboot(t testing.TB, uuid driver.InstanceUUID) {
	t.Helper()
	r.inside(t, uuid, "/bin/busybox", "reboot", "-f")
}

// boots polls the console until the guest has come up so many times.
func (r *rig) boots(t testing.TB, uuid driver.InstanceUUID, n int) {
	t.Helper()
	r.eventually(t, func() bool {
		return strings.Count(string(must(r.driver.ConsoleOutput(t.Context(), uuid, -1))(t)), "up as 1") >= n
	})
}

func (r *rig) eventually(t testing.TB, ask func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 24000 {
		if ask() {
			return
		}
		<-tick.C
	}
	t.Fatal("not in time")
}

func (r *rig) wantInfo(t testing.TB, uuid driver.InstanceUUID, want driver.Info) {
	t.Helper()
	if got := must(r.driver.Info(t.Context(), uuid))(t); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestAGuestsReboot: the addresses that the guest took away come back, and what
// it wrote is there.
func TestAGuestsReboot(t *testing.T) {
	r := newRig(t)
	req := withPort(t)
	check(t, r.driver.Spawn(t.Context(), req))
	r.boots(t, req.UUID, 1)
	links := func() []string {
		owners, err := r.plugger.Owners(t.Context())
		check(t, err)
		return owners
	}
	before := links()
	r.inside(t, req.UUID, "/bin/sh", "-c", "echo kept > /root/kept")
	r.reboot(t, req.UUID)
	r.boots(t, req.UUID, 2)
	r.inside(t, req.UUID, "/bin/sh", "-c", "cat /root/kept > /dev/console; cat /proc/net/fib_trie > /dev/console")
	r.console(t, req.UUID, "kept")
	r.console(t, req.UUID, "10.0.0.5")
	if after := links(); len(after) != len(before) {
		t.Errorf("links of %q, then of %q", before, after)
	}
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// TestAGuestsRebootIsFinished: the service ends between the guest's end and its
// start; the next life starts it.
func TestAGuestsRebootIsFinished(t *testing.T) {
	r := newRig(t)
	req, still := withPort(t), request()
	check(t, r.driver.Spawn(t.Context(), req))
	check(t, r.driver.Spawn(t.Context(), still))
	r.boots(t, req.UUID, 1)
	check(t, failpoint.Set("local.again", "error"))
	for _, uuid := range []driver.InstanceUUID{req.UUID, still.UUID} {
		r.reboot(t, uuid)
		r.eventually(t, func() bool {
			return must(r.engine.State(t.Context(), engine.ContainerID(uuid)))(t).Status == engine.StatusStopped
		})
		r.wantInfo(t, uuid, driver.Info{State: driver.PowerRunning})
	}
	// the one that was stopped meanwhile stays off
	check(t, r.driver.PowerOff(t.Context(), still.UUID, driver.PowerOffOptions{}))
	check(t, failpoint.Set("local.again", ""))
	r.end()
	r.open(t)
	must(r.driver.Recover(t.Context()))(t)
	r.boots(t, req.UUID, 2)
	r.wantInfo(t, req.UUID, driver.Info{State: driver.PowerRunning})
	r.wantInfo(t, still.UUID, driver.Info{State: driver.PowerShutdown, Reason: "stopped"})
	check(t, r.driver.Destroy(t.Context(), req.UUID))
	check(t, r.driver.Destroy(t.Context(), still.UUID))
}

// TestAGuestThatOnlyReboots stays off in the end, and says why.
func TestAGuestThatOnlyReboots(t *testing.T) {
	r := newRig(t)
	req := request()
	req.Image.Properties = map[string]string{"os_command_line": `/bin/sh -c "echo up as 1; exec /bin/busybox reboot -f"`}
	check(t, r.driver.Spawn(t.Context(), req))
	select {
	case ev := <-r.driver.Events():
		if ev.UUID != req.UUID || !strings.Contains(ev.Reason, "rebooted itself 6 times in a row") {
			t.Errorf("event %+v", ev)
		}
	case <-time.After(time.Minute):
		t.Fatal("no event")
	}
	r.boots(t, req.UUID, 6)
	r.wantInfo(t, req.UUID, driver.Info{State: driver.PowerShutdown, Reason: "stopped"})
	check(t, r.driver.Destroy(t.Context(), req.UUID))
}

// TestHowAGuestEnded is what a tenant is told of it.
func TestHowAGuestEnded(t *testing.T) {
	r := newRig(t)
	for name, tc := range map[string]struct {
		command string
		want    driver.Info
	}{
		"power-off":      {"exec /bin/busybox poweroff -f", driver.Info{State: driver.PowerShutdown, Reason: "powered off from inside"}},
		"halt":           {"exec /bin/busybox halt -f", driver.Info{State: driver.PowerShutdown, Reason: "powered off from inside"}},
		"success":        {"exit 0", driver.Info{State: driver.PowerShutdown, Reason: "exited with status 0"}},
		"failure":        {"exit 3", driver.Info{State: driver.PowerCrashed, Reason: "exited with status 3"}},
		"out of memory":  {"exec tail /dev/zero", driver.Info{State: driver.PowerCrashed, Reason: "killed: out of memory"}},
		"killed, status": {"exit 137", driver.Info{State: driver.PowerCrashed, Reason: "exited with status 137"}},
	} {
		t.Run(name, func(t *testing.T) {
			req := request()
			req.Image.Properties = map[string]string{"os_command_line": `/bin/sh -c "` + tc.command + `"`}
			check(t, r.driver.Spawn(t.Context(), req))
			select {
			case ev := <-r.driver.Events():
				if ev.UUID != req.UUID || ev.Reason != tc.want.Reason {
					t.Errorf("event %+v", ev)
				}
			case <-time.After(time.Minute):
				t.Fatal("no event")
			}
			r.wantInfo(t, req.UUID, tc.want)
			check(t, r.driver.Destroy(t.Context(), req.UUID))
		})
	}
}
