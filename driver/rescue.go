package driver

import (
	"context"

	"github.com/gantry-project/gantry/driver/objects"
)

// Rescuer can run another system in an instance's place, to repair the instance
// with.
type Rescuer interface {
	// Rescue stops the guest and runs a new one of req.Image, on a disk of its
	// own, with the instance's name, size, addresses, key and config drive. The
	// instance's disk is below it, to be read and written; where, is the
	// implementation's to document. AdminPassword becomes root's as in a Spawn.
	// Whatever starts the instance from now on starts that system; what the
	// instance's own disk is asked for (Snapshot) stays its own. Destroy removes
	// both.
	//
	// Everything that can be found wrong is, before the guest is stopped: image
	// and flavor with the errors of Spawn. On any error the instance has its own
	// system again and runs if it ran. A Rescue of a rescued instance has a new
	// system in the end, or on error its own. errdefs.ErrNotFound if the instance
	// is absent.
	Rescue(ctx context.Context, req RescueRequest) error

	// Unrescue stops the system that Rescue has started, removes its disk, and
	// starts the instance's own if asked. An instance that is not rescued
	// is started if asked and if it does not run. Each part is idempotent.
	Unrescue(ctx context.Context, req UnrescueRequest) error
}

// RescueRequest asks for another system in an instance's place.
type RescueRequest struct {
	// SpawnRequest describes the instance, with the image to run instead of its
	// own. Files and Drive are not used.
	SpawnRequest
	// Off says how patient to be with the guest.
	Off PowerOffOptions
}

// UnrescueRequest asks for the instance's own system again.
type UnrescueRequest struct {
	UUID InstanceUUID
	// VIFs is the present network.
	VIFs    objects.NetworkInfo
	PowerOn bool
}
