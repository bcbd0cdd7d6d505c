package tracker

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// heal removes allocations of this host whose instance is deleted. Nothing else
// is touched: a consumer that nobody knows may be a migration, one without a
// host is being scheduled, and one on another host is for that host, or for a
// person, to settle.
//
// Each consumer is looked up by itself; an account that is empty although the
// driver has guests is not believed at all.
func (t *Tracker) heal(ctx context.Context) error {
	id := t.NodeUUID()
	consumers, err := t.deps.Reporter.Consumers(ctx, id)
	if err != nil {
		return fmt.Errorf("heal allocations: %w", err)
	}
	t.mu.Lock()
	tracked := maps.Clone(t.used)
	t.mu.Unlock()
	if len(tracked) == 0 && len(consumers) > 0 {
		guests, err := t.deps.Driver.Instances(ctx)
		if err != nil {
			return fmt.Errorf("heal allocations: %w", err)
		}
		if len(guests) > 0 {
			t.log.Warn().Int("guests", len(guests)).Msg("no instance is known of this host that has guests, allocations are not healed")
			return nil
		}
	}
	for _, consumer := range consumers {
		if _, ok := tracked[consumer]; ok {
			continue
		}
		if err := t.healOne(ctx, consumer); err != nil {
			return fmt.Errorf("heal allocation of %s: %w", consumer, err)
		}
	}
	return nil
}

func (t *Tracker) healOne(ctx context.Context, consumer string) error {
	rc := messaging.AdminContext().WithReadDeleted("yes")
	inst, err := t.deps.Conductor.GetInstance(ctx, rc, consumer)
	if messaging.IsRemote(err, "InstanceNotFound") {
		return nil
	}
	if err != nil {
		return err
	}
	log := t.log.With().Str(logging.Instance, consumer).Logger()
	switch host := inst.String("host"); {
	case inst.String("uuid") != consumer:
		return nil
	case inst.Bool("deleted") && !inst.Bool("hidden"):
		err := t.deps.Reporter.HealAllocation(ctx, consumer)
		if errors.Is(err, errdefs.ErrConflict) {
			return nil // somebody else is at it
		}
		if err != nil {
			return err
		}
		log.Info().Msg("allocation of a deleted instance removed")
	case host != "" && host != t.opts.Host:
		log.Warn().Str(logging.Host, host).Msg("instance of another host holds an allocation here, it is left alone")
	}
	return nil
}
