package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// parallel is how many instances are recovered at a time.
const parallel = 8

// Recovery is one start of the service. Not safe for concurrent use.
type Recovery struct {
	deps      Deps
	opts      Options
	log       zerolog.Logger
	recovered bool
}

// New returns the recovery of one start.
func New(deps Deps, opts Options, log zerolog.Logger) *Recovery {
	return &Recovery{deps: deps, opts: opts, log: log}
}

// Run adopts what the driver kept and settles every instance of this host.
//
// It must end before the service takes messages. An error means that the
// driver or the control plane could not be asked and that nothing was decided;
// Run may then be called again. What fails for one instance is logged, sets
// that instance to error where the table says so, and stops no other.
func (r *Recovery) Run(ctx context.Context) error {
	began := time.Now()
	if err := r.Adopt(ctx); err != nil {
		return err
	}
	rc := messaging.AdminContext()
	instances, err := r.deps.Conductor.InstancesByHost(ctx, rc, r.opts.Host,
		"info_cache", "metadata", "system_metadata", "flavor", "numa_topology")
	if err != nil {
		return fmt.Errorf("recover host %s: list instances: %w", r.opts.Host, err)
	}
	handled, err := r.evacuated(ctx)
	if err != nil {
		return fmt.Errorf("recover host %s: evacuations: %w", r.opts.Host, err)
	}
	var group errgroup.Group
	group.SetLimit(parallel)
	for _, inst := range instances {
		handled[inst.String("uuid")] = struct{}{}
		group.Go(func() error {
			r.settle(ctx, inst)
			return nil
		})
	}
	if err := errors.Join(group.Wait(), ctx.Err()); err != nil {
		return fmt.Errorf("recover host %s: %w", r.opts.Host, err)
	}
	r.moves(ctx, instances)
	r.unclaimed(ctx, handled)
	r.log.Info().Int("instances", len(instances)).Dur(logging.Took, time.Since(began)).Msg("instances recovered")
	return nil
}

// Adopt lets the driver take over what an earlier process left. It does so once,
// before anything else is asked of the driver: a service that needs the driver
// earlier than Run, to identify the node for example, calls it itself.
func (r *Recovery) Adopt(ctx context.Context) error {
	rec, ok := r.deps.Driver.(driver.Recoverer)
	if !ok || r.recovered {
		return nil
	}
	here, err := rec.Recover(ctx)
	if err != nil {
		return fmt.Errorf("recover host %s: driver: %w", r.opts.Host, err)
	}
	r.recovered = true
	r.log.Info().Int("guests", len(here)).Msg("guests adopted")
	return nil
}

// settle judges one instance and acts.
func (r *Recovery) settle(ctx context.Context, inst *objects.Object) {
	uuid := inst.String("uuid")
	log := r.log.With().Str(logging.Instance, uuid).
		Str("vm_state", inst.String("vm_state")).Str("task_state", inst.String("task_state")).Logger()
	found, present, err := r.look(ctx, inst)
	if err != nil {
		log.Error().Err(err).Msg("instance cannot be looked at and is left as it is")
		return
	}
	d := Decide(found)
	log = log.With().Str("action", string(d.Action)).Logger()
	switch d.Action {
	case Foreign:
		log.Warn().Str(logging.Host, inst.String("host")).Msg("instance belongs to another host and is left alone")
		return
	case Continue:
		log.Debug().Str("power_state", found.Real.String()).Msg("instance needs no repair")
	default:
		log.Info().Str("power_state", found.Real.String()).Msg("instance was in the middle of something")
	}
	if err := r.act(ctx, inst, d, present); err != nil {
		log.Error().Err(err).Msg("recovery of the instance is not complete")
	}
}

// look finds out what Decide needs, and whether a guest is here at all.
func (r *Recovery) look(ctx context.Context, inst *objects.Object) (Found, bool, error) {
	f := Found{
		Ours:      inst.String("host") == r.opts.Host,
		VMState:   inst.String("vm_state"),
		TaskState: inst.String("task_state"),
		Stored:    driver.PowerState(inst.Int("power_state")),
		Resume:    r.opts.ResumeGuests,
	}
	info, err := r.deps.Driver.Info(ctx, driver.InstanceUUID(inst.String("uuid")))
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return f, false, nil
	case err != nil:
		return f, false, err
	}
	f.Real, f.Rescued = info.State, info.Rescued
	return f, true, nil
}
