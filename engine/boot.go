package engine

import (
	"context"
	"errors"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// ExitCause says why it is not known how a container ended.
type ExitCause string

// The causes. A known exit has none.
const (
	// CauseReboot: the host was rebooted, or lost power, while it ran. Who
	// started it decides whether it is started again; the engine does not.
	CauseReboot ExitCause = "host-reboot"
	// CauseUnseen: it ended while nobody was there to see how.
	CauseUnseen ExitCause = "unseen"
)

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
	c.running, c.done = true, make(chan struct{})
	group, err := e.opts.Cgroups.Open(ctx, string(id))
	if err == nil {
		c.paused, err = group.Frozen(ctx)
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		e.opts.Log.Warn().Err(err).Str(logging.Container, string(id)).Msg("read control group")
	}
	e.holdRoot(ctx, c)
	e.watch(id, c)
}
