// Package cgroup gives each container its own control group, with limits,
// statistics, freezing and killing, on cgroup v1, v2 and the hybrid layout.
//
// Callers never ask which version runs. It imports no other package of ours
// except internal/errdefs.
//
// Groups lie under a tree of our own below the root of each hierarchy, not
// inside the group of the calling process: stopping the service leaves them.
// What each limit becomes is a pure function (limits_v1.go, limits_v2.go,
// devices.go); layouts are found once, in New, and creating a group is then one
// mkdir for each hierarchy and one write for each limit.
//
// The hybrid layout takes limits from v1, and freezing and killing from v2,
// whose kill is atomic.
//
// Source of file names and units: Linux Documentation/admin-guide/cgroup-v1
// and cgroup-v2.rst; conversion of cpu shares to weight as in the OCI runtime
// specification (config-linux.md, Control groups).
package cgroup

import (
	"context"
	"os"
	"time"
)

// Tree is the part of the host's control groups that belongs to one engine.
//
// A name is one path element. Methods are safe for concurrent use; of the
// methods of one group, only Kill may run beside others.
type Tree interface {
	// Create makes the group name with the limits. An existing empty group is
	// taken over; one with processes is errdefs.ErrConflict. A limit that this
	// kernel cannot enforce is errdefs.ErrUnsupported and names the limit.
	Create(ctx context.Context, name string, limits Limits) (Group, error)
	// Open returns an existing group, errdefs.ErrNotFound if there is none.
	Open(ctx context.Context, name string) (Group, error)
	// List names the groups that exist under the tree.
	List(ctx context.Context) ([]string, error)
	// Describe says which layout and controllers are in use, for the log.
	Describe() string
}

// Group is the control group of one container.
type Group interface {
	// JoinFiles returns open cgroup.procs files, one for each hierarchy; a
	// process that writes "0" to each has joined. The caller closes them.
	JoinFiles() ([]*os.File, error)
	Update(ctx context.Context, limits Limits) error
	Stats(ctx context.Context) (Stats, error)
	// Freeze returns when all processes are frozen; Thaw undoes it. Idempotent.
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	Frozen(ctx context.Context) (bool, error)
	// Kill sends SIGKILL to every process, frozen ones included, and returns
	// when the group is empty or ctx ends.
	Kill(ctx context.Context) error
	// Delete removes the empty group. Absent is nil.
	Delete(ctx context.Context) error
	// Processes lists the processes of the group and its sub-groups, by their
	// numbers in the caller's pid namespace. What has ended is not among them.
	Processes(ctx context.Context) ([]int, error)
	// OOMKills counts processes of the group that were killed for memory.
	OOMKills(ctx context.Context) (int64, error)
}

// Stats of a group, its sub-groups included.
type Stats struct {
	CPUTime time.Duration
	// MemoryBytes is charged memory without file cache that was not used
	// lately and can be dropped at once.
	MemoryBytes int64
	// Pids counts processes and threads, ended ones that nobody has waited for
	// included.
	Pids int64
}
