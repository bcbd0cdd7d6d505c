package jail

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights of Landlock, linux/landlock.h, and the version of the interface that
// has them.
const (
	allRights1   = 1<<13 - 1 // version 1
	rightExecute = 1 << 0
	rightRead    = 1 << 2
	rightBlock   = 1 << 11 // make a block device
	rightSocket  = 1 << 9
	rightRefer   = 1 << 13 // version 2: link across directories
	rightTrunc   = 1 << 14 // version 3
	rightIoctl   = 1 << 15 // version 5: ioctl of devices
	netRights    = 1<<0 | 1<<1
	pathBeneath  = 1 // LANDLOCK_RULE_PATH_BENEATH
	askVersion   = 1 // LANDLOCK_CREATE_RULESET_VERSION
)

// rulesetAttr is struct landlock_ruleset_attr, of version 4 on.
type rulesetAttr struct{ fs, net uint64 }

// pathAttr is struct landlock_path_beneath_attr, which is packed:
// what the compiler puts behind it does not count.
type pathAttr struct {
	allowed uint64
	parent  int32
}

// landlock keeps the thread, and what it executes, from every file that is not
// below the directory dir (-1 for none), but lets it read what else is open in
// readable. A kernel without Landlock leaves the rest of the jail to hold.
func landlock(dir int, readable []int) error {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, askVersion)
	if errno != 0 {
		return nil // not there, or switched off at boot
	}
	// The right to execute is left alone: the second start needs it.
	attr := rulesetAttr{fs: allRights1 &^ rightExecute}
	size := unsafe.Sizeof(attr.fs)
	if version >= 2 {
		attr.fs |= rightRefer
	}
	if version >= 3 {
		attr.fs |= rightTrunc
	}
	if version >= 4 {
		attr.net, size = netRights, unsafe.Sizeof(attr)
	}
	if version >= 5 {
		attr.fs |= rightIoctl
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	defer unix.Close(int(fd))
	var list []pathAttr
	if dir >= 0 {
		list = append(list, pathAttr{allowed: attr.fs &^ (rightBlock | rightSocket | rightIoctl), parent: int32(dir)})
	}
	for _, fd := range readable {
		list = append(list, pathAttr{allowed: rightRead, parent: int32(fd)})
	}
	for _, rule := range list {
		if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, fd, pathBeneath, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
			return os.NewSyscallError("landlock_add_rule", errno)
		}
	}
	_, _, errno = unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0)
	return os.NewSyscallError("landlock_restrict_self", errOrNil(errno))
}

func errOrNil(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// allowed are the system calls of every work: what the runtime of Go needs, and
// reading and writing of what is open.
func allowed() []uintptr {
	return append(archAllowed(), []uintptr{
		// the runtime
		unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_MMAP, unix.SYS_MUNMAP,
		unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_MREMAP, unix.SYS_BRK, unix.SYS_RT_SIGACTION,
		unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY,
		unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_TGKILL, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_CLONE,
		unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_GETRANDOM, unix.SYS_RESTART_SYSCALL, unix.SYS_EPOLL_CREATE1,
		unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_FCNTL, unix.SYS_TIMER_CREATE,
		unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE, unix.SYS_SETITIMER, unix.SYS_MEMBARRIER, unix.SYS_GETEUID, unix.SYS_GETUID,
		// what is open
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_PREAD64, unix.SYS_WRITEV, unix.SYS_READV, unix.SYS_CLOSE, unix.SYS_FSTAT, unix.SYS_LSEEK,
	}...)
}

// cloneNamespaces are the flags of clone(2) that make namespaces.
const cloneNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

// Offsets in struct seccomp_data.
const (
	offNumber   = 0
	offArch     = 4
	offFirstArg = 16
)

// rules is the filter: allowed calls and those in more pass, all others are
// EPERM. clone makes threads and nothing else.
func rules(more []uintptr) []unix.SockFilter {
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	answer := func(what uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what} }
	deny := answer(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	out := []unix.SockFilter{
		load(offArch),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: auditArch, Jt: 1},
		answer(unix.SECCOMP_RET_KILL_PROCESS),
		load(offNumber),
		// ENOSYS makes the C library, where there is one, take clone
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CLONE3, Jf: 1},
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CLONE, Jf: 5},
		load(offFirstArg),
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.CLONE_THREAD, Jf: 1},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: cloneNamespaces, Jf: 1},
		deny,
		answer(unix.SECCOMP_RET_ALLOW),
	}
	for _, nr := range append(allowed(), more...) {
		out = append(out, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(nr), Jf: 1}, answer(unix.SECCOMP_RET_ALLOW))
	}
	return append(out, deny)
}

// filter puts the filter on all threads.
func filter(more []uintptr) error {
	list := rules(more)
	prog := unix.SockFprog{Len: uint16(len(list)), Filter: &list[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("load system call filter: %w", errors.Join(errno))
	}
	return nil
}
