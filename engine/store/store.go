// Package store keeps the engine's records: containers, images, leases, blocks
// of user ids. It is what makes a container survive its engine.
//
// A record is written before the thing it describes is made and removed after
// the thing is gone, so that whatever exists on the host is found by its
// record; the engine's recovery relies on it. Records are versioned JSON in one
// bbolt file, durable when a method returns. One process owns a store at a time;
// while none does, others may read it (OpenReadOnly).
//
// Beside the records there is a Journal of what is under way.
//
// Implementations: Bolt and Memory of Store, Log and MemoryJournal of Journal;
// all pass storetest. All methods are safe for concurrent use. The layout is
// described in docs/ondisk.md.
package store

import (
	"context"
	"time"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/image"
)

// FirstID is the first host id that is given to a container, and IDBlock the
// size of a block. Ids below are left to the host and to others.
const (
	FirstID uint32 = 1_000_000
	IDBlock uint32 = 65536
)

// Reader reads the records of one engine. A record that cannot be read is left
// out of lists, reported by Damaged, and kept.
type Reader interface {
	// Containers returns all container records, in the order of their ids.
	Containers(ctx context.Context) ([]Container, error)
	// Container returns one, errdefs.ErrNotFound if there is none,
	// errdefs.ErrCorrupt if it cannot be read.
	Container(ctx context.Context, id string) (Container, error)
	// Images returns all image records, in the order of their references.
	Images(ctx context.Context) ([]Image, error)
	// Image returns the image record; errors as Container.
	Image(ctx context.Context, ref string) (Image, error)
	// Leases returns all leases, expired ones too, in the order of their ids.
	Leases(ctx context.Context) ([]Lease, error)
	// Damaged lists the records that cannot be read, as bucket/key
	// ("containers/ID").
	Damaged(ctx context.Context) ([]string, error)
	// Close lets the store go. Later calls fail.
	Close() error
}

// Store is all records of one engine, to read and to write. A full disk is
// errdefs.ErrExhausted, a file system that became read-only or fails
// errdefs.ErrUnavailable; the records are then as they were before the call.
type Store interface {
	Reader

	// CreateContainer writes the record of a new container and gives it a block
	// of IDBlock host ids that no other has, in one step; it returns the record
	// with IDBase set. Its image, if recorded, is used last when the container
	// was created. A present record, a damaged one too, is
	// errdefs.ErrAlreadyExists, errdefs.ErrExhausted says that no block is left.
	CreateContainer(ctx context.Context, c Container) (Container, error)
	// PutContainer writes or replaces a record.
	PutContainer(ctx context.Context, c Container) error
	// DeleteContainer removes a record and gives its block of ids back, and its
	// image, if recorded, is used last now, in one step. Absent is nil.
	DeleteContainer(ctx context.Context, id string) error

	PutImage(ctx context.Context, img Image) error
	// DeleteImage removes a record. Absent is nil. An image that a container
	// record or a lease that has not expired names is errdefs.ErrConflict.
	DeleteImage(ctx context.Context, ref string) error

	// PutLease writes or replaces a lease.
	PutLease(ctx context.Context, l Lease) error
	// DeleteLease removes a lease. Absent is nil.
	DeleteLease(ctx context.Context, id string) error
}

// Container is the record of one container.
type Container struct {
	ID     string            `json:"id"`
	Image  string            `json:"image"`
	Chain  []string          `json:"chain"` // chain ids of the layers, lowest first
	IDBase uint32            `json:"id_base"`
	Labels map[string]string `json:"labels,omitempty"`
	Limits cgroup.Limits     `json:"limits"`
	// Disk is the limit of the disk that was asked for, DiskEnforced the part of
	// it that the store of snapshots keeps.
	Disk         Disk `json:"disk,omitzero"`
	DiskEnforced Disk `json:"disk_enforced,omitzero"`

	Created time.Time `json:"created"`
	// Started is the last start; zero if it never ran.
	Started time.Time `json:"started"`
	// Runtime is the name of another OCI runtime that starts it, "" for none.
	Runtime string `json:"runtime,omitempty"`
	// Args is the command of the last start.
	Args []string `json:"args,omitempty"`
	// Session is what a further command takes from the last start.
	Session Session `json:"session,omitzero"`
	// Pid, StartTime and BootID name the running first process (process.Process);
	// Pid is 0 when none runs.
	Pid       int    `json:"pid,omitempty"`
	StartTime uint64 `json:"start_time,omitempty"`
	BootID    string `json:"boot_id,omitempty"`
	// How the last process ended.
	Exited     time.Time `json:"exited"`
	ExitKnown  bool      `json:"exit_known,omitempty"`
	ExitCode   int       `json:"exit_code,omitempty"`
	ExitSignal int       `json:"exit_signal,omitempty"`
	ExitOOM    bool      `json:"exit_oom,omitempty"`
	// ExitCause says why it ended, or why ExitKnown is false; a word of the engine's.
	ExitCause string `json:"exit_cause,omitempty"`
}

// Disk is a limit; zero fields are unlimited.
type Disk struct {
	Bytes  int64 `json:"bytes,omitempty"`
	Inodes int64 `json:"inodes,omitempty"`
}

// Session is the environment of a container's command, for commands that are
// run beside it.
type Session struct {
	Env        []string `json:"env,omitempty"`
	Cwd        string   `json:"cwd,omitempty"`
	User       string   `json:"user,omitempty"`
	NoNewPrivs bool     `json:"no_new_privs,omitempty"`
	// System: it has the rights of an init in its own user namespace.
	System bool `json:"system,omitempty"`
	// Nested: it is a System that may run containers of its own.
	Nested bool `json:"nested,omitempty"`
}

// Image is the record of one imported image.
type Image struct {
	Ref string `json:"ref"`
	// ID is the digest of the configuration document, empty where there was none.
	ID string `json:"id,omitempty"`
	// Chain are the chain ids of the layers, lowest first (OCI image-spec
	// config.md, Layer ChainID), as the snapshotter knows them.
	Chain []string `json:"chain"`
	// DiffIDs are the digests of the uncompressed layers, lowest first.
	DiffIDs []string `json:"diff_ids"`
	// History says how each layer of Chain came about; nil where nobody knows.
	History []image.Step `json:"history,omitempty"`
	Config  image.Config `json:"config"`
	// Stored says how each layer of Chain is stored where it came from; nil where
	// nobody knows.
	Stored []image.Stored `json:"stored,omitempty"`
	// RootFS marks a bare root file system.
	RootFS bool `json:"rootfs,omitempty"`
	// SizeBytes is the unpacked size, LayerBytes that of each layer of Chain;
	// nil in records of schemas before 3.
	SizeBytes  int64     `json:"size_bytes"`
	LayerBytes []int64   `json:"layer_bytes,omitempty"`
	Imported   time.Time `json:"imported"`
	// LastUsed is when a container was last made of it or removed.
	LastUsed time.Time `json:"last_used"`
}

// Lease keeps what it names from garbage collection until it expires, whether
// it exists yet or not.
type Lease struct {
	ID string `json:"id"`
	// Holder says who needs it, for people ("boot of INSTANCE").
	Holder  string    `json:"holder,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	// Images are references, Layers chain ids.
	Images []string `json:"images,omitempty"`
	Layers []string `json:"layers,omitempty"`
}

// Live reports whether the lease holds at the time.
func (l Lease) Live(at time.Time) bool { return at.Before(l.Expires) }
