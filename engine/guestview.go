package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/engine/view"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// GuestView is what guests are shown instead of the host's numbers. A container
// has it from its next start on.
type GuestView struct {
	// Dir is where the view is served (engine/view/server); "" shows the host's
	// files.
	Dir string
	// Processors gives the processes of a container as many of them as its quota
	// allows at once (sched_setaffinity(2)), so that programs that count those
	// they may run on count the container's. The ones that fewest containers have
	// are taken. A process may take more for itself; it gains nothing.
	Processors bool
}

// shown is what the engine makes of GuestView.
type shown struct {
	hidden     []view.Place // nil without a view
	processors processors
}

// places are those of the view that this host's kernel has, too.
func (v GuestView) places() []view.Place {
	if v.Dir == "" {
		return nil
	}
	return slices.DeleteFunc(view.Places(), func(p view.Place) bool { return !exists(p.Path) })
}

// show gives a spec the view, and clocks that begin with the container.
func (e *Engine) show(spec *process.Spec, rec store.Container) {
	if e.shown.hidden == nil && !e.opts.View.Processors {
		return
	}
	spec.Mounts = slices.Clone(spec.Mounts)
	for _, p := range e.shown.hidden {
		spec.Mounts = append(spec.Mounts, process.Mount{
			Destination: p.Path, Type: "none", Source: filepath.Join(e.opts.View.Dir, rec.ID, p.Name),
			Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"},
		})
		if p.Dir { // what it hides needs no mask
			spec.MaskedPaths = slices.DeleteFunc(slices.Clone(spec.MaskedPaths), func(mask string) bool { return strings.HasPrefix(mask, p.Path+"/") })
		}
	}
	if e.shown.hidden != nil {
		spec.TimeOffsets = untilNow()
	}
	if rec.Runtime == "" { // others are told behind the start
		spec.FinalAffinity = e.shown.processors.take(ContainerID(rec.ID), rec.Limits)
	}
}

// untilNow are the offsets by which the clocks of a container begin now. Uptime,
// start times of processes and what counts from the boot then agree inside.
func untilNow() map[string]time.Duration {
	offsets := map[string]time.Duration{}
	for name, clock := range map[string]int32{"boottime": unix.CLOCK_BOOTTIME, "monotonic": unix.CLOCK_MONOTONIC} {
		var ts unix.Timespec
		if unix.ClockGettime(clock, &ts) == nil {
			offsets[name] = -time.Duration(ts.Nano())
		}
	}
	return offsets
}

// spread gives all processes of a running container the processors that its
// limits allow. That of one that ends meanwhile does not matter; one that is
// made meanwhile has what its parent has, so the list is gone through until
// nothing is new.
func (e *Engine) spread(ctx context.Context, c *container) {
	if !e.opts.View.Processors || !c.running {
		return
	}
	id := ContainerID(c.rec.ID)
	before := e.shown.processors.list(id)
	list := e.shown.processors.take(id, c.rec.Limits)
	if list == "" && before == "" {
		return
	}
	err := e.spreadTasks(ctx, id, e.shown.processors.set(list))
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		e.opts.Log.Warn().Err(err).Str(logging.Container, string(id)).Msg("some processes of a container see another number of processors")
	}
}

func (e *Engine) spreadTasks(ctx context.Context, id ContainerID, set unix.CPUSet) error {
	group, err := e.opts.Cgroups.Open(ctx, string(id))
	if err != nil {
		return err
	}
	const most = 10 // a fork bomb makes more for ever
	done := map[string]bool{}
	for range most {
		pids, err := group.Pids(ctx)
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			for _, task := range tasksOf(pid) {
				if done[task] {
					continue
				}
				done[task], fresh = true, true
				if err := setAffinity(task, &set); err != nil {
					return err
				}
			}
		}
		if !fresh {
			return nil
		}
	}
	return nil
}

// adoptProcessors takes note of what an earlier engine gave a container.
func (e *Engine) adoptProcessors(c *container) {
	var set unix.CPUSet
	if e.opts.View.Processors && unix.SchedGetaffinity(c.rec.Pid, &set) == nil {
		e.shown.processors.adopt(ContainerID(c.rec.ID), &set)
	}
}

// tasksOf are the threads of a process, none of one that has ended.
func tasksOf(pid int) []string {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what was read before it ended
	return names
}
