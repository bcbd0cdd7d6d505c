package process

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// namespaceInfo is what the kernel calls a kind: its flag of clone(2) and its
// file in /proc/PID/ns.
type namespaceInfo struct {
	flag int
	file string
}

func (k NamespaceKind) info() namespaceInfo {
	switch k {
	case UserNamespace:
		return namespaceInfo{unix.CLONE_NEWUSER, "user"}
	case PIDNamespace:
		return namespaceInfo{unix.CLONE_NEWPID, "pid"}
	case MountNamespace:
		return namespaceInfo{unix.CLONE_NEWNS, "mnt"}
	case NetworkNamespace:
		return namespaceInfo{unix.CLONE_NEWNET, "net"}
	case UTSNamespace:
		return namespaceInfo{unix.CLONE_NEWUTS, "uts"}
	case IPCNamespace:
		return namespaceInfo{unix.CLONE_NEWIPC, "ipc"}
	case CgroupNamespace:
		return namespaceInfo{unix.CLONE_NEWCGROUP, "cgroup"}
	case TimeNamespace:
		return namespaceInfo{unix.CLONE_NEWTIME, "time"}
	}
	return namespaceInfo{}
}

// namespace returns the listed namespace of a kind.
func (s *Spec) namespace(kind NamespaceKind) (Namespace, bool) {
	i := slices.IndexFunc(s.Namespaces, func(n Namespace) bool { return n.Kind == kind })
	if i < 0 {
		return Namespace{}, false
	}
	return s.Namespaces[i], true
}

// has reports whether a kind is listed.
func (s *Spec) has(kind NamespaceKind) bool {
	_, ok := s.namespace(kind)
	return ok
}

// joins reports whether a kind is listed with a namespace that exists.
func (s *Spec) joins(kind NamespaceKind) bool {
	n, ok := s.namespace(kind)
	return ok && n.exists()
}

func (n Namespace) exists() bool { return n.Path != "" || n.File != nil }

// placeNamespaces asks for the namespaces that exist before the child starts:
// those that are given, and the user namespace, which the runner makes.
func (c *compiler) placeNamespaces() {
	for _, n := range c.spec.Namespaces {
		what := string(n.Kind) + " namespace"
		switch {
		case n.exists():
			one := place{what: what, path: n.Path, flags: unix.O_RDONLY, file: n.File}
			if c.spec.hasSysctlOf(n.Kind) {
				one.foreign = n.Kind
			}
			c.namespaces[n.Kind] = c.addPlace(one)
		case n.Kind == UserNamespace:
			c.namespaces[n.Kind] = c.placeUsers(what, &idMaps{c.spec.UIDMap, c.spec.GIDMap})
		}
	}
}

// enterNamespaces joins namespaces with the rights of the host, the user
// namespace last, and makes the others, which then belong to it.
func (c *compiler) enterNamespaces() {
	c.enterStage()
	user, hasUser := c.spec.namespace(UserNamespace)
	flags := 0
	for _, n := range c.spec.Namespaces {
		switch {
		case n.Kind == UserNamespace:
		case !n.exists():
			flags |= n.Kind.info().flag
		default:
			c.join(n)
		}
	}
	if hasUser {
		c.join(user)
	}
	if flags != 0 {
		c.call("make namespaces", unix.SYS_UNSHARE, num(flags))
	}
	c.timeOffsets()
	c.call("become root: groups", unix.SYS_SETGROUPS, num(0), num(0))
	c.call("become root: gid", unix.SYS_SETRESGID, num(0), num(0), num(0)).faults(idFault)
	c.call("become root: uid", unix.SYS_SETRESUID, num(0), num(0), num(0)).faults(idFault)
}

func (c *compiler) join(n Namespace) {
	fd := c.namespaces[n.Kind]
	what := "join " + string(n.Kind) + " namespace"
	c.call(what, unix.SYS_SETNS, fd, num(n.Kind.info().flag)).faults(func(errno unix.Errno) error {
		if errno != unix.EINVAL {
			return nil //nolint:nilerr // nothing to add to another errno
		}
		return fmt.Errorf("%s is not one that can be joined: %w: %w", cmp.Or(n.Path, "the given one"), errno, errdefs.ErrInvalid)
	})
	c.close(what, fd)
}

// timeOffsets are written before the first process of the namespace exists, as
// time_namespaces(7) demands.
func (c *compiler) timeOffsets() {
	if len(c.spec.TimeOffsets) == 0 {
		return
	}
	var text strings.Builder
	for _, clock := range slices.Sorted(maps.Keys(c.spec.TimeOffsets)) {
		sec, nsec := floorSeconds(c.spec.TimeOffsets[clock])
		fmt.Fprintf(&text, "%s %d %d\n", clock, sec, nsec)
	}
	fd := c.slot("offsets")
	c.call("open time offsets", unix.SYS_OPENAT, atCwd(), c.str("/proc/self/timens_offsets"), num(unix.O_WRONLY|unix.O_CLOEXEC)).to(fd)
	c.call("set time offsets", unix.SYS_WRITE, fd, c.str(text.String()), num(text.Len())).wants(text.Len()).
		faults(func(errno unix.Errno) error {
			if errno != unix.ERANGE && errno != unix.EINVAL {
				return nil //nolint:nilerr // nothing to add to another errno
			}
			return fmt.Errorf("%w: %w", errno, errdefs.ErrInvalid)
		})
	c.close("close time offsets", fd)
}

// floorSeconds splits d so that the nanoseconds are not negative.
func floorSeconds(d time.Duration) (sec, nsec int64) {
	sec, nsec = int64(d/time.Second), int64(d%time.Second)
	if nsec < 0 {
		sec, nsec = sec-1, nsec+int64(time.Second)
	}
	return sec, nsec
}

// names sets what a UTS namespace holds.
func (c *compiler) names() {
	if h := c.spec.Hostname; h != "" {
		c.call("set host name", unix.SYS_SETHOSTNAME, c.str(h), num(len(h)))
	}
	if d := c.spec.Domainname; d != "" {
		c.call("set domain name", unix.SYS_SETDOMAINNAME, c.str(d), num(len(d)))
	}
}
