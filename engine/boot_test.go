package engine_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// loseRunner gives the host a runner that knows nothing, as when the keeper was
// lost, and returns the old one.
func loseRunner(t *testing.T, h *enginetest.Host) process.Runner {
	t.Helper()
	old := h.Runner
	fresh, err := process.New(process.Options{Log: zerolog.New(zerolog.NewTestWriter(t))})
	check(t, err)
	t.Cleanup(func() { check(t, fresh.Close()) })
	h.Runner = fresh
	return old
}

func stateOf(t *testing.T, e *engine.Engine, id engine.ContainerID) engine.State {
	t.Helper()
	s, err := e.State(t.Context(), id)
	check(t, err)
	return s
}

// TestALostRunner: the engine's runner knows none of the processes, because the
// keeper was lost. What runs goes on, is seen to end, and can be started again.
func TestALostRunner(t *testing.T) {
	h, e, done := fixture(t)
	for _, id := range []engine.ContainerID{"ends", "stops", "deleted", "gone"} {
		run(t, e, id)
		console(t, e, id, "up as 1")
	}
	was := stateOf(t, e, "ends")
	done()
	old := loseRunner(t, h)
	check(t, old.Signal(t.Context(), "gone", int(unix.SIGKILL)))
	_, err := old.Wait(t.Context(), "gone")
	check(t, err)

	e, done = h.Engine(t)
	for _, id := range []engine.ContainerID{"ends", "stops", "deleted"} {
		if s := stateOf(t, e, id); s.Status != engine.StatusRunning || !s.Unattended {
			t.Errorf("%s: %+v", id, s)
		}
	}
	if s := stateOf(t, e, "ends"); s.Process != was.Process {
		t.Errorf("adopted %+v, was %+v", s.Process, was.Process)
	}
	if s := stateOf(t, e, "gone"); s.Status != engine.StatusStopped || s.Exit.Known || s.Exit.Cause != engine.CauseUnseen {
		t.Errorf("gone: %+v", s)
	}
	check(t, e.Pause(t.Context(), "ends"))
	// once more, by a second engine
	done()
	e, done = h.Engine(t)
	defer done()
	if s := stateOf(t, e, "ends"); s.Status != engine.StatusPaused || !s.Unattended {
		t.Errorf("second adoption: %+v", s)
	}
	check(t, e.Resume(t.Context(), "ends"))
	if err := e.Start(t.Context(), "ends", initRequest); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("start of what runs: %v", err)
	}

	check(t, unix.Kill(was.Process.Pid, unix.SIGKILL))
	exit, err := e.Wait(t.Context(), "ends")
	if err != nil || exit.Known || exit.Cause != engine.CauseUnseen || exit.Time.IsZero() {
		t.Errorf("end: %+v %v", exit, err)
	}
	check(t, e.Stop(t.Context(), "stops", engine.StopRequest{Timeout: 20 * time.Second, Retry: time.Second}))
	if s := stateOf(t, e, "stops"); s.Status != engine.StatusStopped || s.Unattended || s.Exit.Known {
		t.Errorf("stopped: %+v", s)
	}
	check(t, e.Start(t.Context(), "stops", initRequest))
	console(t, e, "stops", "up as 1")
	if s := stateOf(t, e, "stops"); s.Unattended {
		t.Errorf("started again: %+v", s)
	}
	for _, id := range []engine.ContainerID{"ends", "stops", "deleted", "gone"} {
		check(t, e.Delete(t.Context(), id))
	}
	nothing(t, h, e)
}

// reboot takes everything of the host that does not outlive its kernel, and
// gives it another boot id.
func reboot(t *testing.T, h *enginetest.Host, ids ...engine.ContainerID) {
	t.Helper()
	ctx := t.Context()
	old := loseRunner(t, h)
	for _, id := range ids {
		group, err := h.Cgroups.Open(ctx, string(id))
		if err == nil {
			check(t, group.Kill(ctx))
			_, err = old.Wait(ctx, string(id))
			check(t, errors.Join(err, group.Delete(ctx)))
		}
		err = unix.Unmount(filepath.Join(h.Root, "ns", string(id), "net"), unix.MNT_DETACH)
		if !errors.Is(err, unix.ENOENT) { // nobody has asked for it
			check(t, err)
		}
	}
	h.BootID = "another boot of the kernel"
}

// TestAReboot: records say that what ran was lost to it, nothing is started, and
// the next start makes anew what the kernel had.
func TestAReboot(t *testing.T) {
	h, e, done := fixture(t)
	run(t, e, "c")
	console(t, e, "c", "up as 1")
	_, err := e.NetNS(t.Context(), "c")
	check(t, err)
	done()
	reboot(t, h, "c")
	for round := range 2 { // the second engine after the reboot knows it too
		e, done = h.Engine(t)
		if s := stateOf(t, e, "c"); s.Status != engine.StatusStopped || s.Exit.Known || s.Exit.Cause != engine.CauseReboot {
			t.Errorf("round %d: %+v", round, s)
		}
		if round == 0 {
			done()
		}
	}
	defer done()
	h.BootID = ""
	net, err := e.NetNS(t.Context(), "c")
	check(t, err)
	var st unix.Statfs_t
	if err := unix.Statfs(net, &st); err != nil || st.Type != unix.NSFS_MAGIC {
		t.Errorf("network namespace %+v %v", st, err)
	}
	check(t, e.Start(t.Context(), "c", initRequest))
	console(t, e, "c", "up as 1")
	if s := stateOf(t, e, "c"); s.Status != engine.StatusRunning || s.Exit.Cause != "" {
		t.Errorf("started: %+v", s)
	}
	check(t, e.Delete(t.Context(), "c"))
	nothing(t, h, e)
}

// TestAnotherProcessWithThePid: the pid of the record belongs to somebody else,
// after a reboot or within one boot; it is never touched.
func TestAnotherProcessWithThePid(t *testing.T) {
	boot, err := linux.BootID()
	check(t, err)
	for name, c := range map[string]struct {
		boot  string
		shift uint64 // of the start time
		cause engine.ExitCause
	}{
		"after a reboot, by chance with the same start time": {"an earlier boot", 0, engine.CauseReboot},
		"in this boot": {boot, 1, engine.CauseUnseen},
	} {
		t.Run(name, func(t *testing.T) {
			h, e, done := fixture(t)
			check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
			done()
			stranger := exec.Command("/bin/busybox", "sleep", "1000")
			check(t, stranger.Start())
			defer func() { _ = stranger.Process.Kill(); _ = stranger.Wait() }()
			started, err := linux.StartTime(stranger.Process.Pid)
			check(t, err)
			edit(t, h, func(s *store.Bolt) error {
				rec, err := s.Container(t.Context(), "c")
				rec.Pid, rec.StartTime, rec.BootID, rec.Started = stranger.Process.Pid, started-c.shift, c.boot, time.Now()
				return errors.Join(err, s.PutContainer(t.Context(), rec))
			})
			e, done = h.Engine(t)
			defer done()
			if s := stateOf(t, e, "c"); s.Status != engine.StatusStopped || s.Exit.Cause != c.cause {
				t.Errorf("%+v", s)
			}
			check(t, e.Delete(t.Context(), "c"))
			if _, err := os.Stat("/proc/" + strconv.Itoa(stranger.Process.Pid)); err != nil {
				t.Errorf("the stranger: %v", err)
			}
			check(t, unix.Kill(stranger.Process.Pid, 0))
		})
	}
}
