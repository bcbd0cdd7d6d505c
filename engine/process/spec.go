package process

import (
	"os"
	"time"
)

// Spec describes a process tree. Its words and their meaning are those of the
// OCI runtime specification 1.2 (config.md, config-linux.md) unless said
// otherwise. A Spec decides everything: the runner adds no mount, namespace,
// device or limit of its own.
type Spec struct {
	// Join names a running process of the same runner, by its id: the new one
	// enters all its namespaces and its root. The fields Rootfs to Files must
	// be empty then. When its first process ends, the kernel ends this one.
	Join string

	// Rootfs is a mounted directory on the host that becomes "/".
	Rootfs string
	// Root, instead of Rootfs, is a mount that is attached nowhere (fsmount(2),
	// open_tree(2)): it moves into the mount namespace, which must be a new one,
	// so one file is for one Start. Without a mount namespace of the container's
	// own, or for a Runtime, Rootfs is needed. What the mount does not allow a
	// container may change if it has CAP_SYS_ADMIN; nodev is such a thing.
	Root *os.File `json:"-"`
	// RootReadonly makes it read-only, after everything is mounted in it.
	RootReadonly bool
	// RootPropagation is "", "private", "slave", "shared" or "unbindable"; ""
	// is private.
	RootPropagation string
	// Namespaces to make or join, at most one of a kind. A kind that is not
	// listed is the runner's own. Namespaces that are made belong to the user
	// namespace that is listed, if any. Without a mount namespace nothing can be
	// mounted, masked or protected, and the root is entered by chroot(2).
	Namespaces []Namespace
	// UIDMap and GIDMap are those of a user namespace that is made.
	UIDMap, GIDMap []IDMap
	// TimeOffsets shift the clocks "monotonic" and "boottime" of a time
	// namespace that is made.
	TimeOffsets map[string]time.Duration
	Hostname    string
	Domainname  string
	// Mounts are made in their order, below Rootfs.
	Mounts []Mount
	// Devices are made in /dev, or bound from the host where the user namespace
	// forbids to make them. The default devices and links of config-linux.md
	// are made where Mounts put a tmpfs at /dev.
	Devices []Device
	// MaskedPaths are hidden, ReadonlyPaths protected; absent ones are ignored.
	MaskedPaths   []string
	ReadonlyPaths []string
	Sysctls       map[string]string
	// Files are written inside as root of the container before the command
	// starts. Parents are made (0755). A symbolic link on the way is resolved
	// inside the root; the file itself is replaced.
	Files []File

	// CgroupFiles are opened cgroup.procs files that the child joins first.
	// (Files "tasks" of v1 are quicker: they wait for no other process.)
	CgroupFiles []*os.File `json:"-"`
	// CgroupDir is a directory of cgroup v2 that the child is born in, which
	// waits for no other process either; nil for none. Hooks inside join only
	// CgroupFiles.
	CgroupDir *os.File `json:"-"`

	Args []string
	Env  []string
	// Cwd is an absolute path inside, "" for "/". It is made if absent.
	Cwd    string
	UID    uint32
	GID    uint32
	Groups []uint32
	// Umask of the command; nil is 0022.
	Umask *uint32

	// Capabilities are the names (CAP_CHOWN …) to keep in the bounding,
	// permitted and effective sets; inheritable and ambient are empty. Sets,
	// when not nil, says each set by itself instead.
	Capabilities []string
	Sets         *CapabilitySets
	NoNewPrivs   bool
	// Seccomp is a compiled filter, nil for none.
	Seccomp Filter
	// SeccompFlags are SECCOMP_FILTER_FLAG_* (seccomp(2)). With NEW_LISTENER
	// the notification descriptor goes to SeccompListener, a connected unix
	// socket, with SeccompState as the message (config-linux.md, The Container
	// Process State).
	SeccompFlags    uint
	SeccompListener *os.File `json:"-"`
	SeccompState    []byte
	Rlimits         []Rlimit
	// OOMScoreAdj is -1000 to 1000; nil leaves the runner's own, raised to 0.
	OOMScoreAdj *int
	// Personality is persona of personality(2); nil leaves it.
	Personality *uint32
	Scheduler   *Scheduler
	IOPriority  *IOPriority
	// CPUAffinity is the list of processors (0-3,5) for the set-up, and
	// FinalAffinity for the command; "" leaves them.
	CPUAffinity, FinalAffinity string
	// AppArmorProfile and SELinuxLabel are refused (errdefs.ErrUnsupported)
	// where the kernel runs no such module.
	AppArmorProfile, SELinuxLabel string

	// Terminal gives the command a terminal of the instance's own devpts as
	// stdin, stdout, stderr and controlling terminal. Its other end goes to
	// ConsoleSocket, if there is one, as an SCM_RIGHTS message (runc's
	// --console-socket protocol); otherwise the runner holds it and keeps its
	// output in ConsoleLog.
	Terminal      bool
	ConsoleSocket *os.File `json:"-"`
	// ConsoleLog is the file that keeps the console's output (engine/conlog),
	// "" for none; ConsoleLimit bounds it, in bytes.
	ConsoleLog   string
	ConsoleLimit int64
	// ConsoleRows and ConsoleColumns are the first size; 0 is 24 by 80.
	ConsoleRows, ConsoleColumns uint16
	// Stdio are stdin, stdout and stderr when Terminal is false; nil is the
	// null device. They are never re-owned.
	Stdio [3]*os.File `json:"-"`
	// Preserve become descriptors 3 and up of the command.
	Preserve []*os.File `json:"-"`

	// Hooks run at the points that config.md (POSIX-platform Hooks) names.
	Hooks Hooks
	// Runtime is the absolute path of a program with the command line of runc(8)
	// that starts the first process instead of this package, "" for none. What
	// it cannot do of a Spec is errdefs.ErrUnsupported. UIDMap and GIDMap then
	// say what those of a user namespace that is joined are. With Join it must
	// be empty: commands are run by what has started the first process.
	Runtime string
	// RuntimeSeccomp is the system call filter for Runtime, linux.seccomp of
	// config-linux.md, because nobody takes Seccomp; nil for none.
	RuntimeSeccomp []byte
	// Restore brings processes back from a checkpoint instead of starting a
	// command. Of the other fields only Rootfs, CgroupFiles, CgroupDir,
	// ConsoleLog and ConsoleLimit have a meaning then.
	Restore *Restore `json:",omitempty"`
	// Gate, a file from OpenGate, holds the child back before startContainer
	// hooks and the command: Start returns when the child has come that far, with
	// all its rights dropped, and ReleaseGate of any process lets it go on. With
	// hooks behind the gate their State must make a JSON object.
	Gate *os.File `json:"-"`

	// Passed is set between TakeFiles and SetFiles only.
	Passed *PassedFiles `json:",omitempty"`
}

// Restore names a checkpoint.
type Restore struct {
	// Program is the absolute path of the program that brings it back, Images
	// that of the directory.
	Program, Images string
}

// NamespaceKind is a word of config-linux.md, Namespaces.
type NamespaceKind string

// The kinds of namespaces.
const (
	UserNamespace    NamespaceKind = "user"
	PIDNamespace     NamespaceKind = "pid"
	MountNamespace   NamespaceKind = "mount"
	NetworkNamespace NamespaceKind = "network"
	UTSNamespace     NamespaceKind = "uts"
	IPCNamespace     NamespaceKind = "ipc"
	CgroupNamespace  NamespaceKind = "cgroup"
	TimeNamespace    NamespaceKind = "time"
)

// Namespace is a namespace to join, by an open file or by its path, or to make
// when it has neither.
type Namespace struct {
	Kind NamespaceKind
	Path string
	File *os.File `json:"-"`
}

// Mount is one mount. Type, Source and Options are those of config.md, Mounts,
// with the options that runc(8) lists; Destination is absolute and resolved
// inside the root, and made if absent. UIDMap and GIDMap ask for an id-mapped
// bind mount; idmap and ridmap without them for one by the user namespace.
//
// /proc and /sys and what lies below are mounted last. They, and /dev, must be
// no links; on /proc goes proc or a bind mount, on /sys sysfs or a bind mount,
// and below /proc nothing but bind mounts of files that a file system like lxcfs
// makes. Without an option for it nothing is propagated; "shared" in a
// user namespace receives from the host but never sends to it. A tmpfs with
// "tmpcopyup" is an overlay of what is below it that writes to the tmpfs. The
// type cgroup is the container's own part of each hierarchy, as on the host;
// names of controllers among its options choose hierarchies of v1. "ro" of a
// bind mount holds as long as the container lacks CAP_SYS_ADMIN.
type Mount struct {
	Destination    string
	Type           string
	Source         string
	Options        []string
	UIDMap, GIDMap []IDMap
	// Part lets a tmpfs on /dev/NAME be a directory of the tmpfs on /dev instead
	// of a file system, with which it then shares its size; a kernel pays for
	// each file system with memory for each control group of the host.
	Part bool `json:",omitempty"`
	// Files are in a new tmpfs before the command starts: their Path is relative
	// and clean, parents are made (0755).
	Files []File `json:",omitempty"`
	// Links are symbolic links in a new tmpfs, by their path, which is as those of
	// Files are.
	Links map[string]string `json:",omitempty"`
}

// Device is a device node to have inside.
type Device struct {
	Path string
	// Type is 'c', 'b' or 'p'.
	Type         byte
	Major, Minor int64
	Mode         uint32
	UID, GID     uint32
}

// CapabilitySets are the five sets, by names.
type CapabilitySets struct {
	Bounding, Effective, Inheritable, Permitted, Ambient []string
}

// Scheduler is sched_attr of sched_setattr(2), with the policy's and flags'
// names.
type Scheduler struct {
	Policy   string
	Nice     int32
	Priority int32
	Flags    []string
	// Runtime, Deadline and Period in nanoseconds.
	Runtime, Deadline, Period uint64
}

// IOPriority is ioprio_set(2): class IOPRIO_CLASS_RT, _BE or _IDLE, 0 to 7.
type IOPriority struct {
	Class    string
	Priority int
}

// Hook is a program to run. Its standard input is the container's state
// (runtime.md, State); an end other than with status 0 fails the start.
type Hook struct {
	Path    string
	Args    []string
	Env     []string
	Timeout time.Duration
}

// Hooks by their points. poststart and poststop are the caller's.
type Hooks struct {
	// Prestart and CreateRuntime run in the runner's namespaces, when those of
	// the container exist, before its root is entered.
	Prestart, CreateRuntime []Hook
	// CreateContainer run in the container's namespaces, before its root is
	// entered; StartContainer inside of it, before the command.
	CreateContainer, StartContainer []Hook
	// State makes the standard input, for the given status and pid in the
	// runner's terms.
	State func(status string, pid int) []byte `json:"-"`
}

// IDMap maps a block of ids of the container to a block of the host.
type IDMap struct {
	ContainerID, HostID, Size uint32
}

// File is a file to write inside the container.
type File struct {
	Path string
	Data []byte
	Mode uint32
	UID  uint32
	GID  uint32
}

// SockFilter is one instruction of classic BPF (linux/filter.h).
type SockFilter struct {
	Code   uint16
	JT, JF uint8
	K      uint32
}

// Rlimit is one resource limit, by its name (RLIMIT_NOFILE).
type Rlimit struct {
	Name       string
	Soft, Hard uint64
}
