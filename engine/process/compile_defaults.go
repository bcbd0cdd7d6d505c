package process

// DefaultNamespaces lists every kind: the user and network namespaces at the
// given paths (see CreateNamespaces), the others new.
func DefaultNamespaces(user, network string) []Namespace {
	return []Namespace{
		{Kind: UserNamespace, Path: user},
		{Kind: NetworkNamespace, Path: network},
		{Kind: PIDNamespace},
		{Kind: MountNamespace},
		{Kind: UTSNamespace},
		{Kind: IPCNamespace},
		{Kind: CgroupNamespace},
		{Kind: TimeNamespace},
	}
}

// DefaultMounts are those of config-linux.md, Default Filesystems, with /sys
// read-only. Of the control groups of v1 only those are there that programs
// look at to find out how much they may use. /dev and /dev/shm share their 64 MiB.
func DefaultMounts() []Mount {
	return []Mount{
		{Destination: "/proc", Type: "proc", Options: []string{"nosuid", "nodev", "noexec"}},
		{Destination: "/dev", Type: "tmpfs", Options: []string{"nosuid", "noexec", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Options: []string{"nosuid", "noexec", "ptmxmode=0666", "mode=620", "gid=5", "max=1024"}},
		{Destination: "/dev/shm", Type: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=65536k"}, Part: true},
		{Destination: "/dev/mqueue", Type: "mqueue", Options: []string{"nosuid", "nodev", "noexec"}},
		{Destination: "/sys", Type: "sysfs", Options: []string{"ro", "nosuid", "nodev", "noexec"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Options: []string{
			"ro", "nosuid", "nodev", "noexec", "cpu", "cpuacct", "memory", "pids",
		}},
	}
}
