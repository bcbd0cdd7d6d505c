package engine

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// ExitCause says why a container ended, or why that is not known. A first
// process that ended by itself has none.
type ExitCause string

// The causes. CauseReboot and CauseUnseen are those of an exit that is not known.
const (
	// CauseStopped: Stop or Delete wanted it.
	CauseStopped ExitCause = "stopped"
	// CauseGuestReboot: the guest has rebooted itself and has not been started
	// again. Who started it does so, with StartRequest.Again, or settles by Stop
	// that it stays ended.
	CauseGuestReboot ExitCause = "guest-reboot"
	// CauseGuestOff: the guest has halted itself or switched itself off.
	CauseGuestOff ExitCause = "guest-off"
	// CauseReboot: the host was rebooted, or lost power, while it ran. Who
	// started it decides whether it is started again; the engine does not.
	CauseReboot ExitCause = "host-reboot"
	// CauseUnseen: it ended while nobody was there to see how.
	CauseUnseen ExitCause = "unseen"
)

// causeOf says why a process ended that the runner has seen end. The kernel
// tells a reboot(2) of a pid namespace by the signal that its first process is
// said to have died of: SIGHUP for a restart, SIGINT for halt and power-off
// (kernel/pid_namespace.c, reboot_pid_ns). Neither can come from elsewhere: a
// first process gets no signal that it does not handle.
func causeOf(exit ExitState, asked bool) ExitCause {
	switch {
	case exit.Cause != "":
		return exit.Cause
	case !exit.Known:
		return CauseUnseen
	case asked:
		return CauseStopped
	case exit.Signal == int(unix.SIGHUP):
		return CauseGuestReboot
	case exit.Signal == int(unix.SIGINT):
		return CauseGuestOff
	}
	return ""
}

// settleReboot notes that a guest which has rebooted itself stays ended. The
// caller holds the container's lock.
func (e *Engine) settleReboot(ctx context.Context, c *container) error {
	if c.running || c.exit.Cause != CauseGuestReboot {
		return nil
	}
	c.awaitRecord()
	rec := c.rec
	rec.ExitCause = string(CauseStopped)
	if err := e.opts.Store.PutContainer(ctx, rec); err != nil {
		return fmt.Errorf("settle container %s: %w", rec.ID, err)
	}
	c.rec, c.exit.Cause = rec, CauseStopped
	return nil
}

// settleUnknown handles a container whose process the runner does not know.
// The record decides which of these it is:
//
//   - it is not known to run: whatever there is of it is ended;
//   - it ran in another boot of the kernel: it ended with that, and nothing of
//     this boot is touched on its account, least of all a process with its pid;
//   - its process lives: the keeper that held it was lost. It is adopted, with
//     its console lost and its exit status unknown when it comes;
//   - its process is gone: it ended unseen.
func (e *Engine) settleUnknown(ctx context.Context, c *container) error {
	rec := c.rec
	id := ContainerID(rec.ID)
	p := process.Process{Pid: rec.Pid, StartTime: rec.StartTime, BootID: rec.BootID}
	switch {
	case p.Pid == 0 && rec.Started.IsZero():
		_, err := e.end(ctx, rec.ID)
		return errors.Join(err, e.unmount(ctx, id), e.ungroup(ctx, rec.ID))
	case p.Pid == 0:
		c.running = true
		return e.ended(ctx, c, c.exit)
	case p.BootID != e.boot:
		c.running = true
		return e.ended(ctx, c, ExitState{Cause: CauseReboot})
	case e.strays.adopt(rec.ID, p, e.boot):
		e.unattended(id, c)
		e.takeOver(ctx, id, c)
		return nil
	}
	c.running = true
	return e.ended(ctx, c, ExitState{Cause: CauseUnseen})
}

// takeOver looks after a process that runs.
func (e *Engine) takeOver(ctx context.Context, id ContainerID, c *container) {
	c.running, c.done, c.exit = true, make(chan struct{}), ExitState{}
	group, err := e.opts.Cgroups.Open(ctx, string(id))
	if err == nil {
		c.paused, err = group.Frozen(ctx)
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		e.opts.Log.Warn().Err(err).Str(logging.Container, string(id)).Msg("read control group")
	}
	e.holdRoot(ctx, c)
	e.adoptProcessors(c)
	e.watch(id, c)
}
