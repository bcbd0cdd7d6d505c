package driver

import (
	"context"

	"github.com/gantry-project/gantry/driver/objects"
)

// Migrator can give an instance another size (Capabilities.Resize) and move it
// to another host (Capabilities.Migrate), in Nova's steps: ExpectMigration where
// it goes to, MigrateDiskAndPowerOff where it is, FinishMigration where it goes
// to, and in the end either ConfirmMigration where it was, or Destroy where it
// went to and FinishRevertMigration where it was. A resize on one host has no
// expectation, and its revert no Destroy.
//
// Until ConfirmMigration the host that the instance comes from keeps all of it.
// Each step is idempotent and may be repeated by a later life of the service.
type Migrator interface {
	// ExpectMigration prepares this host for the disk of an instance that comes
	// from another one. peer goes to that host, with the instance: at most 255
	// bytes, no secret. Destroy forgets it. A driver that cannot move between
	// hosts answers errdefs.ErrUnsupported.
	ExpectMigration(ctx context.Context, uuid InstanceUUID) (peer string, err error)

	// MigrateDiskAndPowerOff begins the move. To another host: the guest is
	// stopped and its disk offered to req.Peer; diskInfo tells that host where
	// it is, and how it is known. On this host: the guest runs on if it can
	// have the new size without a restart, and is stopped otherwise. On error
	// the instance is as before: errdefs.ErrInvalid says that the new size is
	// impossible for it.
	MigrateDiskAndPowerOff(ctx context.Context, req MigrateRequest) (diskInfo string, err error)

	// FinishMigration gives the instance, which comes from another host or is
	// here, its new size, and starts it if asked and if it does not run. On
	// error an instance that is here has its old size and is as
	// MigrateDiskAndPowerOff left it; of one that comes nothing is here but the
	// expectation, and what has been fetched of its disk.
	FinishMigration(ctx context.Context, req FinishMigrationRequest) error

	// FinishRevertMigration gives the instance its old size back, on the host
	// where it was, withdraws an offer of its disk, and starts it if asked and
	// if it does not run.
	FinishRevertMigration(ctx context.Context, req RevertMigrationRequest) error

	// ConfirmMigration ends the move on the host where the instance was. moved
	// says that it is on another one now: nothing of it is left here.
	ConfirmMigration(ctx context.Context, uuid InstanceUUID, moved bool) error
}

// MigrateRequest begins a move.
type MigrateRequest struct {
	UUID InstanceUUID
	// Peer is what the other host's ExpectMigration has answered, empty for a
	// resize on this host.
	Peer     string
	Old, New Flavor
	// Off says how patient to be with the guest.
	Off PowerOffOptions
}

// FinishMigrationRequest ends a move where the instance goes to.
type FinishMigrationRequest struct {
	// SpawnRequest describes the instance with its new flavor. Of its files, key
	// and password nothing is used: they are on the disk.
	SpawnRequest
	// Moved says that the instance comes from another host.
	Moved bool
	// DiskInfo is the answer of MigrateDiskAndPowerOff. An empty one says that
	// the step was begun before, by an earlier life of the service:
	// errdefs.ErrNotFound if it was not.
	DiskInfo string
	Old      Flavor
	// PowerOn says that the guest is to run in the end.
	PowerOn bool
	Off     PowerOffOptions
}

// RevertMigrationRequest ends a move where the instance was.
type RevertMigrationRequest struct {
	UUID InstanceUUID
	// Flavor is the old one.
	Flavor  Flavor
	VIFs    objects.NetworkInfo
	PowerOn bool
	Off     PowerOffOptions
}
