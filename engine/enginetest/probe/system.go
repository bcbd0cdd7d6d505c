package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// system is an init that asks for what systemd asks for at a boot: file systems
// of its own, control groups that its services have controllers in, a console.
// It says "up" with what it was told and becomes the program, which has one
// thread, as an init has to: reboot(2) of one with several is not told from a kill.
func system(out io.Writer, program string, args []string) error {
	for _, m := range []struct{ what, at, kind, data string }{
		{"tmpfs", "/run", "tmpfs", "mode=755,size=20%"},
		{"tmpfs", "/run/lock", "tmpfs", "size=5m"},
		{"tmpfs", "/tmp", "tmpfs", "mode=1777"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.what, m.at, m.kind, unix.MS_NOSUID|unix.MS_NODEV, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := groups("/sys/fs/cgroup"); err != nil {
		return err
	}
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err != nil {
		return fmt.Errorf("console: %w", err)
	}
	fmt.Fprintf(out, "told container=%s uuid=%s\n", os.Getenv("container"), os.Getenv("container_uuid"))
	return unix.Exec(program, args, os.Environ())
}

// groups moves this process to a group below top and hands all controllers down,
// after which no process may be in top itself.
func groups(top string) error {
	own := filepath.Join(top, "init.scope")
	for _, dir := range []string{own, filepath.Join(top, "system.slice")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	have, err := os.ReadFile(filepath.Join(top, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(have)) {
		if err := os.WriteFile(filepath.Join(top, "cgroup.subtree_control"), []byte("+"+name), 0); err != nil {
			return err
		}
	}
	return nil
}

// reach tries what root of a system container must not do, in the form of calls.
func reach(out io.Writer) error {
	at := "/run/reach"
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	mount := func(kind, data string) func() error {
		return func() error { return unix.Mount("x", at, kind, 0, data) }
	}
	// the host's settings, by a /proc and a /sys without the read-only mounts
	for _, name := range []string{"/proc/sys", "/sys"} {
		_ = unix.Mount("", name, "", unix.MS_REMOUNT|unix.MS_BIND, "")
	}
	_ = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, "") // without nodev
	_ = unix.Unmount("/proc/sysrq-trigger", unix.MNT_DETACH)
	tries := []struct {
		name string
		try  func() error
	}{
		{"mount-ext4", func() error { return unix.Mount("/bin/probe", at, "ext4", 0, "") }},
		{"mount-debugfs", mount("debugfs", "")},
		{"mount-tracefs", mount("tracefs", "")},
		{"mount-securityfs", mount("securityfs", "")},
		{"mount-devtmpfs", mount("devtmpfs", "")},
		{"mount-bpf", mount("bpf", "")},
		{"mount-hierarchy", mount("cgroup", "none,name=reach")},
		{"core-pattern", write("/proc/sys/kernel/core_pattern")},
		{"drop-caches", write("/proc/sys/vm/drop_caches")},
		{"sysrq", write("/proc/sysrq-trigger")},
		{"kernel-setting", write("/sys/kernel/profiling")},
		{"limit-of-groups", write("/sys/fs/cgroup/cgroup.max.descendants")},
		{"freeze", write("/sys/fs/cgroup/cgroup.freeze")},
		{"mknod", func() error { return unix.Mknod("/run/disk", unix.S_IFBLK|0o666, int(unix.Mkdev(254, 0))) }},
		{"clock", func() error { return unix.Settimeofday(&unix.Timeval{}) }},
		{"bpf", func() error { _, _, e := unix.Syscall(unix.SYS_BPF, 0, 0, 0); return e }},
		{"init-module", func() error { _, _, e := unix.Syscall(unix.SYS_INIT_MODULE, 0, 0, 0); return e }},
		{"syslog", func() error { _, _, e := unix.Syscall(unix.SYS_SYSLOG, 3, 0, 0); return e }},
		{"kexec", func() error { _, _, e := unix.Syscall(unix.SYS_KEXEC_LOAD, 0, 0, 0); return e }},
		{"open-by-handle", func() error { _, _, e := unix.Syscall(unix.SYS_OPEN_BY_HANDLE_AT, 0, 0, 0); return e }},
		{"keyctl", func() error { _, _, e := unix.Syscall(unix.SYS_KEYCTL, 0, 0, 0); return e }},
		{"io_uring", func() error { _, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0); return e }},
		{"userfaultfd", func() error { _, _, e := unix.Syscall(unix.SYS_USERFAULTFD, 1, 0, 0); return e }},
	}
	for _, c := range tries {
		if _, err := fmt.Fprintln(out, c.name, word(c.try())); err != nil {
			return err
		}
	}
	return hierarchies(out, at)
}

// hierarchies mounts each controller of v1, which the kernel allows, and tries
// to write every file of what comes up.
func hierarchies(out io.Writer, at string) error {
	for _, name := range []string{"devices", "memory", "pids", "cpu", "freezer", "blkio", "cpuset"} {
		if unix.Mount("x", at, "cgroup", 0, name) != nil {
			continue
		}
		files, err := os.ReadDir(at)
		if err != nil {
			return err
		}
		for _, f := range files {
			if unix.Access(filepath.Join(at, f.Name()), unix.W_OK) == nil {
				fmt.Fprintf(out, "%s/%s writable\n", name, f.Name())
			}
		}
		if err := unix.Unmount(at, 0); err != nil {
			return err
		}
	}
	return nil
}
