package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Stop ends the container's processes and returns when none is left. It asks
// first when the request has a Timeout. A stopped container is success, and one
// that has rebooted itself stays ended then (CauseGuestReboot); a
// paused one is ended without asking, since it cannot answer.
func (e *Engine) Stop(ctx context.Context, id ContainerID, req StopRequest) error {
	done, err := e.ask(ctx, id, req)
	if err != nil || done {
		return err
	}
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if err := e.kill(ctx, c); err != nil {
		return fmt.Errorf("stop container %s: %w", id, err)
	}
	return nil
}

// ask sends the stop signal until the process has ended (done) or the time is
// up. The container is not locked meanwhile, so that a delete can overtake.
func (e *Engine) ask(ctx context.Context, id ContainerID, req StopRequest) (done bool, err error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return false, err
	}
	running, paused, ended, pid := c.running, c.paused, c.done, c.rec.Pid
	c.asked = c.asked || running
	err = errors.Join(e.settleReboot(ctx, c), c.loud())
	unlock()
	if !running || err != nil {
		return true, err
	}
	if paused || req.Timeout <= 0 {
		return false, nil
	}
	sig := req.Signal
	if sig == 0 {
		sig = stopSignal(pid)
	}
	if !handles(pid, sig) {
		return false, nil // the kernel would drop it: a first process has no default actions
	}
	deadline := time.NewTimer(req.Timeout)
	defer deadline.Stop()
	retry := req.Retry
	if retry <= 0 || retry > req.Timeout {
		retry = req.Timeout
	}
	again := time.NewTicker(retry)
	defer again.Stop()
	for {
		if err := e.opts.Runner.Signal(ctx, string(id), sig); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return false, fmt.Errorf("stop container %s: %w", id, err)
		}
		select {
		case <-ended:
			return true, nil
		case <-again.C:
		case <-deadline.C:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// stopSignal chooses by what the first process is. systemd takes SIGRTMIN+3
// for a power-off (systemd(1), Signals), busybox's init SIGUSR2; others are
// asked with SIGTERM.
func stopSignal(pid int) int {
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return int(unix.SIGTERM)
	}
	argv, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	name, _, _ := strings.Cut(string(argv), "\x00")
	switch {
	case filepath.Base(exe) == "systemd":
		return 34 + 3
	case filepath.Base(exe) == "busybox" && strings.HasSuffix(name, "init"):
		return int(unix.SIGUSR2)
	}
	return int(unix.SIGTERM)
}

// handles reports whether the process takes the signal. A first process of a
// pid namespace never gets a signal that it neither catches nor blocks
// (pid_namespaces(7)). While it waits in sigtimedwait(2), as busybox's init and
// tini do, the kernel does not show what it has blocked. When in doubt, it does.
func handles(pid, sig int) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	if takes, err := mask(proc, sig); err != nil || takes {
		return true
	}
	call, err := os.ReadFile(proc + "/syscall")
	number, _, _ := strings.Cut(string(call), " ")
	if err != nil || number == strconv.Itoa(unix.SYS_RT_SIGTIMEDWAIT) {
		return true
	}
	// it may have been on its way into or out of that call
	takes, err := mask(proc, sig)
	return err != nil || takes
}

// mask reports whether the signal is caught, or blocked to be fetched later
// (systemd reads its signals from a descriptor).
func mask(proc string, sig int) (bool, error) {
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		return false, err
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		name, value, _ := strings.Cut(line, ":")
		if name != "SigCgt" && name != "SigBlk" {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil || set&(1<<(sig-1)) != 0 {
			return err == nil, err
		}
	}
	return false, nil
}

// kill ends the container's processes and tidies up after them. The caller
// holds the container's lock.
func (e *Engine) kill(ctx context.Context, c *container) error {
	if !c.running {
		return nil
	}
	c.asked = true
	exit, err := e.end(ctx, c.rec.ID)
	if err != nil {
		return err
	}
	return e.ended(ctx, c, exit)
}

// end kills every process that carries the id and returns, when none is left,
// how the first one ended; Known is false when the runner cannot say. None at
// all is success.
func (e *Engine) end(ctx context.Context, id string) (ExitState, error) {
	group, err := e.opts.Cgroups.Open(ctx, id)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		// without a group only the first process can be reached; the kernel
		// ends the others with it
		if err := e.opts.Runner.Signal(ctx, id, int(unix.SIGKILL)); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return ExitState{}, err
		}
	case err != nil:
		return ExitState{}, err
	default:
		if err := group.Kill(ctx); err != nil {
			return ExitState{}, err
		}
	}
	exit, err := e.opts.Runner.Wait(ctx, id)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return ExitState{}, nil
	case err != nil:
		return ExitState{}, fmt.Errorf("wait for container %s: %w", id, err)
	}
	return ExitState{Exit: exit, Known: true}, nil
}

// ungroup removes the control group of processes that have ended.
func (e *Engine) ungroup(ctx context.Context, id string) error {
	group, err := e.opts.Cgroups.Open(ctx, id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return group.Delete(ctx)
}

// ended tidies up after the process: nothing of it stays mounted or grouped,
// and the record says how it went. The caller holds the container's lock. A
// second call for the same process does nothing.
func (e *Engine) ended(ctx context.Context, c *container, exit ExitState) error {
	if !c.running {
		return nil
	}
	exit.OOM = exit.OOM || e.outOfMemory(ctx, c.rec.ID, exit)
	// the first process may have ended by itself and left others: kill them all
	_, err := e.end(ctx, c.rec.ID)
	if err == nil {
		err = e.ungroup(ctx, c.rec.ID)
	}
	if err != nil {
		e.opts.Log.Warn().Err(err).Str(logging.Container, c.rec.ID).Msg("control group left behind")
	}
	done := c.done
	e.shown.processors.drop(ContainerID(c.rec.ID))
	c.recordExit(exit)
	e.tellExit(c)
	// both wait for the kernel, about 2 ms each, and neither needs the other
	var both sync.WaitGroup
	var unmounted error
	both.Go(func() { unmounted = e.unmount(ctx, ContainerID(c.rec.ID)) })
	c.awaitRecord()
	err = e.opts.Store.PutContainer(ctx, c.rec)
	both.Wait()
	err = errors.Join(unmounted, err, e.opts.Runner.Forget(ctx, c.rec.ID))
	if done != nil {
		close(done)
	}
	if err != nil {
		return fmt.Errorf("tidy up container %s: %w", c.rec.ID, err)
	}
	return nil
}

// tellExit tells subscribers how the container has ended.
func (e *Engine) tellExit(c *container) {
	id := ContainerID(c.rec.ID)
	if c.exit.OOM {
		e.bus.Publish(Event{Kind: EventOOM, ID: id})
	}
	e.bus.Publish(Event{Kind: EventExit, ID: id, Exit: c.exit, Asked: c.asked})
}

// outOfMemory reports whether the container ended because the kernel killed a
// process of it for memory: the first one, or one whose death the first, being
// a shell, passed on as its status.
func (e *Engine) outOfMemory(ctx context.Context, id string, exit ExitState) bool {
	if exit.Signal != int(unix.SIGKILL) && exit.Code != 128+int(unix.SIGKILL) {
		return false
	}
	group, err := e.opts.Cgroups.Open(ctx, id)
	if err != nil {
		return false
	}
	kills, err := group.OOMKills(ctx)
	return err == nil && kills > 0
}

// Pause freezes all processes. Idempotent; errdefs.ErrConflict if none runs.
func (e *Engine) Pause(ctx context.Context, id ContainerID) error {
	return e.freezer(ctx, id, true)
}

// Resume thaws them. Idempotent; errdefs.ErrConflict if none runs.
func (e *Engine) Resume(ctx context.Context, id ContainerID) error {
	return e.freezer(ctx, id, false)
}

func (e *Engine) freezer(ctx context.Context, id ContainerID, freeze bool) (err error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	verb, kind, change := "resume", EventResume, cgroup.Group.Thaw
	if freeze {
		verb, kind, change = "pause", EventPause, cgroup.Group.Freeze
	}
	if !c.running {
		return fmt.Errorf("%s container %s: it does not run: %w", verb, id, errdefs.ErrConflict)
	}
	err = c.loud()
	var group cgroup.Group
	if err == nil {
		group, err = e.opts.Cgroups.Open(ctx, string(id))
	}
	if err == nil {
		err = change(group, ctx)
	}
	if err != nil {
		return fmt.Errorf("%s container %s: %w", verb, id, err)
	}
	if c.paused != freeze {
		c.paused = freeze
		e.bus.Publish(Event{Kind: kind, ID: id})
	}
	return nil
}
