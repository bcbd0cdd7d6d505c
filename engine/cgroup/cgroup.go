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
// whose kill is atomic. Hierarchies of v1 that only limit what few limit
// (cpuset, blkio, hugetlb, net_cls, net_prio, rdma) have no group until a limit
// needs one.
//
// Source of file names and units: Linux Documentation/admin-guide/cgroup-v1
// and cgroup-v2.rst; conversion of weights as in the OCI runtime specification
// (config-linux.md, Control groups) and its implementations.
package cgroup

import (
	"context"
	"fmt"
	"iter"
	"os"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Tree is the part of the host's control groups that belongs to one engine.
//
// A name is one or more path elements with "/" between, relative to the tree;
// with a leading "/" it is relative to the root of the hierarchies, as OCI's
// cgroupsPath is. Parents are made as needed, and removed with their last group
// if they were made here (the extended attribute trusted.gantry says so).
// Outside of the tree only groups that Create made are opened or taken over.
//
// Methods are safe for concurrent use; of the methods of one group, only Kill,
// Events and those of Watcher may run beside others.
type Tree interface {
	// Create makes the group name with the limits. An existing empty group is
	// taken over; one with processes is errdefs.ErrConflict, as is one outside
	// of the tree that Create did not make. A limit that this kernel cannot
	// enforce is errdefs.ErrUnsupported and names the limit. The tree and its
	// parents are made again when somebody removed them.
	Create(ctx context.Context, name string, limits Limits) (Group, error)
	// Open returns an existing group, errdefs.ErrNotFound if there is none.
	Open(ctx context.Context, name string) (Group, error)
	// List names the groups that exist under the tree, nested ones by their
	// path, sorted.
	List(ctx context.Context) ([]string, error)
	// Supports tells whether Create can enforce a limit on this host.
	Supports(limit Limit) bool
	// Describe says which layout and controllers are in use, for the log.
	Describe() string
}

// Group is the control group of one container.
type Group interface {
	Joiner
	Delegator
	Freezer
	Watcher
	// Update replaces all limits of the running group: a zero field is reset.
	// When it fails, the values it had changed are put back as far as the
	// kernel allows.
	Update(ctx context.Context, limits Limits) error
	// Kill sends SIGKILL to every process, frozen ones included, and returns
	// when the group is empty or ctx ends; then the error is a *LeftError.
	Kill(ctx context.Context) error
	// Delete removes the empty group. Absent is nil.
	Delete(ctx context.Context) error
}

// Joiner is how processes come into a group.
type Joiner interface {
	// BirthFiles returns open files with which a process is born in the group.
	// The first may be a directory: clone3(2) takes it with CLONE_INTO_CGROUP.
	// To each of the others the child writes "0" while it has one thread. No
	// step waits for the kernel's other processes, as joining by JoinFiles
	// does (5 to 12 ms). The caller closes the files.
	BirthFiles() ([]*os.File, error)
	// JoinFiles returns open cgroup.procs files, one for each hierarchy; a
	// process that writes "0" to each has joined, with all its threads. The
	// caller closes them.
	JoinFiles() ([]*os.File, error)
	// Paths says where the group is, for the mounts of a container that sees
	// its own part.
	Paths() ([]Path, error)
}

// Delegator lets who is inside a group of cgroup v2 make groups of their own.
// Without cgroup v2 all is errdefs.ErrUnsupported.
type Delegator interface {
	// Delegate makes the user, and the group of the same number, the owner of
	// what sub-groups are made with, of none of the limits. There may be that
	// many sub-groups, at all depths together. Kill, Delete, Freeze and Pids are
	// for all of them. errdefs.ErrNotFound: the group is gone.
	Delegate(ctx context.Context, owner uint32, subgroups int) error
	// DirOf opens the directory of the sub-group in cgroup v2 that a process is
	// in, for BirthFiles' first file. errdefs.ErrNotFound: it has ended, or is
	// somewhere else. The caller closes it.
	DirOf(pid int) (*os.File, error)
}

// Freezer stops processes for a while.
type Freezer interface {
	// Freeze returns when all processes are frozen; Thaw undoes it. Idempotent.
	// Sub-groups that were frozen by themselves stay so.
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	Frozen(ctx context.Context) (bool, error)
}

// Watcher is what can be seen of a group.
type Watcher interface {
	Stats(ctx context.Context) (Stats, error)
	// Pids lists the processes of the group and its sub-groups, in the numbers
	// of the caller's pid namespace, sorted.
	Pids(ctx context.Context) ([]int, error)
	// OOMKills counts processes of the group that were killed for memory.
	OOMKills(ctx context.Context) (int64, error)
	// Events yields an Event for each change from the time of the call on,
	// until ctx ends, the group is removed or an error is yielded. Changes that
	// come fast are yielded together. The caller's goroutine waits; an idle
	// watch costs one descriptor and no time. errdefs.ErrUnsupported without
	// a memory controller.
	Events(ctx context.Context) iter.Seq2[Event, error]
}

// Path is the place of a group in one hierarchy.
type Path struct {
	// Controllers of a v1 hierarchy, "name=systemd" for a named one; nil for v2.
	Controllers []string
	// Mount is where the hierarchy is mounted on the host, Dir the group's
	// directory below Mount, and Mount itself where no group of its own exists.
	Mount, Dir string
}

// V2 tells whether it is the unified hierarchy.
func (p Path) V2() bool { return p.Controllers == nil }

// LeftError says which processes Kill could not end in time, for example
// because they wait for a device (state D) or a parent group is frozen. It is
// errdefs.ErrUnavailable, and the context's error.
type LeftError struct {
	// Pids are the processes, sorted, and States their states of proc(5), one
	// letter each, '?' if unknown.
	Pids   []int
	States string
	Err    error
}

// Error names up to eight processes.
func (e *LeftError) Error() string {
	text := fmt.Sprintf("%d processes are left:", len(e.Pids))
	for n, pid := range e.Pids {
		if n == 8 {
			text += " ..."
			break
		}
		state := byte('?')
		if n < len(e.States) {
			state = e.States[n]
		}
		text += fmt.Sprintf(" %d (%c)", pid, state)
	}
	return text + ": " + e.Err.Error()
}

// Unwrap returns the class and the cause.
func (e *LeftError) Unwrap() []error { return []error{errdefs.ErrUnavailable, e.Err} }
