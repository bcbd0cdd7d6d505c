package engine

import (
	"os"
	"path/filepath"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/process"
)

// The default profile: what every container gets. It is data for the runner,
// which adds nothing of its own (process.Spec).
//
//	namespaces    new at each start; net, once NetNS was asked for, and the user
//	              namespace that it belongs to outlive it
//	root          the container's disk, nodev; everything private
//	/proc         nosuid,nodev,noexec; masks and read-only paths below
//	/sys          read-only, nosuid,nodev,noexec
//	/sys/fs/cgroup read-only, the container's own part: the tree of cgroup v2, or
//	              of v1 those that programs size themselves by
//	/dev          tmpfs: null zero full random urandom tty console, fd stdin
//	              stdout stderr ptmx, a devpts of its own, shm 64 MiB, mqueue
//	capabilities  see capabilities; bounding, permitted and effective are equal,
//	              inheritable and ambient are empty
//	system calls  engine/seccomp, Default
//	limits        see rlimits; processes, memory, cpu by the control group
//	devices       see devices, by the control group, for whatever gets a node
//	sysctls       see sysctls
//	key ring      a new session key ring
//	oom score     0

// capabilities of the default profile: what an unprivileged system needs
// inside its own user namespace. With CAP_SYS_BOOT an init can end its own pid
// namespace, which is all that reboot(2) does there; without it every init that
// is asked to power off hangs until it is killed.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_SETFCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_AUDIT_WRITE",
	"CAP_SYS_BOOT",
}

// readonlyPaths are what a container may see but not change of the host's
// kernel. Source: the usual list of the field (runtime-spec config-linux.md,
// readonlyPaths).
var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// cpuDirs holds a directory for each processor.
const cpuDirs = "/sys/devices/system/cpu"

// maskedPaths hide what a container must not see of the host's kernel: the
// usual list of the field (runtime-spec config-linux.md, maskedPaths), the
// power counters that tell what neighbours compute (CVE-2020-8694), and the
// thermal counters of each processor.
func maskedPaths() []string {
	list := []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
	const thermal = "thermal_throttle"
	if _, err := os.Lstat(filepath.Join(cpuDirs, "cpu0", thermal)); err != nil {
		return list // most virtual machines
	}
	perCPU, err := filepath.Glob(filepath.Join(cpuDirs, "cpu[0-9]*", thermal))
	if err != nil {
		return list
	}
	return append(list, perCPU...)
}

// rlimits bound each process. What is above the host's own hard limit is
// lowered to it (process.Spec.Rlimits).
func rlimits() []process.Rlimit {
	const kib = 1 << 10
	return []process.Rlimit{
		{Name: "RLIMIT_NOFILE", Soft: 1024, Hard: 1 << 20},
		{Name: "RLIMIT_MEMLOCK", Soft: 8192 * kib, Hard: 8192 * kib},
		{Name: "RLIMIT_MSGQUEUE", Soft: 800 * kib, Hard: 800 * kib},
		// The host's core_pattern is not the container's to feed.
		{Name: "RLIMIT_CORE"},
	}
}

// sysctls let everybody inside ping and bind any port: the network is the
// container's own. 65535 is the last id that it has.
func sysctls() map[string]string {
	return map[string]string{
		"net.ipv4.ping_group_range":           "0 65535",
		"net.ipv4.ip_unprivileged_port_start": "0",
	}
}

// DefaultDevices are all that a container's control group may open, unless the
// request says otherwise: those of its /dev, and its own terminals (136 and up is
// devpts; Documentation/admin-guide/devices.txt). The user namespace and nodev
// keep others away already; this is for a node that comes in all the same.
func DefaultDevices() []cgroup.Device {
	var list []cgroup.Device
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}, {136, -1}} {
		list = append(list, cgroup.Device{Type: 'c', Major: d[0], Minor: d[1], Access: "rwm"})
	}
	return list
}

// limits are those of the record with the profile's devices, where the kernel
// can enforce them.
func (e *Engine) limits(l cgroup.Limits) cgroup.Limits {
	if l.Devices == nil && l.DeviceRules == nil && e.opts.Cgroups.Supports(cgroup.LimitDevices) {
		l.Devices = DefaultDevices()
	}
	return l
}

// profile is the part of a Spec that is the same for every container.
func (e *Engine) profile(noNewPrivs bool) process.Spec {
	return process.Spec{
		Mounts:      process.DefaultMounts(),
		MaskedPaths: maskedPaths(), ReadonlyPaths: readonlyPaths, Sysctls: sysctls(),
		Capabilities: capabilities, NoNewPrivs: noNewPrivs, Seccomp: e.filter, Rlimits: rlimits(),
	}
}
