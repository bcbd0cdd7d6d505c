// Package snapshot keeps the file systems of containers: layers that are
// shared and never change, and one writable disk over them for each container.
//
// # Words
//
// A layer is committed under its chain id (OCI image-spec config.md, Layer
// ChainID), so two images with the same lower layers have them once. An active
// snapshot is a container's writable disk; its key is the container's id. It
// has a chain of layers below it, lowest first.
//
// # A life
//
//	Unpack(chain id, parents, fill)   a layer that is not here yet
//	Prepare(key, chain)               a disk over the layers
//	Mount(key, target, ids)           the disk as the container sees it
//	Changes(key)                      what the container has written
//	Unmount(target)
//	Remove(key)
//	RemoveLayer(chain id)             a layer that nobody has any more
//
// Ids on disk are the container's own (0 to 65535): Mount shows them shifted
// into the container's user namespace by id-mapped mounts, so nothing is ever
// re-owned and any number of containers with different ids share a layer.
//
// Implementations: snapshot/overlay. The suite is snapshottest. All methods are
// safe for concurrent use; those for one key are serialised by the caller.
package snapshot

import "context"

// Snapshotter is the contract.
type Snapshotter interface {
	// HasLayer reports whether the layer is committed.
	HasLayer(ctx context.Context, chainID string) (bool, error)
	// Unpack makes the layer chainID: fill is called with an empty private
	// directory to write the layer's content to, and what it wrote becomes
	// visible, durably, when it returned nil. On error nothing is left. A layer
	// that is there already is success, and fill is not called. errdefs.ErrInvalid
	// for a malformed chain id.
	Unpack(ctx context.Context, chainID string, fill func(dir string) error) error
	// RemoveLayer removes a layer. Absent is nil; one that an active snapshot
	// has below it is errdefs.ErrConflict.
	RemoveLayer(ctx context.Context, chainID string) error
	// Layer returns the directory of a committed layer, to be read only;
	// errdefs.ErrNotFound if there is none.
	Layer(ctx context.Context, chainID string) (dir string, err error)
	// Layers lists the committed layers.
	Layers(ctx context.Context) ([]string, error)

	// Prepare makes an active snapshot over the chain, lowest layer first. A
	// present key is errdefs.ErrAlreadyExists, a missing layer
	// errdefs.ErrNotFound.
	Prepare(ctx context.Context, key string, chain []string) error
	// Mount shows the snapshot at target, an existing directory, with ids
	// mapped by ids. The mount is nodev but not nosuid: set-user-ID files work
	// inside, and lead to the container's own ids only. The host's root has no
	// id in it and can make no new file there. A snapshot is mounted once at a
	// time; one that is at target already is success, anything else there is
	// errdefs.ErrConflict. On error nothing is mounted.
	Mount(ctx context.Context, key, target string, ids IDs) error
	// Unmount takes down the mount at target. Not mounted is nil. It returns
	// before the file system has written everything back.
	Unmount(ctx context.Context, target string) error
	// Changes returns the directory that holds what was written over the
	// chain, in the form of an overlay's upper directory
	// (Documentation/filesystems/overlayfs.rst).
	Changes(ctx context.Context, key string) (dir string, err error)
	// Usage is what the snapshot has written.
	Usage(ctx context.Context, key string) (Usage, error)
	// Remove removes an unmounted snapshot. Absent is nil.
	Remove(ctx context.Context, key string) error
	// List names the active snapshots.
	List(ctx context.Context) ([]string, error)
}

// IDs say how a container's ids appear on the host.
type IDs struct {
	// UserNS is the path of a user namespace that maps the container's ids.
	UserNS string
	// Root is the host's user and group id of the container's root.
	Root uint32
}

// Usage of a snapshot, without the layers below it.
type Usage struct {
	Bytes  int64 // allocated on disk
	Inodes int64
}
