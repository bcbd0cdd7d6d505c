package oci

import (
	"path"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-project/gantry/engine/process"
)

// kinds are the namespaces of the specification.
func kinds() []process.NamespaceKind {
	return []process.NamespaceKind{
		process.UserNamespace, process.PIDNamespace, process.MountNamespace, process.NetworkNamespace,
		process.UTSNamespace, process.IPCNamespace, process.CgroupNamespace, process.TimeNamespace,
	}
}

func known(kind specs.LinuxNamespaceType) bool {
	for _, k := range kinds() {
		if string(k) == string(kind) {
			return true
		}
	}
	return false
}

func (c *converter) namespaces() error {
	c.has = map[specs.LinuxNamespaceType]specs.LinuxNamespace{}
	for _, n := range c.linux.Namespaces {
		field := "linux.namespaces." + clip(string(n.Type))
		if !known(n.Type) {
			return invalid("linux.namespaces", "unknown type %q", clip(string(n.Type)))
		}
		if _, ok := c.has[n.Type]; ok {
			return invalid(field, "twice")
		}
		if n.Path != "" {
			if err := absolute(field, n.Path); err != nil {
				return err
			}
		}
		c.has[n.Type] = n
		c.out.Process.Namespaces = append(c.out.Process.Namespaces, process.Namespace{Kind: process.NamespaceKind(n.Type), Path: n.Path})
	}
	if _, ok := c.has[specs.MountNamespace]; !ok {
		return unsupported("linux.namespaces", "without a mount namespace the root file system would be the host's")
	}
	return nil
}

// made reports whether a namespace of the kind is made for the container.
func (c *converter) made(kind specs.LinuxNamespaceType) bool {
	n, ok := c.has[kind]
	return ok && n.Path == ""
}

func (c *converter) userMaps() error {
	uids, gids := c.linux.UIDMappings, c.linux.GIDMappings
	if _, ok := c.has[specs.UserNamespace]; !ok && len(uids)+len(gids) > 0 {
		return invalid("linux.uidMappings", "without a user namespace")
	}
	if !c.made(specs.UserNamespace) {
		return nil // a joined one has its own
	}
	if len(uids) == 0 || len(gids) == 0 {
		return invalid("linux.uidMappings", "missing: a user namespace needs ids of users and groups")
	}
	var err error
	if c.out.Process.UIDMap, err = idMap("linux.uidMappings", uids); err != nil {
		return err
	}
	c.out.Process.GIDMap, err = idMap("linux.gidMappings", gids)
	return err
}

func idMap(field string, list []specs.LinuxIDMapping) ([]process.IDMap, error) {
	if len(list) > 340 { // UID_GID_MAP_MAX_EXTENTS
		return nil, invalid(field, "%d entries", len(list))
	}
	var out []process.IDMap
	for _, m := range list {
		if m.Size == 0 || uint64(m.ContainerID)+uint64(m.Size) > 1<<32-1 || uint64(m.HostID)+uint64(m.Size) > 1<<32-1 {
			return nil, invalid(field, "%d ids from %d at %d", m.Size, m.ContainerID, m.HostID)
		}
		out = append(out, process.IDMap{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size})
	}
	for i, a := range out {
		for _, b := range out[:i] {
			if overlap(a.ContainerID, b.ContainerID, a.Size, b.Size) || overlap(a.HostID, b.HostID, a.Size, b.Size) {
				return nil, invalid(field, "entries overlap")
			}
		}
	}
	return out, nil
}

func overlap(a, b, sizeA, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}

// names are host name, domain name and clock offsets: what belongs to
// namespaces and would otherwise change the host.
func (c *converter) names() error {
	for _, n := range []struct {
		field, value string
		to           *string
	}{
		{"hostname", c.spec.Hostname, &c.out.Process.Hostname},
		{"domainname", c.spec.Domainname, &c.out.Process.Domainname},
	} {
		if n.value == "" {
			continue
		}
		if _, ok := c.has[specs.UTSNamespace]; !ok {
			return invalid(n.field, "without a UTS namespace")
		}
		if len(n.value) > 64 || strings.ContainsRune(n.value, 0) {
			return invalid(n.field, "%q", clip(n.value))
		}
		*n.to = n.value
	}
	if len(c.linux.TimeOffsets) == 0 {
		return nil
	}
	if !c.made(specs.TimeNamespace) {
		return invalid("linux.timeOffsets", "without a new time namespace")
	}
	c.out.Process.TimeOffsets = map[string]time.Duration{}
	for clock, o := range c.linux.TimeOffsets {
		const most = int64(1<<63-1)/int64(time.Second) - 1
		if clock != "monotonic" && clock != "boottime" || o.Nanosecs >= 1e9 || o.Secs > most || o.Secs < -most {
			return invalid("linux.timeOffsets", "%s: %d s %d ns", clip(clock), o.Secs, o.Nanosecs)
		}
		c.out.Process.TimeOffsets[clock] = time.Duration(o.Secs)*time.Second + time.Duration(o.Nanosecs)
	}
	return nil
}

func absolute(field, p string) error {
	if !path.IsAbs(p) || strings.ContainsRune(p, 0) {
		return invalid(field, "%q is not an absolute path", clip(p))
	}
	return nil
}
