// Package engine is gantry's container engine: containers on this host, from
// images in its own store, in namespaces and control groups of its own.
//
// A container is made by Create, which gives it a disk over its image's shared
// layers, a block of user ids and pinned user and network namespaces; the
// caller connects the network namespace; Start runs the first process. The
// namespaces and the disk outlive the process, Delete removes all. Containers
// outlive the engine: a new engine on the same state adopts them (Open).
//
// Words are OCI's. The engine knows nothing of instances, ports or Glance, and
// it imports only its own packages and internal ones.
//
// Locks: one per container, held for the whole of an operation; the map of
// containers has its own, held only to look. Order: container, then map. The
// lock of the layers in use by imports is taken under no other.
package engine

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/keylock"
)

// ContainerID names a container; it is made of letters, digits, '-' and '_'.
type ContainerID string

// Status of a container. The words are the OCI runtime specification's
// (runtime.md, State), and paused, which is ours.
type Status string

// The states of a container.
const (
	StatusCreated Status = "created"
	StatusRunning Status = "running"
	StatusPaused  Status = "paused"
	StatusStopped Status = "stopped"
)

// State is what is known of a container.
type State struct {
	ID     ContainerID
	Status Status
	// Process is set while it runs.
	Process process.Process
	// Unattended is true while a process runs that the runner does not hold,
	// because the keeper was lost: its console is lost, and its exit will not be
	// known.
	Unattended bool
	// Exit is set when it has stopped after it ran.
	Exit ExitState
	// Created and Started are zero when unknown.
	Created, Started time.Time
	Labels           map[string]string
	// Image is the reference that it was made from, Args the command of its
	// last start.
	Image  string
	Args   []string
	Limits cgroup.Limits
	// Disk is the limit of the disk that was asked for, DiskEnforced the part
	// of it that is kept: nothing where the host has no limits for disks.
	Disk, DiskEnforced snapshot.Limit
}

// ExitState says how a container ended.
type ExitState struct {
	process.Exit
	// OOM is true when the kernel killed a process of it for memory.
	OOM bool
	// Known is false when the exit happened unseen. Cause says why that is, or
	// why a known exit came.
	Known bool
	Cause ExitCause
}

// CreateRequest describes a container.
type CreateRequest struct {
	ID ContainerID
	// Image is the reference under which the image was imported.
	Image string
	// Labels are kept with the container for the caller.
	Labels map[string]string
	Limits cgroup.Limits
	// Disk bounds what is written over the image. Where the host cannot keep
	// it, or a part of it, the container is made all the same and State says
	// so: an instance is wanted more than its limit. Update refuses instead.
	Disk snapshot.Limit
	// Runtime is the name of another OCI runtime (Options.Runtimes) that starts
	// the container, "" for the engine's own. It stays for the container's life.
	Runtime string
	// Written streams what the container has written over the same image
	// elsewhere (Engine.Written); nil for a new one.
	Written io.Reader
}

// StartRequest says what to run. It is given at each start.
type StartRequest struct {
	// Hostname of the container; empty is its id.
	Hostname string
	// Args is the command. When it is empty the first of Candidates that
	// exists in the container is run.
	Args       []string
	Candidates [][]string
	Env        []string
	// Cwd and User as in an image's configuration; empty means "/" and root.
	Cwd, User  string
	Files      []process.File
	NoNewPrivs bool
	Profile    Profile
	// Nesting lets the container run containers of its own: ProfileSystem, which it
	// chooses, with what they need (nesting.go). With ProfileInstance it is
	// errdefs.ErrInvalid.
	Nesting bool
	// ConsoleBytes bounds the console log.
	ConsoleBytes int64
	// Mounts are made besides those that every container has. Links are symbolic
	// links in /dev, by their path in it.
	Mounts []process.Mount
	Links  map[string]string
	// Over is another container, which does not run: its disk is the root of this
	// start, and what the command and the user are is looked up there. The
	// container's own disk is mounted in it at OwnAt, an absolute path. It is
	// errdefs.ErrUnsupported for a container of another runtime.
	Over  ContainerID
	OwnAt string
	// Again starts only a container that has rebooted itself (CauseGuestReboot);
	// any other is errdefs.ErrConflict.
	Again bool
}

// StopRequest says how to end a container.
type StopRequest struct {
	// Signal asks the first process to end; 0 chooses by what it is.
	Signal int
	// Timeout bounds the asking, Retry repeats it. A zero Timeout kills at once.
	Timeout, Retry time.Duration
}

// Options of an engine.
type Options struct {
	// Root holds everything durable; it must be on a file system that overlay
	// can use, and belongs to one engine at a time.
	Root      string
	Runner    process.Runner
	Cgroups   cgroup.Tree
	Snapshots snapshot.Snapshotter
	Store     store.Store
	// Journal keeps the intents of operations under way. nil forgets them with
	// the process, which only a test can want.
	Journal store.Journal
	// Runtimes are the other OCI runtimes that containers may be made for: their
	// absolute paths by name. Runner has to know how to start them
	// (process.Options.Foreign).
	Runtimes map[string]string
	// BootID names the boot of the kernel; empty means the real one.
	BootID string
	// ImageLimits bound what an image may be, LayerLimits what it may unpack to.
	ImageLimits image.Limits
	LayerLimits layer.Limits
	// ImageTime bounds how long one image may take to be read and unpacked once
	// it is here; 0 for no bound.
	ImageTime time.Duration
	// Unpack unpacks layers; nil does it in this process (layer.Apply).
	Unpack Unpacker
	// ReadDisk reads disk images; nil does it in this process (disk.Convert).
	ReadDisk disk.Converter
	// WriteDisk writes disk images; nil does it in this process (disk.Direct).
	WriteDisk disk.Rewriter
	// View is what guests are shown of the host.
	View GuestView
	Log  zerolog.Logger
}

// Engine runs containers. Its methods may be called from any goroutine.
type Engine struct {
	opts Options
	// filter is the system call filter of every container.
	filter []process.SockFilter
	locks  keylock.Map[ContainerID]
	// unjailed warns once of images that could not be read in a jail.
	unjailed sync.Once
	// images and layers are those that operations under way need.
	images, layers uses
	// collecting is held by the one garbage collection at a time.
	collecting sync.Mutex
	// boot is the boot of the kernel, strays is what opts.Runner wraps.
	boot   string
	strays *strays
	// nursery bears the processes that make namespaces.
	nursery *process.Nursery
	events  chan Event
	// bus is for everybody who wants to know, events for who must.
	bus  Bus
	exec sessions
	// copying are the uses of mounts that an unmount has to end.
	copying copies
	// roots are the mounts of disks that no path of the host leads to.
	roots roots
	// shown is what guests see of the host.
	shown shown
	// late are the records of starts that are yet to be written.
	late lateRecords
	stop context.CancelFunc
	// watching counts the goroutines that wait for containers.
	watching sync.WaitGroup
	life     context.Context //nolint:containedctx // ends the watchers when the engine closes

	mu         sync.Mutex
	containers map[ContainerID]*container // guarded by mu
}
