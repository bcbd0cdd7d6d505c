package local

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
)

// A guest that reboots itself each time before it has lived for shortLife is
// started again maxReboots times in a row, and then stays off: something in it
// is broken, and each start costs the host.
const (
	shortLife  = 10 * time.Second
	maxReboots = 5
)

// reboots is what is remembered of the instances of this life of the service.
// The zero value is ready.
type reboots struct {
	mu   sync.Mutex
	vifs map[driver.InstanceUUID]objects.NetworkInfo // guarded by mu; the network as it was made last
	row  map[driver.InstanceUUID]int                 // guarded by mu; reboots after short lives
}

func (r *reboots) plugged(uuid driver.InstanceUUID, vifs objects.NetworkInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.vifs == nil {
		r.vifs, r.row = map[driver.InstanceUUID]objects.NetworkInfo{}, map[driver.InstanceUUID]int{}
	}
	r.vifs[uuid] = vifs
}

func (r *reboots) network(uuid driver.InstanceUUID) (objects.NetworkInfo, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	vifs, ok := r.vifs[uuid]
	return vifs, ok
}

func (r *reboots) forget(uuid driver.InstanceUUID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.vifs, uuid)
	delete(r.row, uuid)
}

// mayStart counts a reboot after a life and reports whether it is one too many.
func (r *reboots) mayStart(uuid driver.InstanceUUID, life time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.row == nil {
		r.vifs, r.row = map[driver.InstanceUUID]objects.NetworkInfo{}, map[driver.InstanceUUID]int{}
	}
	if life >= shortLife {
		delete(r.row, uuid)
		return true
	}
	r.row[uuid]++
	return r.row[uuid] <= maxReboots
}

// rebooting reports whether the guest has rebooted itself and is to be started
// again.
func rebooting(s engine.State) bool {
	return s.Status == engine.StatusStopped && s.Exit.Cause == engine.CauseGuestReboot
}

// again starts an instance that has rebooted itself, with its disk, network and
// console, and returns "". Otherwise it returns why the instance stays off. A
// caller who stops, starts or destroys the instance meanwhile comes first.
func (d *Driver) again(ctx context.Context, uuid driver.InstanceUUID) (reason string) {
	if failpoint.Hit("local.again") != nil {
		return "" // as if the service had ended here
	}
	err := d.startAgain(ctx, uuid)
	log := d.opts.Log.With().Str(logging.Instance, string(uuid)).Logger()
	switch {
	case err == nil:
		log.Info().Msg("the guest has rebooted itself")
		return ""
	case errors.Is(err, errdefs.ErrNotFound), errors.Is(err, errdefs.ErrConflict), ctx.Err() != nil:
		log.Debug().Err(err).Msg("reboot of the guest overtaken")
		return ""
	}
	log.Warn().Err(err).Msg("the guest has rebooted itself and stays off")
	if err := d.opts.Engine.Stop(ctx, container(uuid), engine.StopRequest{}); err != nil {
		log.Error().Err(err).Msg("settle the end of an instance")
	}
	return errdefs.PublicText(err, "it rebooted itself and could not be started again")
}

func (d *Driver) startAgain(ctx context.Context, uuid driver.InstanceUUID) error {
	unlock, err := d.plugs.Lock(ctx, uuid)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := d.opts.Engine.State(ctx, container(uuid))
	if err != nil {
		return err
	}
	if !rebooting(s) || !Owns(s.Labels) {
		return fmt.Errorf("instance %s is not rebooting: %w", uuid, errdefs.ErrConflict)
	}
	if !d.reboots.mayStart(uuid, s.Exit.Time.Sub(s.Started)) {
		return errdefs.WithPublic(fmt.Errorf("instance %s: reboot %d in a row: %w", uuid, maxReboots+1, errdefs.ErrExhausted),
			fmt.Sprintf("it rebooted itself %d times in a row, each time within %s of its start", maxReboots+1, shortLife))
	}
	g, err := guestOf(s)
	if err != nil {
		return err
	}
	// a guest that goes down takes its addresses away; the service that was
	// killed meanwhile plugs when it knows the network (driver.Recoverer)
	vifs, known := d.reboots.network(uuid)
	if known {
		if err := d.plug(ctx, uuid, vifs); err != nil {
			return err
		}
	}
	req, err := d.startRequest(uuid, g, networkFiles(vifs))
	if err != nil {
		return err
	}
	req.Again = true
	return d.opts.Engine.Start(ctx, container(uuid), req)
}

// recoverReboots starts the guests whose reboot the end of the service has cut
// off.
func (d *Driver) recoverReboots(ctx context.Context, states []engine.State) {
	var all sync.WaitGroup
	for _, s := range states {
		if rebooting(s) && Owns(s.Labels) {
			all.Go(func() { d.again(ctx, driver.InstanceUUID(s.ID)) })
		}
	}
	all.Wait()
}
