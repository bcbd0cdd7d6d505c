package driver

import "context"

// CrashDumper can keep the memory of a guest for whoever looks for its fault.
type CrashDumper interface {
	// CrashDump keeps the memory of the guest's first process as a file of the
	// host's, for its operator, in the place of an earlier one of the instance; the
	// implementation says where, and bounds what all of them take. The guest goes
	// on. Destroy removes the file. errdefs.ErrUnsupported: this host keeps none;
	// errdefs.ErrConflict: the guest does not run; errdefs.ErrExhausted: there is
	// no room. On error there is no file, or the earlier one.
	CrashDump(ctx context.Context, uuid InstanceUUID) error
}
