package driver

import "context"

// Quiescer can hold the file systems of a running guest still, for a copy of
// something that it writes to.
type Quiescer interface {
	// Quiesce brings what the guest has written to the disk and keeps it from
	// writing more, until Unquiesce. Nothing of that shows in Info. Idempotent.
	// errdefs.ErrConflict: it does not run. Whoever calls it has to see to it that
	// Unquiesce comes; a guest that an earlier life of the service has left so is
	// let go by Recover.
	Quiesce(ctx context.Context, uuid InstanceUUID) error
	// Unquiesce lets the guest go on. Idempotent. errdefs.ErrConflict: it does
	// not run.
	Unquiesce(ctx context.Context, uuid InstanceUUID) error
}
