package oci

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-project/gantry/engine/process"
)

func (c *converter) root() error {
	r := c.spec.Root
	if r == nil || r.Path == "" {
		return invalid("root.path", "missing")
	}
	if strings.ContainsRune(r.Path, 0) {
		return invalid("root.path", "%q", clip(r.Path))
	}
	c.out.Process.Rootfs = c.inBundle(r.Path)
	c.out.Process.RootReadonly = r.Readonly
	p := c.linux.RootfsPropagation
	switch p {
	case "", "private", "slave", "shared", "unbindable":
	case "rprivate", "rslave", "rshared", "runbindable":
		p = p[1:]
	default:
		return invalid("linux.rootfsPropagation", "%q", clip(p))
	}
	c.out.Process.RootPropagation = p
	return nil
}

func (c *converter) inBundle(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(c.bundle, p)
}

func (c *converter) mounts() error {
	for _, m := range c.spec.Mounts {
		field := "mounts." + clip(m.Destination)
		if m.Destination == "" || strings.ContainsRune(m.Destination+m.Source+m.Type+strings.Join(m.Options, ""), 0) {
			return invalid(field, "empty, or with a NUL")
		}
		if !path.IsAbs(m.Destination) {
			c.warn(field, "not absolute")
			m.Destination = "/" + m.Destination
		}
		bind := m.Type == "bind" || m.Type == "rbind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		switch {
		case bind && m.Source == "":
			return invalid(field, "a bind mount without a source")
		case bind:
			m.Source = c.inBundle(m.Source)
			m.Options = c.bindOptions(field, m.Options)
		case m.Type == "":
			return invalid(field, "no type")
		}
		out := process.Mount{Destination: m.Destination, Type: m.Type, Source: m.Source, Options: m.Options}
		if (len(m.UIDMappings) == 0) != (len(m.GIDMappings) == 0) {
			return invalid(field, "needs mappings of users and of groups")
		}
		var err error
		if out.UIDMap, err = idMap(field, m.UIDMappings); err != nil {
			return err
		}
		if out.GIDMap, err = idMap(field, m.GIDMappings); err != nil {
			return err
		}
		c.out.Process.Mounts = append(c.out.Process.Mounts, out)
	}
	if c.linux.MountLabel != "" && !c.host.SELinux {
		return unsupported("linux.mountLabel", "the kernel runs no SELinux")
	}
	if c.linux.MountLabel != "" {
		return unsupported("linux.mountLabel", "mounts are not labelled")
	}
	return nil
}

// bindOptions leaves out, with a warning, options for a file system: mount(2)
// passes them over for bind mounts.
func (c *converter) bindOptions(field string, options []string) (keep []string) {
	for _, o := range options {
		if slices.Contains(MountOptions(), o) || strings.HasPrefix(o, "idmap=") || strings.HasPrefix(o, "ridmap=") {
			keep = append(keep, o)
		} else {
			c.warn(field, "option %q has no effect on a bind mount", clip(o))
		}
	}
	return keep
}

func (c *converter) devices() error {
	seen := map[string]bool{}
	for _, d := range c.linux.Devices {
		field := "linux.devices." + clip(d.Path)
		if err := absolute(field, d.Path); err != nil {
			return err
		}
		if clean := path.Clean(d.Path); seen[clean] {
			return invalid(field, "twice")
		} else {
			seen[clean] = true
		}
		out := process.Device{Path: d.Path, Major: d.Major, Minor: d.Minor, Mode: 0o666}
		switch d.Type {
		case "c", "u":
			out.Type = 'c'
		case "b", "p":
			out.Type = d.Type[0]
		default:
			return invalid(field, "type %q", clip(d.Type))
		}
		const mostMajor, mostMinor = 1<<12 - 1, 1<<20 - 1
		if out.Type != 'p' && (d.Major < 0 || d.Major > mostMajor || d.Minor < 0 || d.Minor > mostMinor) {
			return invalid(field, "number %d:%d", d.Major, d.Minor)
		}
		if d.FileMode != nil {
			out.Mode = uint32(*d.FileMode) & 0o7777
		}
		if d.UID != nil {
			out.UID = *d.UID
		}
		if d.GID != nil {
			out.GID = *d.GID
		}
		c.out.Process.Devices = append(c.out.Process.Devices, out)
	}
	return nil
}

// paths are those to mask and to protect.
func (c *converter) paths() error {
	for _, l := range []struct {
		field string
		from  []string
		to    *[]string
	}{
		{"linux.maskedPaths", c.linux.MaskedPaths, &c.out.Process.MaskedPaths},
		{"linux.readonlyPaths", c.linux.ReadonlyPaths, &c.out.Process.ReadonlyPaths},
	} {
		for _, p := range l.from {
			if err := absolute(l.field, p); err != nil {
				return err
			}
			*l.to = append(*l.to, path.Clean(p))
		}
	}
	return nil
}

// sysctls takes those that belong to a namespace of the container; the others
// would change the host.
func (c *converter) sysctls() error {
	for key, value := range c.linux.Sysctl {
		field := "linux.sysctl." + clip(key)
		dotted := key
		if first := strings.IndexAny(key, "./"); first >= 0 && key[first] == '/' {
			dotted = strings.NewReplacer("/", ".", ".", "/").Replace(key)
		}
		kind := sysctlNamespace(dotted)
		switch {
		case strings.Contains(dotted, "..") || strings.ContainsRune(key+value, 0):
			return invalid(field, "no name of a sysctl")
		case kind == "":
			return invalid(field, "belongs to the whole host")
		case dotted == "kernel.hostname":
			return invalid(field, "is the field hostname")
		}
		if _, ok := c.has[kind]; !ok {
			return invalid(field, "without a %s namespace", kind)
		}
	}
	c.out.Process.Sysctls = c.linux.Sysctl
	return nil
}

func sysctlNamespace(name string) specs.LinuxNamespaceType {
	switch {
	case strings.HasPrefix(name, "net."):
		return specs.NetworkNamespace
	case strings.HasPrefix(name, "kernel.shm"), strings.HasPrefix(name, "kernel.msg"), name == "kernel.sem",
		strings.HasPrefix(name, "fs.mqueue."):
		return specs.IPCNamespace
	case name == "kernel.domainname", name == "kernel.hostname":
		return specs.UTSNamespace
	case strings.HasPrefix(name, "user."):
		return specs.UserNamespace
	}
	return ""
}
