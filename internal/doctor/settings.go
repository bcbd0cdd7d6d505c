package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Settings are the checks of how the host is set up. Nothing is changed: an
// operator decides.
func Settings() []Check {
	checks := []Check{
		{"disk-space", "builds and snapshots fail, and below 1 GiB records cannot be written for long", "remove images that nothing needs (gantry images, [image_cache]), or a larger file system for the store", diskSpace},
		{"disk-inodes", "images cannot be unpacked", "a file system with more inodes for the store", diskInodes},
		{"open-files", "the keeper needs up to 4 descriptors for each instance, so that is how many the host can run", "LimitNOFILE=1048576 in the unit, which the delivered one has", openFiles},
		{"resource-capability", "hard limits cannot be raised, nor can the kernel be asked to spare the service when memory ends", "run the service with CAP_SYS_RESOURCE, which root of a host has and root of a container may not have", resourceCapability},
		{"clock", "tokens are refused or outlive their time, Nova takes the service for down, certificates are not valid yet", "run chrony, systemd-timesyncd or ntpd with the servers that the controllers have", clockSynchronised},
	}
	checks = append(checks, moduleChecks()...)
	for _, s := range sysctls {
		checks = append(checks, Check{"sysctl " + s.name, s.costs, s.remedy(), s.check})
	}
	return checks
}

// sysctl is one setting of the kernel. The list is reference documentation's for
// hosts that run foreign code; the kernel's own is admin-guide/sysctl.
type sysctl struct {
	name string
	// least and most are the good values.
	least, most int64
	// absent is the level when the kernel does not have it.
	absent, level Level
	costs         string
}

const anything = 1 << 62

var sysctls = []sysctl{
	{"fs.protected_symlinks", 1, 1, Warn, Warn, "links in shared directories can lead programs of the host astray (/tmp races)"},
	{"fs.protected_hardlinks", 1, 1, Warn, Warn, "users of the host can keep set-user-ID programs alive by hard links"},
	{"fs.protected_fifos", 1, 2, Note, Note, "a pipe in a shared directory can be put in a program's way"},
	{"fs.protected_regular", 1, 2, Note, Note, "a file in a shared directory can be put in a program's way"},
	{"kernel.unprivileged_bpf_disabled", 1, 2, Note, Warn, "users of the host can load BPF programs; instances cannot, by the filter"},
	{"kernel.kptr_restrict", 1, 2, Warn, Warn, "addresses of the kernel can be read by users of the host"},
	{"kernel.dmesg_restrict", 1, 1, Warn, Warn, "the kernel's log can be read by users of the host"},
	{"kernel.io_uring_disabled", 1, 2, Note, Note, "users of the host have io_uring, a large part of the kernel; instances have not, by the filter"},
	{"vm.memfd_noexec", 0, 1, OK, Fail, "with 2 nothing can be executed from a sealed memory file, which keeps the host's programs out of reach of instances"},
	{"vm.max_map_count", 65530, anything, Note, Warn, "programs with many mappings (databases, Java) fail inside of instances"},
	{"kernel.pid_max", 32768, anything, Warn, Warn, "the host runs out of process ids before instances reach their limits"},
	{"fs.inotify.max_user_instances", 128, anything, Note, Note, "systemd in instances fails to watch files"},
	{"net.netfilter.nf_conntrack_max", 65536, anything, OK, Warn, "many connections of instances fill the table, and new ones are dropped for all"},
}

func (s sysctl) check(_ context.Context, h *Host) (Level, string) {
	name := filepath.Join("proc/sys", filepath.FromSlash(dotsToSlashes(s.name)))
	if !h.exists(name) {
		return s.absent, "not in this kernel"
	}
	n, err := h.number(name)
	if err != nil {
		return s.level, err.Error()
	}
	if n < s.least || n > s.most {
		return s.level, fmt.Sprintf("%d, want %s", n, s.want())
	}
	return OK, fmt.Sprint(n)
}

func (s sysctl) want() string {
	switch s.most {
	case s.least:
		return fmt.Sprint(s.least)
	case anything:
		return fmt.Sprintf("at least %d", s.least)
	}
	return fmt.Sprintf("%d to %d", s.least, s.most)
}

// remedy sets the nearest good value.
func (s sysctl) remedy() string {
	return fmt.Sprintf("sysctl -w %s=%d, and the same line in /etc/sysctl.d/60-gantry.conf", s.name, s.least)
}

func dotsToSlashes(name string) string {
	out := []byte(name)
	for i := range out {
		if out[i] == '.' {
			out[i] = '/'
		}
	}
	return string(out)
}

// statfs is of the store, or of the nearest directory above that exists.
func statfs(name string) (st unix.Statfs_t, err error) {
	for {
		err = unix.Statfs(name, &st)
		if err == nil || name == filepath.Dir(name) {
			return st, err
		}
		name = filepath.Dir(name)
	}
}

const gib = 1 << 30

func diskSpace(_ context.Context, h *Host) (Level, string) {
	st, err := statfs(h.Store)
	if err != nil {
		return Fail, err.Error()
	}
	return spaceLevel(int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize) //nolint:gosec // sizes of disks
}

func spaceLevel(free, total int64) (Level, string) {
	found := fmt.Sprintf("%d of %d MiB free", free>>20, total>>20)
	switch {
	case free < gib/4:
		return Fail, found
	case free < gib, total > 0 && free < total/50:
		return Warn, found
	}
	return OK, found
}

func diskInodes(_ context.Context, h *Host) (Level, string) {
	st, err := statfs(h.Store)
	switch {
	case err != nil:
		return Fail, err.Error()
	case st.Files == 0:
		return OK, "made as needed"
	}
	found := fmt.Sprintf("%d of %d free", st.Ffree, st.Files)
	if st.Ffree < st.Files/50 || st.Ffree < 50_000 {
		return Warn, found
	}
	return OK, found
}

func openFiles(context.Context, *Host) (Level, string) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return Fail, os.NewSyscallError("getrlimit", err).Error()
	}
	found := fmt.Sprintf("at most %d", limit.Max)
	if limit.Max < 8192 {
		return Warn, found
	}
	return OK, found
}

func resourceCapability(_ context.Context, h *Host) (Level, string) {
	set, err := effective(h)
	switch {
	case err != nil:
		return Warn, err.Error()
	case set&(1<<unix.CAP_SYS_RESOURCE) == 0:
		return Note, "CAP_SYS_RESOURCE is not held"
	}
	return OK, "CAP_SYS_RESOURCE is held"
}
