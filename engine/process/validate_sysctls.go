package process

import (
	"path"
	"slices"
	"strings"
)

func (s *Spec) checkSettings() error {
	for key, val := range s.Sysctls {
		sysctl, err := findSysctl(key)
		if err != nil {
			return err
		}
		if !s.has(sysctl.kind) {
			return invalid("sysctl %q without a namespace of kind %s", key, sysctl.kind)
		}
		if val == "" || len(val) >= 4096 || strings.ContainsAny(val, "\x00\n\r") {
			return invalid("sysctl %s: value %q", key, val)
		}
	}
	return nil
}

// sysctl is a file below /proc/sys and the kind of namespace that it is of.
type sysctl struct {
	file string
	kind NamespaceKind
}

// ipcSysctls are ipc_namespaces(7).
var ipcSysctls = []string{
	"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax", "kernel/shmmni",
	"kernel/shm_rmid_forced", "kernel/msg_next_id", "kernel/sem_next_id", "kernel/shm_next_id", "kernel/auto_msgmni",
}

// findSysctl understands a key in either form of sysctl(8): the first separator
// says which. Only those that belong to a namespace are known.
func findSysctl(key string) (sysctl, error) {
	file := key
	if at := strings.IndexAny(key, "./"); at >= 0 && key[at] == '.' {
		// a dot in a name is written as a slash: net.ipv4.conf.eth0/1.mtu
		file = strings.NewReplacer(".", "/", "/", ".").Replace(key)
	}
	if hasDotDot(file) || path.Clean(file) != file || path.IsAbs(file) || hasNUL(file) {
		return sysctl{}, invalid("sysctl %q", key)
	}
	switch {
	case strings.HasPrefix(file, "net/"):
		return sysctl{file, NetworkNamespace}, nil
	case slices.Contains(ipcSysctls, file) || strings.HasPrefix(file, "fs/mqueue/"):
		return sysctl{file, IPCNamespace}, nil
	case file == "kernel/domainname":
		return sysctl{file, UTSNamespace}, nil
	case file == "kernel/hostname":
		return sysctl{}, invalid("sysctl %q: a Spec has a field for it", key)
	}
	return sysctl{}, invalid("sysctl %q belongs to the whole host", key)
}

// hasSysctlOf reports whether a sysctl of such a namespace is to be set.
func (s *Spec) hasSysctlOf(kind NamespaceKind) bool {
	for key := range s.Sysctls {
		if found, err := findSysctl(key); err == nil && found.kind == kind {
			return true
		}
	}
	return false
}
