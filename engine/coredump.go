package engine

import (
	"context"
	"fmt"
	"os"

	"github.com/gantry-project/gantry/engine/coredump"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// CoreDump writes the memory of a container's first process to an empty file, as
// a core that debuggers read, of at most limit bytes on the disk. The container is
// held still meanwhile and then goes on. errdefs.ErrConflict if it does not run.
// On error the file holds anything.
func (e *Engine) CoreDump(ctx context.Context, id ContainerID, to *os.File, limit int64) (res coredump.Result, err error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return res, err
	}
	defer unlock()
	if !c.running {
		return res, fmt.Errorf("core of container %s: it does not run: %w", id, errdefs.ErrConflict)
	}
	// what a commit leaves, a frozen container, is all that this one can leave
	end, err := e.begin(ctx, opCommit, c.rec.ID, commitIntent{Frozen: !c.paused})
	if err != nil {
		return res, err
	}
	defer end()
	thaw, err := e.hold(ctx, c)
	if err != nil {
		return res, fmt.Errorf("core of container %s: %w", id, err)
	}
	if err = failpoint.Hit("engine.coredump.frozen"); err == nil {
		res, err = coredump.Write(ctx, to, c.rec.Pid, limit)
	}
	if e := thaw(); err == nil {
		err = e
	}
	if err != nil {
		return res, fmt.Errorf("core of container %s: %w", id, err)
	}
	return res, nil
}
