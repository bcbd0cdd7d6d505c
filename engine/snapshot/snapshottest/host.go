package snapshottest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// InMountNamespace is for TestMain: it runs the tests in a mount namespace of
// their own and returns what to exit with.
func InMountNamespace(m *testing.M) int {
	const marker = "GANTRY_TEST_MOUNT_NAMESPACE"
	if os.Getenv(marker) != "" {
		return m.Run()
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// Tmpfs mounts an empty tmpfs until the end of the test.
func Tmpfs(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tmpfs-")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(syscall.Unmount(dir, syscall.MNT_DETACH), os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// FileSystem makes a file system of size bytes in a file and mounts it until
// the end of the test. kind is btrfs, ext4 or xfs; needs Debian's packages
// btrfs-progs, e2fsprogs and xfsprogs, and mount(8).
func FileSystem(t testing.TB, kind string, size int64, options string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fs-")
	if err != nil {
		t.Fatal(err)
	}
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close(), os.Mkdir(mount, 0o755), os.Chmod(dir, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs."+kind, "-q", image)
	run(t, "mount", "-t", kind, "-o", strings.TrimSuffix("loop,"+options, ","), image, mount)
	t.Cleanup(func() {
		if err := unmount(mount); err != nil {
			t.Errorf("umount %s: %v", mount, err)
			_ = syscall.Unmount(mount, syscall.MNT_DETACH)
		}
	})
	return mount
}

// unmount waits for what the kernel still lets go behind everybody's back: the
// mounts of a namespace that has ended, and loop devices over files.
func unmount(mount string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := syscall.Unmount(mount, 0)
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
		<-tick.C
	}
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}
