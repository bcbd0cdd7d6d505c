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
//	Unpack(chain id, fill)            a layer that is not here yet
//	Pack(chain id, fill)              one whose directory is made when it is wanted
//	Prepare(key, chain, limit)        a disk over the layers, or
//	PrepareWith(…, fill)              the same with what was written on another host
//	Root(key, ids)                    the disk as the container sees it, or
//	Mount(key, target, ids)           the same at a path of the host
//	Changes(key)                      what the container has written
//	Unmount(target)
//	Commit(key, chain id)             the changes become a layer, or
//	Remove(key)                       they are thrown away
//	RemoveLayer(chain id)             a layer that nobody has any more
//
// Ids on disk are the container's own (0 to 65535): both show them shifted
// into the container's user namespace. Where the file system has id-mapped
// mounts nothing is ever re-owned, and any number of containers with different
// ids share a layer; Describe says where it has not.
//
// # Power cuts
//
// A layer is whole when its name exists: its content, then its manifest, then
// the file system is synced, then the name is given and synced. A disk appears
// under its name when it is whole; its content is as durable as the container
// asked for. What a power cut leaves half made has a name that says so; opening
// a store sweeps it, and Check finds what else went wrong.
//
// Implementations: snapshot/overlay, snapshot/btrfs, snapshot/copydir;
// snapshot/probe chooses. The suite is snapshottest. All methods are safe for
// concurrent use; those for one key are serialised by the caller. A store
// belongs to one process at a time.
package snapshot

import (
	"context"
	"os"
)

// Snapshotter is the whole contract, in its four roles.
type Snapshotter interface {
	LayerStore
	DiskStore
	Limiter
	Maintainer
}

// LayerStore keeps layers.
type LayerStore interface {
	// HasLayer reports whether the layer is committed.
	HasLayer(ctx context.Context, chainID string) (bool, error)
	// Unpack makes the layer chainID: fill is called with an empty private
	// directory to write the layer's content to, in the form of an overlay's
	// upper directory (Documentation/filesystems/overlayfs.rst), and what it
	// wrote becomes visible, durably, when it returned nil. On error nothing is
	// left. A layer that is there already is success, and fill is not called.
	// One that is packed is unpacked so: what fill wrote takes the place of the
	// packed files in one step, or they stay.
	// errdefs.ErrInvalid for a malformed chain id.
	Unpack(ctx context.Context, chainID string, fill func(dir string) error) error
	// Pack makes the layer chainID as Unpack does, but of files from which the
	// caller can make its content: fill writes them to an empty private
	// directory. Such a layer is here (HasLayer, Layers, RemoveLayer, Check); what
	// needs its content (Layer, View, Prepare) is errdefs.ErrConflict until it is
	// unpacked.
	Pack(ctx context.Context, chainID string, fill func(dir string) error) error
	// Packed returns the directory that Pack has filled, to be read only: files
	// opened there stay readable when the layer is unpacked. errdefs.ErrNotFound
	// if there is no such layer or it is unpacked.
	Packed(ctx context.Context, chainID string) (dir string, err error)
	// RemoveLayer removes a layer. Absent is nil; one that an active snapshot
	// has below it is errdefs.ErrConflict.
	RemoveLayer(ctx context.Context, chainID string) error
	// Layer returns the directory of a committed layer, in the form that Unpack
	// wrote and to be read only; errdefs.ErrNotFound if there is none.
	Layer(ctx context.Context, chainID string) (dir string, err error)
	// Layers lists the committed layers.
	Layers(ctx context.Context) ([]string, error)
	// View shows a chain, lowest layer first, at target, an existing directory:
	// read-only, nodev, nosuid, noexec, with the ids as they are on disk. It is
	// for tools of the host and for exporting an image. Unmount takes it down.
	// The caller keeps the layers from being removed meanwhile. A target that is
	// a mount already is errdefs.ErrConflict.
	View(ctx context.Context, chain []string, target string) error
}

// Stager is a DiskStore that can make an active snapshot before anybody may know
// of its key.
type Stager interface {
	// Stage is Prepare but for the key. What is staged is on no list, and the
	// next Open removes it; no layer is removed meanwhile. Name or Drop it.
	Stage(ctx context.Context, chain []string, limit Limit) (Staged, error)
}

// Staged is an active snapshot without a key. One of its methods is called, once.
type Staged interface {
	// Name gives it its key, with Prepare's errors; nothing is left then.
	Name(key string) error
	// Drop removes it.
	Drop()
}

// DiskStore keeps active snapshots.
type DiskStore interface {
	// Prepare makes an active snapshot over the chain, lowest layer first, that
	// holds at most limit. A present key is errdefs.ErrAlreadyExists, a missing
	// layer errdefs.ErrNotFound, and a limit that Describe does not offer
	// errdefs.ErrUnsupported. On error nothing is left.
	Prepare(ctx context.Context, key string, chain []string, limit Limit) error
	// PrepareWith is Prepare of a disk on which something was written elsewhere:
	// fill is called with an empty private directory to write it to, in the form
	// of Changes. fill may take its time: others are not held up by it. Its error
	// is passed on.
	PrepareWith(ctx context.Context, key string, chain []string, limit Limit, fill func(dir string) error) error
	// Root makes a mount of the snapshot that is attached nowhere (fsmount(2)),
	// with ids mapped by ids and the properties of Mount's. It is gone when the
	// file is closed, unless it was attached. A snapshot is mounted once at a
	// time, by Root or Mount: the caller sees to it that an earlier mount has
	// gone. The last close waits until what was written is on the disk. On error
	// nothing is mounted.
	Root(ctx context.Context, key string, ids IDs) (*os.File, error)
	// Mount shows the snapshot at target, an existing directory, with ids
	// mapped by ids. The mount is nodev but not nosuid: set-user-ID files work
	// inside, and lead to the container's own ids only. The host's root has no
	// id in it and can make no new file there, unless ids are shifted on disk
	// (Describe). It may show empty directories dev, proc and sys, of the
	// container's root and with mode 0755, where no layer has anything of that
	// name: they are on no disk and in no Changes. A snapshot is mounted once at a time; one that is at target
	// already is success, anything else there is errdefs.ErrConflict. On error
	// nothing is mounted.
	Mount(ctx context.Context, key, target string, ids IDs) error
	// Unmount takes down the mount at target, of Mount or View. Not mounted is
	// nil. It returns before the file system has written everything back.
	Unmount(ctx context.Context, target string) error
	// Changes returns a directory that holds what was written over the chain,
	// in the form of an overlay's upper directory, to be read only. It is the
	// live one or, where Describe says so, a copy as of the call that is valid
	// until the next call for the key: freeze the container, then call it.
	Changes(ctx context.Context, key string) (dir string, err error)
	// Commit makes the changes of an unmounted snapshot the layer chainID and
	// removes the snapshot, without copying where it can. A layer that is there
	// already is success, and the snapshot goes. The caller has found the chain
	// id from the stream of Changes (layer.Diff). On error the snapshot stays.
	Commit(ctx context.Context, key, chainID string) error
	// Remove removes an unmounted snapshot. Absent is nil. It is gone when Remove
	// returns; the space of a large one, and what its limit has counted, may come
	// back a little later. What a crash leaves of that the next opening removes.
	Remove(ctx context.Context, key string) error
	// List names the active snapshots.
	List(ctx context.Context) ([]string, error)
}

// Limiter bounds and counts what active snapshots hold.
type Limiter interface {
	// SetLimit changes the limit of a snapshot, mounted or not. A smaller one
	// than what is in use stops further writes. errdefs.ErrNotFound for an
	// absent key, errdefs.ErrUnsupported for what the back end cannot do
	// (Describe), with the old limit in force.
	SetLimit(ctx context.Context, key string, limit Limit) error
	// Usage is what the snapshot has written, as its limit counts it.
	Usage(ctx context.Context, key string) (Usage, error)
}

// Maintainer says what a store can do and looks after it.
type Maintainer interface {
	// Describe says what this store can do and why; it does not change.
	Describe() Description
	// Check looks for what a power cut, a crash or a hand has left: see
	// FindingKind. With req.Repair it mends what it safely can. It deletes only
	// what carries the store's own names and what req.References prove to be
	// unused. The error is of the checking itself. Calls of the store may go on
	// meanwhile.
	Check(ctx context.Context, req CheckRequest) ([]Finding, error)
	// Close waits for what goes on in the background, but for removals that have
	// not begun: the next opening does them. Mounts that exist stay.
	Close()
}

// IDs say how a container's ids appear on the host.
type IDs struct {
	// UserNS is the path of a user namespace that maps the container's ids.
	UserNS string
	// Root is the host's user and group id of the container's root.
	Root uint32
}

// Limit of a snapshot, without the layers below it. A zero field is unlimited.
// What is over it fails with EDQUOT or ENOSPC, inside the one container.
type Limit struct {
	Bytes  int64
	Inodes int64
}

// Usage of a snapshot, without the layers below it. A few inodes and blocks
// that the back end needs for itself may be among it.
type Usage struct {
	Bytes  int64 // allocated on disk
	Inodes int64 // -1 where the back end does not count them
}
