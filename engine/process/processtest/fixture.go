package processtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-project/gantry/engine/process"
	"golang.org/x/sys/unix"
)

// HostID is the first of the 65536 host ids of a Fixture.
const HostID = 1_000_000

// Fixture is what a real runner needs to start something.
type Fixture struct {
	Rootfs, UserNS, NetNS string
}

// busybox is Debian's statically linked one.
const busybox = "/bin/busybox"

// NewFixture makes a root file system whose commands are busybox's and whose
// files belong to the mapped ids, and a user and network namespace. All of it
// is gone after the test; a leftover fails it.
func NewFixture(t testing.TB) Fixture {
	t.Helper()
	dir := t.TempDir()
	// A runner must not rely on the path to the root being open to all.
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f := Fixture{Rootfs: filepath.Join(dir, "rootfs")}
	makeRootfs(t, f.Rootfs)

	ids := []process.IDMap{{ContainerID: 0, HostID: HostID, Size: 65536}}
	pins := filepath.Join(dir, "ns")
	var err error
	f.UserNS, f.NetNS, err = process.CreateNamespaces(t.Context(), pins, ids, ids)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := process.RemoveNamespaces(pins); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(pins); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", pins, err)
		}
	})
	return f
}

func makeRootfs(t testing.TB, root string) {
	t.Helper()
	for _, d := range []string{"bin", "etc", "tmp", "home"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatalf("%v (package busybox-static)", err)
	}
	files := map[string]string{
		"bin/busybox":    string(data),
		"etc/passwd":     "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n",
		"etc/group":      "root:x:0:\nuser:x:1000:\nextra:x:1001:user\n",
		"bin/notallowed": "#!/bin/sh\n",
		"bin/badformat":  "\x00\x01\x02",
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "bin/notallowed"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, applet := range []string{
		"true", "false", "sh", "sleep", "echo", "cat", "ls", "id", "hostname", "grep", "poweroff", "reboot",
		"mount", "readlink", "stat", "mknod", "seq", "tty", "pwd", "env", "printf", "stty", "test", "[", "kill", "dd", "head", "touch", "mkdir", "unshare",
	} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.Lchown(path, HostID, HostID)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Spec returns a spec for the fixture, with the rights that instances get by
// default except a system call filter.
func (f Fixture) Spec(t testing.TB, args ...string) process.Spec {
	t.Helper()
	return process.Spec{
		Rootfs:     f.Rootfs,
		Namespaces: process.DefaultNamespaces(f.UserNS, f.NetNS), Mounts: process.DefaultMounts(),
		Hostname: "fixture",
		Args:     args,
		Env:      []string{"PATH=/bin"},
		Capabilities: []string{
			"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
			"CAP_SETPCAP", "CAP_SETFCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_AUDIT_WRITE",
		},
		MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/nonsense"},
		ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		Terminal:      true,
		ConsoleLog:    filepath.Join(t.TempDir(), "console.log"),
	}
}
