package driver

import (
	"context"
)

// Suspender can put a running guest aside and let it go on later.
type Suspender interface {
	// Suspend puts a running guest aside with its memory, which is on the disk
	// from then on where the host can do that: Info says PowerSuspended, also over
	// an end of the service, until Resume, or until PowerOff or Destroy drop what
	// was kept. A suspended instance is success. errdefs.ErrUnsupported, with a
	// public text: this host, or this guest, cannot; errdefs.ErrConflict: it does
	// not run. On error it runs on.
	Suspend(ctx context.Context, uuid InstanceUUID) error

	// Resume lets a suspended guest go on where it was, with the network of req. A
	// guest that is not suspended (any more) is started if it does not run. On
	// error a suspended instance stays one. PowerOn does the same.
	Resume(ctx context.Context, req PowerOnRequest) error
}
