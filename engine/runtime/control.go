package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/oci"
	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// live returns the control group of a container in one of the states.
func (r *Runtime) live(ctx context.Context, op, id string, states ...Status) (*record, cgroup.Group, error) {
	rec, err := r.load(id)
	if err != nil {
		return nil, nil, err
	}
	status := r.status(ctx, rec)
	for _, s := range states {
		if s == status {
			g, err := r.group(ctx, rec)
			return rec, g, err
		}
	}
	if status == Stopped {
		return nil, nil, fmt.Errorf("%s container %s: container not running: %w", op, id, errdefs.ErrConflict)
	}
	return nil, nil, fmt.Errorf("%s container %s: it is %s: %w", op, id, status, errdefs.ErrConflict)
}

// Pause freezes all processes of a running or created container.
func (r *Runtime) Pause(ctx context.Context, id string) error {
	lock, err := r.lock(id)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	_, g, err := r.live(ctx, "pause", id, Running, Created)
	if err != nil {
		return err
	}
	return g.Freeze(ctx)
}

// Resume thaws a paused container; errdefs.ErrConflict if it is not paused.
func (r *Runtime) Resume(ctx context.Context, id string) error {
	lock, err := r.lock(id)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	_, g, err := r.live(ctx, "resume", id, Paused)
	if err != nil {
		return err
	}
	return g.Thaw(ctx)
}

// Update changes the limits of a container that has not ended: fields of change
// that are set replace those of the configuration and of earlier updates, and
// -1 lifts a limit. On error nothing has changed.
func (r *Runtime) Update(ctx context.Context, id string, change *specs.LinuxResources) error {
	lock, err := r.lock(id)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	_, g, err := r.live(ctx, "update", id, Running, Created, Paused)
	if err != nil {
		return err
	}
	now, err := r.resources(id)
	if err != nil {
		return err
	}
	if err := merge(now, change); err != nil {
		return join("update", id, err)
	}
	limits, _, err := oci.Resources(now)
	if err != nil {
		return join("update", id, err)
	}
	// Devices cannot change while the container runs (runc's rule too).
	limits.DeviceRules = nil
	if err := g.Update(ctx, limits); err != nil {
		return join("update", id, err)
	}
	data, err := json.Marshal(now)
	if err != nil {
		return join("update", id, err)
	}
	return atomicfile.Replace(r.path(id, resourcesFile), data, 0o600)
}

// resources are those in force.
func (r *Runtime) resources(id string) (*specs.LinuxResources, error) {
	f, err := os.Open(r.path(id, resourcesFile))
	if err == nil {
		defer func() { _ = f.Close() }()
		return oci.ParseResources(f)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	spec, err := r.config(id)
	if err != nil {
		return nil, err
	}
	if spec.Linux == nil || spec.Linux.Resources == nil {
		return &specs.LinuxResources{}, nil
	}
	return spec.Linux.Resources, nil
}

// merge puts the set fields of change into base: what JSON does when an object
// is decoded over another. Lists are replaced, devices kept.
func merge(base, change *specs.LinuxResources) error {
	devices := base.Devices
	data, err := json.Marshal(change)
	if err == nil {
		err = json.Unmarshal(data, base)
	}
	base.Devices = devices
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalid)
	}
	// A new limit of memory alone must not be refused for an old one of memory
	// and swap together.
	m := base.Memory
	if m != nil && change.Memory != nil && change.Memory.Limit != nil && change.Memory.Swap == nil &&
		m.Swap != nil && *m.Swap > 0 && (*m.Limit <= 0 || *m.Limit > *m.Swap) {
		m.Swap = nil
	}
	return nil
}

// Processes lists the processes of a container in the caller's numbers.
func (r *Runtime) Processes(ctx context.Context, id string) ([]int, error) {
	rec, err := r.load(id)
	if err != nil {
		return nil, err
	}
	g, err := r.group(ctx, rec)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return g.Pids(ctx)
}

// Stats reads the counters of a container that has not ended.
func (r *Runtime) Stats(ctx context.Context, id string) (cgroup.Stats, error) {
	_, g, err := r.live(ctx, "read counters of", id, Running, Created, Paused)
	if err != nil {
		return cgroup.Stats{}, err
	}
	return g.Stats(ctx)
}
