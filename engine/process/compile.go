package process

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// facts are what compile has to know of the host. They are read once by New.
type facts struct {
	// cgroups are the mounted hierarchies of control groups.
	cgroups []hierarchy
	// hardLimits are the runner's own hard limits by resource number; a limit
	// above one is lowered to it when the kernel refuses.
	hardLimits map[int]uint64
	// stage is what newStage made; nil for none.
	stage *os.File
	attrFacts
}

// Messages of the child on its status socket: kind and step (32 bits each),
// then a value of 64 bits.
const (
	recordPid     = 1 // value: pid of the first process, in the runner's terms
	recordFailed  = 2 // value: errno of the step
	recordReady   = 3 // the next step is the command
	recordConsole = 4 // carries the master of the console
	// The child waits for an answer of one byte:
	recordPrepared = 5 // its process exists, in its namespaces
	recordMounted  = 6 // its mounts are made, its root is not entered
	recordListener = 7 // value: the listener of its system call filter
	recordCreated  = 8 // nothing but the command is left
	// The child waits at its gate.
	recordGate = 9
	recordSize = 16
)

// compiler holds the places that several parts of a program refer to.
type compiler struct {
	*Program
	spec  *Spec
	facts facts
	// The files of the child that the runner opens.
	rootFD  value
	cgroups []value
	// stage is the runner's stage, if staged.
	stage  value
	staged bool
	// namespaces are those that exist before the child.
	namespaces map[NamespaceKind]value
	// root is the mount of Rootfs in the new mount namespace; every path of the
	// image is resolved below it.
	root value
	// fresh are the roots of file systems of our own, by where they are mounted,
	// and sources the clones that bind mounts show, by index of Spec.Mounts.
	fresh   map[string]freshMount
	sources map[int]value
	// nodes are clones of devices, by index of Spec.Devices, cgroupClones those
	// of control groups, and hostNodes others by what they are for.
	nodes        map[int]value
	cgroupClones map[cgroupKey]value
	hostNodes    map[string]value
	// hostProc is the runner's own /proc, for a Spec without one.
	hostProc value
	// slave is the terminal of the command.
	slave value
	// moved is how far the status socket is from statusFD, gate the listening
	// socket of Spec.Gate, kept what its releaser gets.
	moved int
	gate  value
	kept  []value
	// stdioFD and preserve are files of the Spec, hostProcFD the runner's /proc.
	stdioFD    [3]value
	preserve   []value
	hostProcFD value
	// target is the process of Spec.Join.
	target *target
	// dirs are the directories below root that are open, by cleaned path.
	dirs map[string]value
}

// compile turns a valid Spec into a program, p being empty. It does no I/O: equal input gives
// an equal program.
//
// The order, and why:
//
//  1. in the host's namespaces, as the host's root: limits and control groups,
//     which need its rights; clones of what bind mounts show, because the paths
//     to it are the host's and id-mapping it needs the host's rights; with a
//     stage, a clone of the root too; without one the root directory becomes the
//     working directory, because the path to it is closed to the instance's user
//     and because unshare carries the working directory over to the copied mounts;
//  2. enter the stage, join namespaces, the user namespace last; make the others
//     in it, become root of the user namespace;
//  3. fork into the pid namespace. The child is a child of the runner
//     (CLONE_PARENT); the parent reports its pid and ends;
//  4. files of the Spec and mounts outside of /proc and /sys, before anything of
//     the kernel is mounted below the root that a symbolic link of the image
//     could lead to;
//  5. /proc and /sys, sysctls, masks, all through descriptors; pivot_root;
//  6. working directory, terminal, capabilities, filter, command.
func (p *Program) compile(spec *Spec, facts facts) error {
	if err := spec.validate(); err != nil {
		return err
	}
	c := &compiler{
		Program: p, spec: spec, facts: facts,
		dirs: map[string]value{}, fresh: map[string]freshMount{}, sources: map[int]value{},
		nodes: map[int]value{}, cgroupClones: map[cgroupKey]value{}, hostNodes: map[string]value{},
		namespaces: map[NamespaceKind]value{},
	}
	c.grow()
	c.placeNamespaces()
	if c.staged = facts.stage != nil && spec.stageable(); c.staged {
		c.stage = c.placeFile("stage", facts.stage)
	}
	c.placeRoot()
	if err := c.checkFacts(); err != nil {
		return err
	}
	c.placeFiles()
	c.hostSteps()
	c.enterNamespaces()
	c.fork()
	c.prepared()
	c.takeRoot()
	for _, f := range spec.Files {
		c.writeFile(f)
	}
	c.closeDirs()
	c.mounts()
	c.console()
	c.sysctls()
	c.names()
	c.hostHooks() // masks hide the /proc that hooks may want
	c.maskPaths()
	c.readonlyPaths()
	c.protectMounts()
	c.pivot()
	c.workDirectory()
	c.protectRoot()
	c.finish()
	return nil
}

func (c *compiler) close(name string, fd value) { c.call(name, unix.SYS_CLOSE, fd) }

func (c *compiler) hostSteps() {
	c.call("close on exec", unix.SYS_CLOSE_RANGE, num(statusFD), num(uint64(^uint32(0))), num(unix.CLOSE_RANGE_CLOEXEC))
	c.close("close program", num(selfFD))
	c.call("set umask", unix.SYS_UMASK, num(0o022))
	c.rlimits()
	c.attributes()
	// Nobody in the instance's user namespace may trace the set-up.
	c.call("forbid tracing", unix.SYS_PRCTL, num(unix.PR_SET_DUMPABLE), num(0))
	c.hostTrees()
	switch { // what is mounted on in the new mount namespace
	case c.staged:
	case c.spec.Root != nil:
		c.call("enter /", unix.SYS_CHDIR, c.str("/"))
	default:
		c.call("enter root", unix.SYS_FCHDIR, c.rootFD)
	}
	if c.spec.Root == nil && c.spec.has(MountNamespace) {
		c.close("close root", c.rootFD)
	}
}

// placeRoot takes along the root, which is a mount already or a directory.
func (c *compiler) placeRoot() {
	if c.spec.Root != nil {
		c.root = c.placeFile("root", c.spec.Root)
		return
	}
	c.rootFD = c.place("root directory", c.spec.Rootfs, unix.O_PATH|unix.O_DIRECTORY)
}

// record makes a message for the status socket; its value is a slot too.
func (c *compiler) record(kind uint32, text string) (msg value, slot value) {
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = append(b, make([]byte, recordSize-len(b))...)
	msg = c.buf(b, text)
	return msg, c.slotAt(msg.off+8, text)
}

func (c *compiler) fork() {
	msg, pid := c.record(recordPid, "pid")
	c.call("fork", unix.SYS_CLONE, num(unix.CLONE_PARENT|int(unix.SIGCHLD)), num(0), num(0), num(0), num(0)).to(pid)
	child := c.jumpZero()
	c.call("report pid", unix.SYS_WRITE, num(statusFD), msg, num(recordSize))
	c.call("end of parent", unix.SYS_EXIT_GROUP, num(0))
	c.land(child)
	c.call("new session", unix.SYS_SETSID)
	// A kernel without key rings has none to share.
	c.call("new session key ring", unix.SYS_KEYCTL, num(unix.KEYCTL_JOIN_SESSION_KEYRING), num(0)).ignore(unix.ENOSYS)
}

// rlimits asks for each limit and then, if the host's root may not raise its
// own, for the nearest that it may set.
func (c *compiler) rlimits() {
	for _, l := range c.spec.Rlimits {
		n := rlimitNumbers[l.Name]
		pair := func(soft, hard uint64) value {
			b := binary.LittleEndian.AppendUint64(nil, soft)
			b = binary.LittleEndian.AppendUint64(b, hard)
			return c.buf(b, fmt.Sprintf("{%d %d}", soft, hard))
		}
		name := "set limit " + l.Name
		own, known := c.facts.hardLimits[n]
		if !known || l.Hard <= own {
			c.call(name, unix.SYS_PRLIMIT64, num(0), num(n), pair(l.Soft, l.Hard), num(0))
			continue
		}
		c.call(name, unix.SYS_PRLIMIT64, num(0), num(n), pair(l.Soft, l.Hard), num(0)).ignore(unix.EPERM)
		raised := c.jumpZero()
		c.call(name, unix.SYS_PRLIMIT64, num(0), num(n), pair(min(l.Soft, own), own), num(0))
		c.land(raised)
	}
}
