// Package api is the engine's socket: HTTP/1.1 over a unix socket, for the
// operator's commands and for other programs of this host.
//
// Documents are JSON, below a versioned path (/v1/…; the routes are listed in
// docs/engine.md and in Server.routes). What goes on for a while is streamed:
// events and stats as one JSON document a line, logs as they are, files as tar.
// Commands that have files of their own (exec, attach, the import of an image)
// change the connection's protocol and pass descriptors over it (rights.go).
//
// Errors carry their class of internal/errdefs across the socket: Client
// returns what Backend has returned, as far as errors.Is is concerned.
//
// Server takes any Backend; engine.Engine is one. It imports the engine and
// internal packages only.
package api

import (
	"time"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/snapshot"
)

// Version is that of the paths and documents.
const Version = 1

// Info describes the server.
type Info struct {
	// Program is the version of the program, API that of the protocol.
	Program string `json:"program"`
	API     int    `json:"api"`
	Pid     int    `json:"pid"`
	// Containers counts them by their status.
	Containers map[engine.Status]int `json:"containers"`
}

// Container is what is known of one.
type Container struct {
	ID     string        `json:"id"`
	Image  string        `json:"image,omitempty"`
	Status engine.Status `json:"status"`
	// Pid is the first process's, in the numbers of the host.
	Pid     int               `json:"pid,omitempty"`
	Args    []string          `json:"args,omitempty"`
	Created time.Time         `json:"created,omitzero"`
	Started time.Time         `json:"started,omitzero"`
	Exit    *Exit             `json:"exit,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Limits  Limits            `json:"limits"`
	// DiskEnforced is true when all that Limits says of the disk is kept.
	DiskEnforced bool `json:"disk_enforced,omitempty"`
	// Owner says who decides over it; "" is whoever uses this socket.
	Owner string `json:"owner,omitempty"`
}

// Exit says how a process has ended.
type Exit struct {
	// Code is the status, or 128 plus the signal.
	Code   int  `json:"code"`
	Signal int  `json:"signal,omitempty"`
	OOM    bool `json:"oom,omitempty"`
	// Known is false when nobody saw how it ended.
	Known bool      `json:"known"`
	Time  time.Time `json:"time,omitzero"`
}

// Limits of a container. In an update, what is absent stays as it is.
type Limits struct {
	MemoryBytes *int64 `json:"memory_bytes,omitempty"`
	// SwapBytes is on top of memory; -1 forbids swap.
	SwapBytes *int64 `json:"swap_bytes,omitempty"`
	// CPUQuota and CPUPeriod are in microseconds.
	CPUQuota  *int64  `json:"cpu_quota_us,omitempty"`
	CPUPeriod *int64  `json:"cpu_period_us,omitempty"`
	CPUShares *int64  `json:"cpu_shares,omitempty"`
	Pids      *int64  `json:"pids,omitempty"`
	CPUSet    *string `json:"cpuset,omitempty"`
	// DiskBytes and DiskInodes bound what is written over the image. At a create
	// what the host cannot keep is passed over (Container.DiskEnforced), in an
	// update it is refused.
	DiskBytes  *int64 `json:"disk_bytes,omitempty"`
	DiskInodes *int64 `json:"disk_inodes,omitempty"`
}

// Create describes a container to make, and to start at once if Start is set.
type Create struct {
	ID     string            `json:"id"`
	Image  string            `json:"image"`
	Labels map[string]string `json:"labels,omitempty"`
	Limits Limits            `json:"limits"`
	Start  *Start            `json:"start,omitempty"`
}

// Start says what to run; what is absent is the image's.
type Start struct {
	Hostname string `json:"hostname,omitempty"`
	// Args replace the image's command; its entrypoint stays in front unless
	// Entrypoint replaces it.
	Args       []string `json:"args,omitempty"`
	Entrypoint []string `json:"entrypoint,omitempty"`
	// Env is added to the image's.
	Env        []string `json:"env,omitempty"`
	Cwd        string   `json:"cwd,omitempty"`
	User       string   `json:"user,omitempty"`
	NoNewPrivs bool     `json:"no_new_privs,omitempty"`
	// Profile is instance, system, or empty: the program decides.
	Profile engine.Profile `json:"profile,omitempty"`
	// Nesting: containers may run inside.
	Nesting      bool  `json:"nesting,omitempty"`
	ConsoleBytes int64 `json:"console_bytes,omitempty"`
}

// Stop says how to end a container: Signal (0 chooses by what it is) asks, and
// after Timeout seconds it is killed. 0 seconds kill at once.
type Stop struct {
	Signal  int     `json:"signal,omitempty"`
	Timeout float64 `json:"timeout"`
}

// Checkpoint says where to write a container's processes to: an absolute path of
// the host, which is made. They are ended unless LeaveRunning.
type Checkpoint struct {
	Dir          string `json:"dir"`
	LeaveRunning bool   `json:"leave_running,omitempty"`
}

// Restore says where from to bring them back.
type Restore struct {
	Dir          string `json:"dir"`
	ConsoleBytes int64  `json:"console_bytes,omitempty"`
}

// Signal is a signal to send.
type Signal struct {
	Signal int `json:"signal"`
}

// Exec describes a command to run in a running container.
type Exec struct {
	Args     []string `json:"args"`
	Env      []string `json:"env,omitempty"`
	Cwd      string   `json:"cwd,omitempty"`
	User     string   `json:"user,omitempty"`
	Terminal bool     `json:"terminal,omitempty"`
	Rows     uint16   `json:"rows,omitempty"`
	Columns  uint16   `json:"columns,omitempty"`
	// Detach leaves the command running when the connection ends.
	Detach bool `json:"detach,omitempty"`
}

// Session is what is known of an exec session.
type Session struct {
	ID        string    `json:"id"`
	Container string    `json:"container"`
	Args      []string  `json:"args,omitempty"`
	Pid       int       `json:"pid,omitempty"`
	Running   bool      `json:"running"`
	Started   time.Time `json:"started,omitzero"`
	Exit      *Exit     `json:"exit,omitempty"`
}

// Process is one process of a container.
type Process struct {
	Pid     int      `json:"pid"`
	Parent  int      `json:"parent"`
	HostPid int      `json:"host_pid"`
	UID     uint32   `json:"uid"`
	State   string   `json:"state"`
	CPU     float64  `json:"cpu_seconds"`
	Memory  int64    `json:"memory_bytes"`
	Args    []string `json:"args"`
}

// Stats is the use of a container at a time.
type Stats struct {
	Time   time.Time `json:"time"`
	CPU    float64   `json:"cpu_seconds"`
	Memory int64     `json:"memory_bytes"`
	Pids   int64     `json:"pids"`
}

// Image is an imported image.
type Image struct {
	Ref string `json:"ref"`
	// ID is the digest of its configuration, empty where it came without one.
	ID   string `json:"id,omitempty"`
	Size int64  `json:"size_bytes"`
	// RootFS marks a bare root file system.
	RootFS bool `json:"rootfs,omitempty"`
}

// Import says under which name to import the archive that comes with it, and
// what it is; both formats may be empty, which looks (docker, oci) or takes a
// bare root file system.
type Import struct {
	Ref             string `json:"ref"`
	ContainerFormat string `json:"container_format,omitempty"`
	DiskFormat      string `json:"disk_format,omitempty"`
	// From is the repository of a registry where its layers are stored as they are
	// in the archive, HOST/NAME.
	From string `json:"from,omitempty"`
	// Replace takes the name from an image that has it.
	Replace bool `json:"replace,omitempty"`
}

// Event tells what happened.
type Event struct {
	Kind      engine.EventKind `json:"kind"`
	Time      time.Time        `json:"time"`
	Container string           `json:"container,omitempty"`
	Exec      string           `json:"exec,omitempty"`
	Exit      *Exit            `json:"exit,omitempty"`
	Asked     bool             `json:"asked,omitempty"`
	// Missed counts what this reader was too slow for (kind missed).
	Missed int `json:"missed,omitempty"`
}

// Copied is the result of a copy into a container.
type Copied struct {
	Bytes   int64 `json:"bytes"`
	Entries int64 `json:"entries"`
}

func exitOf(e engine.ExitState) *Exit {
	return &Exit{Code: e.Code, Signal: e.Signal, OOM: e.OOM, Known: e.Known, Time: e.Time}
}

func containerOf(s engine.State, owner string) Container {
	c := Container{
		ID: string(s.ID), Image: s.Image, Status: s.Status, Pid: s.Process.Pid, Args: s.Args,
		Created: s.Created, Started: s.Started, Labels: s.Labels, Limits: limitsOf(s.Limits), Owner: owner,
	}
	c.Limits = c.Limits.withDisk(s.Disk)
	c.DiskEnforced = s.Disk == s.DiskEnforced && s.Disk != (snapshot.Limit{})
	if s.Status == engine.StatusStopped {
		c.Exit = exitOf(s.Exit)
	}
	return c
}

func sessionOf(s engine.ExecState) Session {
	out := Session{ID: s.ID, Container: string(s.Container), Args: s.Args, Pid: s.Process.Pid, Running: s.Running, Started: s.Started}
	if !s.Running {
		out.Exit = exitOf(s.Exit)
	}
	return out
}

func limitsOf(l cgroup.Limits) Limits {
	var out Limits
	set := func(to **int64, v int64) {
		if v != 0 {
			*to = &v
		}
	}
	set(&out.MemoryBytes, l.MemoryBytes)
	set(&out.SwapBytes, l.SwapBytes)
	set(&out.CPUQuota, l.CPUQuota)
	set(&out.CPUPeriod, l.CPUPeriod)
	set(&out.CPUShares, l.CPUShares)
	set(&out.Pids, l.Pids)
	if l.CPUSet != "" {
		out.CPUSet = &l.CPUSet
	}
	return out
}

// withDisk adds the limit of the disk.
func (l Limits) withDisk(d snapshot.Limit) Limits {
	if d.Bytes != 0 {
		l.DiskBytes = &d.Bytes
	}
	if d.Inodes != 0 {
		l.DiskInodes = &d.Inodes
	}
	return l
}

// disk is the limit of a new container's disk.
func (l Limits) disk() (d snapshot.Limit) {
	if l.DiskBytes != nil {
		d.Bytes = *l.DiskBytes
	}
	if l.DiskInodes != nil {
		d.Inodes = *l.DiskInodes
	}
	return d
}

func (l Limits) change() engine.LimitsChange {
	return engine.LimitsChange{
		MemoryBytes: l.MemoryBytes, SwapBytes: l.SwapBytes, CPUQuota: l.CPUQuota, CPUPeriod: l.CPUPeriod,
		CPUShares: l.CPUShares, Pids: l.Pids, CPUSet: l.CPUSet, DiskBytes: l.DiskBytes, DiskInodes: l.DiskInodes,
	}
}
