package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// calls tries what a container must not do and says how each ended, a line
// "NAME ERROR" for each, ERROR as unix.ErrnoName says it or "ok".
func calls(out io.Writer) error {
	raw := func(nr, a, b uintptr) func() error {
		return func() error {
			if _, _, errno := unix.Syscall(nr, a, b, 0); errno != 0 {
				return errno
			}
			return nil
		}
	}
	socket := func(family, kind int) func() error {
		return func() error { _, err := unix.Socket(family, kind, 0); return err }
	}
	for _, c := range []struct {
		name string
		try  func() error
	}{
		{"socket-alg", socket(unix.AF_ALG, unix.SOCK_SEQPACKET)},
		{"socket-vsock", socket(unix.AF_VSOCK, unix.SOCK_STREAM)},
		{"fsopen", func() error { _, err := unix.Fsopen("ext4", 0); return err }},
		{"fsconfig", raw(unix.SYS_FSCONFIG, 0, 0)},
		{"move_mount", raw(unix.SYS_MOVE_MOUNT, 0, 0)},
		{"open_tree", raw(unix.SYS_OPEN_TREE, 0, 0)},
		{"mount-overlay", func() error {
			return unix.Mount("overlay", "/tmp", "overlay", 0, "lowerdir=/bin:/etc")
		}},
		{"mount-cgroup", func() error { return unix.Mount("x", "/tmp", "cgroup", 0, "rdma") }},
		{"mount-proc", func() error { return unix.Mount("proc", "/tmp", "proc", 0, "") }},
		{"umount", func() error { return unix.Unmount("/proc/sys", unix.MNT_DETACH) }},
		{"pivot_root", func() error { return unix.PivotRoot("/", "/tmp") }},
		{"unshare-user", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"unshare-mount-cgroup", func() error { return unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP) }},
		{"clone-user", raw(unix.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_THREAD, 0)},
		{"clone3", raw(unix.SYS_CLONE3, 0, 0)},
		{"setns", raw(unix.SYS_SETNS, 0, 0)},
		{"keyctl", raw(unix.SYS_KEYCTL, 0, 0)},
		{"add_key", raw(unix.SYS_ADD_KEY, 0, 0)},
		{"request_key", raw(unix.SYS_REQUEST_KEY, 0, 0)},
		{"userfaultfd", raw(unix.SYS_USERFAULTFD, 1, 0)},
		{"io_uring_setup", raw(unix.SYS_IO_URING_SETUP, 1, 0)},
		{"bpf", raw(unix.SYS_BPF, 0, 0)},
		{"perf_event_open", raw(unix.SYS_PERF_EVENT_OPEN, 0, 0)},
		{"kexec_load", raw(unix.SYS_KEXEC_LOAD, 0, 0)},
		{"init_module", raw(unix.SYS_INIT_MODULE, 0, 0)},
		{"finit_module", raw(unix.SYS_FINIT_MODULE, 0, 0)},
		{"open_by_handle_at", func() error {
			_, err := unix.OpenByHandleAt(unix.AT_FDCWD, unix.NewFileHandle(1, make([]byte, 8)), unix.O_RDONLY)
			return err
		}},
		{"syslog", raw(unix.SYS_SYSLOG, 3, 0)},
		{"swapon", raw(unix.SYS_SWAPON, 0, 0)},
		{"quotactl", raw(unix.SYS_QUOTACTL, 0, 0)},
		{"settimeofday", raw(unix.SYS_SETTIMEOFDAY, 0, 0)},
		{"personality", raw(unix.SYS_PERSONALITY, 0x0400000, 0)},
		{"future", raw(999, 0, 0)},
		{"mknod-disk", func() error { return mknodOf("/") }},
		{"mknod-kmsg", func() error { return unix.Mknod("/tmp/kmsg", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 11))) }},
		{"release-agent", write("/sys/fs/cgroup/memory/release_agent")},
		{"core-pattern", write("/proc/sys/kernel/core_pattern")},
		{"sysrq", write("/proc/sysrq-trigger")},
		{"group-of-its-own", func() error { return os.Mkdir("/sys/fs/cgroup/memory/x", 0o755) }},
		{"getpid", raw(unix.SYS_GETPID, 0, 0)},
	} {
		if _, err := fmt.Fprintln(out, c.name, word(c.try())); err != nil {
			return err
		}
	}
	return nil
}

func word(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func write(name string) func() error {
	return func() error { return os.WriteFile(name, []byte("1"), 0) }
}

// mknodOf makes a node of the disk that a file lies on and reads it.
func mknodOf(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if err := unix.Mknod("/tmp/disk", unix.S_IFBLK|0o666, int(st.Dev)); err != nil {
		return err
	}
	f, err := os.Open("/tmp/disk")
	if err != nil {
		return err
	}
	return f.Close()
}
