package process

import (
	"path"
	"slices"
	"strings"
	"time"
)

// maxPath is the kernel's limit of a path, maxMounts ours of one container.
const (
	maxPath   = 4095
	maxMounts = 1024
	maxMaps   = 340 // user_namespaces(7)
)

func (s *Spec) checkNamespaces() error {
	seen := map[NamespaceKind]bool{}
	for _, n := range s.Namespaces {
		switch {
		case n.Kind.info().flag == 0 || seen[n.Kind]:
			return invalid("unknown or repeated namespace %q", n.Kind)
		case n.Path != "" && (!goodPath(n.Path) || n.File != nil):
			return invalid("%s namespace %q is not an absolute path", n.Kind, n.Path)
		}
		seen[n.Kind] = true
	}
	user, has := s.namespace(UserNamespace)
	makes := has && !user.exists()
	for name, maps := range map[string][]IDMap{"uid": s.UIDMap, "gid": s.GIDMap} {
		if makes != (len(maps) > 0) && (s.Runtime == "" || !has) {
			return invalid("%s map: a user namespace that is made needs one, no other has one", name)
		}
		if len(maps) > 0 {
			if err := checkMaps(maps); err != nil {
				return err
			}
		}
	}
	return s.checkTime()
}

func checkMaps(maps []IDMap) error {
	if len(maps) > maxMaps {
		return invalid("id map of %d lines", len(maps))
	}
	_, err := formatMap(maps)
	return err
}

func (s *Spec) checkTime() error {
	if n, ok := s.namespace(TimeNamespace); len(s.TimeOffsets) > 0 && (!ok || n.exists()) {
		return invalid("time offsets without a time namespace that is made")
	}
	for clock, by := range s.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return invalid("time offset of clock %q", clock)
		}
		if by.Abs() > 200*365*24*time.Hour {
			return invalid("time offset %s of clock %q", by, clock)
		}
	}
	return nil
}

func (s *Spec) checkMounts() error {
	if !slices.Contains([]string{"", "private", "slave", "shared", "unbindable"}, s.RootPropagation) {
		return invalid("propagation %q of the root", s.RootPropagation)
	}
	if s.Root != nil && (!s.has(MountNamespace) || s.joins(MountNamespace) || s.Rootfs != "" || s.Runtime != "") {
		return invalid("a root that is mounted nowhere needs a new mount namespace, no path and no other runtime")
	}
	if !s.has(MountNamespace) {
		if len(s.Mounts)+len(s.MaskedPaths)+len(s.ReadonlyPaths) > 0 || s.RootReadonly || s.RootPropagation != "" {
			return invalid("mounts, masked or read-only paths without a mount namespace")
		}
		return nil
	}
	if len(s.Mounts) > maxMounts {
		return invalid("%d mounts", len(s.Mounts))
	}
	for i := range s.Mounts {
		if err := s.checkMount(&s.Mounts[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spec) checkMount(m *Mount) error {
	clean := imagePath(m.Destination)
	if !goodPath(m.Destination) || hasDotDot(m.Destination) || clean == "" {
		return invalid("mount on %q", m.Destination)
	}
	o, err := m.options()
	if err != nil {
		return err
	}
	switch {
	case hasNUL(m.Type) || hasNUL(m.Source) || slices.ContainsFunc(m.Options, hasNUL):
		return invalid("mount %s: NUL", m.Destination)
	case o.bind && !goodPath(m.Source):
		return invalid("mount %s: source %q is not an absolute path", m.Destination, m.Source)
	case !o.bind && (m.Type == "" || strings.ContainsAny(m.Type, "/ \n")):
		return invalid("mount %s: file system type %q", m.Destination, m.Type)
	case o.idmap && len(m.UIDMap)+len(m.GIDMap) == 0 && !s.has(UserNamespace):
		return invalid("mount %s: id-mapped without maps or a user namespace", m.Destination)
	case (len(m.UIDMap) == 0) != (len(m.GIDMap) == 0):
		return invalid("mount %s: one id map is missing", m.Destination)
	}
	for _, maps := range [][]IDMap{m.UIDMap, m.GIDMap} {
		if len(maps) > 0 {
			if err := checkMaps(maps); err != nil {
				return err
			}
		}
	}
	if err := m.checkContents(); err != nil {
		return err
	}
	return checkProc(clean, m.Type, o.bind)
}

// overProc are the files of /proc that file systems like lxcfs stand in for:
// what they tell is for reading, and no set-up step uses them.
var overProc = map[string]bool{
	"proc/cpuinfo": true, "proc/diskstats": true, "proc/loadavg": true, "proc/meminfo": true, "proc/slabinfo": true,
	"proc/stat": true, "proc/swaps": true, "proc/uptime": true,
}

// checkProc refuses what could make the set-up, or a later exec, talk to
// something else than the kernel (CVE-2019-16884 and its kin).
func checkProc(clean, kind string, bind bool) error {
	switch {
	case clean == "proc" && (kind == "proc" || bind), clean == "sys" && (kind == "sysfs" || bind), bind && overProc[clean]:
		return nil
	case clean == "proc" || clean == "sys" || strings.HasPrefix(clean, "proc/"):
		return invalid("%s mounted on /%s", kind, clean)
	}
	return nil
}

func (s *Spec) checkDevices() error {
	seen := map[string]bool{}
	for _, d := range s.Devices {
		clean := imagePath(d.Path)
		switch {
		case !goodPath(d.Path) || hasDotDot(d.Path) || clean == "" || strings.HasSuffix(d.Path, "/") || ofKernel(clean) || seen[clean]:
			return invalid("device %q", d.Path)
		case d.Type != 'c' && d.Type != 'b' && d.Type != 'p':
			return invalid("device %s of type %q", d.Path, d.Type)
		case d.Type != 'p' && (d.Major < 0 || d.Major >= 1<<12 || d.Minor < 0 || d.Minor >= 1<<20):
			return invalid("device %s: number %d:%d", d.Path, d.Major, d.Minor)
		case d.Mode&^0o7777 != 0 || d.UID > maxID || d.GID > maxID:
			return invalid("device %s: mode %#o, owner %d:%d", d.Path, d.Mode, d.UID, d.GID)
		case d.Type != 'p' && s.has(UserNamespace) && !s.has(MountNamespace):
			return invalid("device %s in a user namespace without a mount namespace", d.Path)
		}
		seen[clean] = true
	}
	return nil
}

// hides reports whether a mount or a default of the Spec lies over clean.
func (s *Spec) hides(clean string) (top string, hidden bool) {
	tops := []string{"/proc", "/sys", "/dev"}
	for _, m := range s.Mounts {
		tops = append(tops, path.Clean(m.Destination))
	}
	for _, top := range tops {
		if clean == top || strings.HasPrefix(clean, top+"/") {
			return top, true
		}
	}
	return "", false
}

// goodPath reports whether p is an absolute path that a system call takes.
func goodPath(p string) bool { return path.IsAbs(p) && !hasNUL(p) && len(p) <= maxPath }
