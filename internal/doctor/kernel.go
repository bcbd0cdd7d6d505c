package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/linux"
)

// Kernel are the checks of what the engine needs of the kernel.
func Kernel() []Check {
	return []Check{
		{"kernel", "older kernels lack what the isolation relies on; gantry is made for 6.1 and newer", "install a newer kernel, for example the distribution's backport", kernelVersion},
		{"root", "only root can mount, make devices and set up namespaces", "run it as root", isRoot},
		{"user-namespaces", "each instance has a user namespace of its own; none can start", "sysctl user.max_user_namespaces=65536; a kernel with CONFIG_USER_NS", userNamespaces},
		{"namespaces", "instances would see the host's processes, networks or names; none can start", "a kernel with all CONFIG_*_NS", namespaces},
		{"overlay", "layers are not shared: each disk is a whole copy of its image", "modprobe overlay, and its name into /etc/modules-load.d/gantry.conf", fileSystem("overlay", Warn)},
		{"seccomp", "no filter of system calls; no instance can start", "a kernel with CONFIG_SECCOMP_FILTER", seccomp},
		{"pidfd", "processes cannot be named beyond the reuse of pids; no instance can start", "a newer kernel, and no filter of system calls around the service", pidfd},
		{"openat2", "paths inside of a root cannot be resolved safely; no image can be unpacked", "a newer kernel, and no filter of system calls around the service", openat2},
		{"cgroup-layout", "limits cannot be set; no instance can start", "mount cgroup v2 at /sys/fs/cgroup; systemd does", cgroupLayout},
		{"cgroup-controllers", "a limit whose controller is missing is refused", "enable the controllers: cgroup_enable=memory on the kernel's command line, cgroup.subtree_control of the root", cgroupControllers},
		{"loop-devices", "no limit of a disk by a loop file, where the file system has no quotas", "modprobe loop, or a file system with project quotas", loopDevices},
		{"criu", "no checkpoint and restore", "install criu 4.2 or newer", criu},
	}
}

func kernelVersion(_ context.Context, h *Host) (Level, string) {
	release, err := h.read("proc/sys/kernel/osrelease")
	if err != nil {
		return Fail, err.Error()
	}
	major, minor, ok := version(release)
	switch {
	case !ok:
		return Fail, "release " + strconv.Quote(release)
	case major < 5 || major == 5 && minor < 19:
		return Fail, release
	case major < 6 || major == 6 && minor < 1:
		return Warn, release
	}
	return OK, release
}

// version reads the first two numbers of a text such as 6.1.0-18-amd64.
func version(text string) (major, minor int, ok bool) {
	first, rest, found := strings.Cut(text, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	major, err := strconv.Atoi(first)
	minor, merr := strconv.Atoi(rest)
	return major, minor, found && err == nil && merr == nil
}

func isRoot(context.Context, *Host) (Level, string) {
	if uid := os.Geteuid(); uid != 0 {
		return Fail, fmt.Sprintf("user id %d", uid)
	}
	return OK, "root"
}

func userNamespaces(_ context.Context, h *Host) (Level, string) {
	if !h.exists("proc/self/ns/user") {
		return Fail, "the kernel has none"
	}
	n, err := h.number("proc/sys/user/max_user_namespaces")
	found := fmt.Sprintf("user.max_user_namespaces = %d", n)
	switch {
	case err != nil:
		return Fail, err.Error()
	case n == 0:
		return Fail, found
	case n < 1000: // one for each instance, and what they make inside
		return Warn, found
	}
	return OK, found
}

func namespaces(_ context.Context, h *Host) (Level, string) {
	var missing []string
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "uts"} {
		if !h.exists("proc/self/ns/" + kind) {
			missing = append(missing, kind)
		}
	}
	if len(missing) > 0 {
		return Fail, "missing: " + strings.Join(missing, " ")
	}
	return OK, "all kinds"
}

func fileSystem(name string, level Level) func(context.Context, *Host) (Level, string) {
	return func(_ context.Context, h *Host) (Level, string) {
		known, err := h.read("proc/filesystems")
		if err != nil {
			return Fail, err.Error()
		}
		if !slices.Contains(strings.Fields(known), name) {
			return level, "the kernel does not know it, or has not loaded its module yet"
		}
		return OK, "known"
	}
}

func seccomp(_ context.Context, h *Host) (Level, string) {
	actions, err := h.read("proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		return Fail, err.Error()
	}
	if !slices.Contains(strings.Fields(actions), "errno") {
		return Fail, actions
	}
	if !slices.Contains(strings.Fields(actions), "user_notif") {
		return Note, actions
	}
	return OK, actions
}

func pidfd(context.Context, *Host) (Level, string) {
	f, err := linux.PidfdOpen(os.Getpid())
	if err != nil {
		return Fail, err.Error()
	}
	_ = f.Close()
	return OK, "works"
}

func openat2(_ context.Context, h *Host) (Level, string) {
	root, err := os.Open(h.Root)
	if err != nil {
		return Fail, err.Error()
	}
	defer func() { _ = root.Close() }()
	f, err := linux.OpenInRoot(root, "proc", unix.O_PATH)
	if err != nil {
		return Fail, err.Error()
	}
	_ = f.Close()
	return OK, "works"
}

// controllers that a default instance has limits of, by their names in v1; v2
// has devices and freezer without a controller.
var controllers = []string{"cpu", "memory", "pids", "cpuset", "devices", "freezer"}

func cgroupLayout(_ context.Context, h *Host) (Level, string) {
	switch {
	case h.exists("sys/fs/cgroup/cgroup.controllers"):
		return OK, "cgroup v2"
	case h.exists("sys/fs/cgroup/unified/cgroup.controllers"):
		return OK, "hybrid: v1 with v2 beside it"
	case h.exists("sys/fs/cgroup/memory"):
		return OK, "cgroup v1"
	}
	return Fail, "nothing is mounted below /sys/fs/cgroup"
}

func cgroupControllers(_ context.Context, h *Host) (Level, string) {
	var have []string
	if list, err := h.read("sys/fs/cgroup/cgroup.controllers"); err == nil {
		have = append(strings.Fields(list), "devices", "freezer")
	}
	var missing []string
	for _, c := range controllers {
		if !slices.Contains(have, c) && !h.exists("sys/fs/cgroup/"+c) {
			missing = append(missing, c)
		}
	}
	switch {
	case slices.ContainsFunc(missing, func(c string) bool { return c == "pids" || c == "memory" || c == "devices" }):
		return Fail, "missing: " + strings.Join(missing, " ")
	case len(missing) > 0:
		return Warn, "missing: " + strings.Join(missing, " ")
	}
	return OK, strings.Join(controllers, " ")
}

func loopDevices(_ context.Context, h *Host) (Level, string) {
	if !h.exists("dev/loop-control") {
		return Note, "no /dev/loop-control"
	}
	return OK, "/dev/loop-control"
}

// criu before 4.2 does not start on newer kernels.
func criu(ctx context.Context, h *Host) (Level, string) {
	name, err := h.LookPath("criu")
	if err != nil {
		return Note, "not installed"
	}
	out, err := h.Output(ctx, name, "--version")
	if err != nil {
		return Note, errors.Join(errors.New(name), err).Error()
	}
	first, _, _ := strings.Cut(string(out), "\n")
	_, number, _ := strings.Cut(first, ":")
	number = strings.TrimSpace(number)
	if major, minor, ok := version(number); !ok || major < 4 || major == 4 && minor < 2 {
		return Note, fmt.Sprintf("version %q, want 4.2", number)
	}
	return OK, "version " + number
}
