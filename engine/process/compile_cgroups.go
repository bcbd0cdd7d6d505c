package process

import (
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hierarchy is one mounted tree of control groups.
type hierarchy struct {
	// name is its directory below cgroupRoot, "" for the only one of cgroup v2.
	name string
	// options of its file system; nil for cgroup v2.
	options []string
	// own is the directory on the host that the container is shown, "" where it
	// is not known.
	own string
}

const cgroupRoot = "/sys/fs/cgroup"

// v2 reports whether it is a tree of cgroup v2.
func (h hierarchy) v2() bool { return h.options == nil }

// hierarchies reads the trees that are mounted below cgroupRoot.
func hierarchies() []hierarchy {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	return parseHierarchies(string(data))
}

// parseHierarchies understands proc_pid_mountinfo(5).
func parseHierarchies(mountinfo string) []hierarchy {
	var list []hierarchy
	for line := range strings.Lines(mountinfo) {
		if !strings.Contains(line, " - cgroup") {
			continue // a host has thousands of mounts
		}
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		head, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(head) < 6 || len(tail) < 3 {
			continue
		}
		name, ok := strings.CutPrefix(head[4], cgroupRoot)
		if !ok || strings.Count(name, "/") > 1 {
			continue
		}
		h := hierarchy{name: strings.TrimPrefix(name, "/")}
		switch tail[0] {
		case "cgroup":
			h.options = v1Options(tail[2])
		case "cgroup2":
		default:
			continue
		}
		// what is mounted twice at one place is what was mounted there last
		if i := slices.IndexFunc(list, func(old hierarchy) bool { return old.name == h.name }); i >= 0 {
			list[i] = h
			continue
		}
		list = append(list, h)
	}
	return list
}

// v1Options are those of the super block that choose the hierarchy: its
// controllers, or its name.
func v1Options(super string) []string {
	options := []string{}
	for o := range strings.SplitSeq(super, ",") {
		switch {
		case strings.HasPrefix(o, "name="):
			return []string{"none", o}
		case v1Flags[o] || strings.HasPrefix(o, "release_agent="):
		default:
			options = append(options, o)
		}
	}
	return options
}

// v1Flags are options that choose nothing (cgroup-v1/cgroups.rst; cgroup1_show_options
// of the kernel).
var v1Flags = map[string]bool{
	"rw": true, "ro": true, "noprefix": true, "xattr": true, "clone_children": true, "cpuset_v2_mode": true, "favordynmods": true,
	"seclabel": true,
}

// forSpec adds to f where the control groups of s are on the host. Those that
// are not known are the host's root for a Spec without a control group namespace.
func (f facts) forSpec(s *Spec) facts {
	if !slices.ContainsFunc(s.Mounts, func(m Mount) bool { return strings.HasPrefix(m.Type, "cgroup") }) {
		return f
	}
	own := groupDirs(s)
	f.cgroups = slices.Clone(f.cgroups)
	for i := range f.cgroups {
		h := &f.cgroups[i]
		tree := path.Join(cgroupRoot, h.name)
		if !s.has(CgroupNamespace) {
			h.own = tree
		}
		for _, dir := range own {
			if strings.HasPrefix(dir, tree+"/") {
				h.own = dir
			}
		}
	}
	return f
}

// groupDirs are the directories of the control groups of s on the host.
func groupDirs(s *Spec) (dirs []string) {
	for _, file := range append([]*os.File{s.CgroupDir}, s.CgroupFiles...) {
		if file == nil {
			continue
		}
		at, err := os.Readlink("/proc/self/fd/" + strconv.FormatUint(uint64(file.Fd()), 10))
		if err != nil {
			continue
		}
		if file != s.CgroupDir {
			at = path.Dir(at)
		}
		dirs = append(dirs, at)
	}
	return dirs
}

// mountCgroups mounts the container's own part of the control groups: a tree of
// cgroup v2, or a directory of trees as on the host.
func (c *compiler) mountCgroups(i int, m Mount, o mountOptions) {
	clean := imagePath(m.Destination)
	list := c.facts.cgroups
	only, data := controllers(o.data)
	unified := slices.IndexFunc(list, hierarchy.v2)
	if m.Type == "cgroup2" || len(list) == 1 && unified == 0 {
		h := hierarchy{}
		if unified >= 0 {
			h = list[unified]
		}
		mnt := c.cgroup(clean, i, h, o.set, data)
		c.mountOn(clean, mnt, nil)
		c.close("mount "+clean, mnt)
		return
	}
	list = slices.DeleteFunc(slices.Clone(list), func(h hierarchy) bool { return !h.among(only) })
	var dir value
	if c.sharesGroupDirs(clean, list, o) {
		_, dir = c.cloneTree("mount "+clean, atCwd(), "/"+stageGroups, 0)
		c.setattr("mount "+clean, dir, false, o.set, o.clear, 0)
		c.placeMount(clean, "tmpfs", mountOptions{}, dir)
	} else {
		dir = c.newMount(clean, "tmpfs", mountOptions{set: o.set, data: []string{"mode=755", "size=64k"}}, "")
		c.makeGroupDirs("mount "+clean, dir, "", list)
	}
	for _, h := range list {
		what := "mount " + clean + "/" + h.name
		mnt := c.cgroup(clean+"/"+h.name, i, h, o.set, data)
		c.attachAt(what, mnt, dir, h.name)
		c.close(what, mnt)
	}
}

// makeGroupDirs makes what hierarchies are mounted on, below prefix, and a name for
// each controller of those that have several.
func (c *compiler) makeGroupDirs(what string, dir value, prefix string, list []hierarchy) {
	for _, h := range list {
		c.call(what, unix.SYS_MKDIRAT, dir, c.str(prefix+h.name), num(0o755))
		if controllers := strings.Split(h.name, ","); len(controllers) > 1 {
			for _, one := range controllers {
				c.call(what, unix.SYS_SYMLINKAT, c.str(h.name), dir, c.str(prefix+one))
			}
		}
	}
}

// sharesGroupDirs reports whether the stage has what such a mount needs: nothing
// but these hierarchies comes in it, and nobody is to write there.
func (c *compiler) sharesGroupDirs(clean string, list []hierarchy, o mountOptions) bool {
	same := slices.EqualFunc(list, stagedGroups(c.facts.cgroups), func(a, b hierarchy) bool { return a.name == b.name })
	return c.staged && same && o.set&unix.MOUNT_ATTR_RDONLY != 0 && o.propagation == 0 &&
		!slices.ContainsFunc(c.spec.Mounts, func(m Mount) bool { return strings.HasPrefix(imagePath(m.Destination), clean+"/") })
}

// stagedGroups are the hierarchies of v1 that DefaultMounts chooses.
func stagedGroups(list []hierarchy) (out []hierarchy) {
	for _, m := range DefaultMounts() {
		if m.Type != "cgroup" || len(list) == 1 && list[0].v2() {
			continue
		}
		o, _ := m.options()
		only, _ := controllers(o.data)
		for _, h := range list {
			if h.among(only) {
				out = append(out, h)
			}
		}
	}
	return out
}

// cgroup makes the mount of one tree: a clone of the host's, where it is known
// what of it is the container's, or else a new one, which begins at the root of
// the control group namespace. The kernel looks at all groups of cgroup v2 for a
// new mount of v1 (cgroup1_get_tree).
func (c *compiler) cgroup(name string, i int, h hierarchy, attrs uint64, data []string) value {
	if clone, ok := c.cgroupClones[cgroupKey{i, h.name}]; ok {
		return clone
	}
	if h.v2() {
		return c.filesystem(name, "cgroup2", attrs, data...)
	}
	return c.filesystem(name, "cgroup", attrs, h.options...)
}

// v2Options are those of the file system (cgroup-v2.rst, Mounting); all other
// options choose hierarchies of v1 by their controllers, as mount(8) has it.
var v2Options = map[string]bool{
	"nsdelegate": true, "favordynmods": true, "memory_localevents": true, "memory_recursiveprot": true,
	"memory_hugetlb_accounting": true, "pids_localevents": true,
}

func controllers(options []string) (only, data []string) {
	for _, o := range options {
		if v2Options[o] {
			data = append(data, o)
		} else {
			only = append(only, o)
		}
	}
	return only, data
}

// among reports whether a hierarchy is one of those that were chosen; none
// chosen are all.
func (h hierarchy) among(only []string) bool {
	return len(only) == 0 || slices.ContainsFunc(h.options, func(o string) bool { return slices.Contains(only, o) })
}

type cgroupKey struct {
	mount int
	name  string
}

// cloneCgroups clones what a container is shown: without a control group
// namespace all, with one the hierarchies of v1 that have a group of its own.
func (c *compiler) cloneCgroups(i int, m Mount, o mountOptions) {
	only, _ := controllers(o.data)
	for _, h := range c.facts.cgroups {
		switch {
		case h.own == "", m.Type == "cgroup2" && !h.v2():
			continue
		case c.spec.has(CgroupNamespace) && (h.v2() || !h.among(only)):
			continue
		}
		what := "open control group " + h.name
		s, mnt := c.cloneTree(what, atCwd(), h.own, 0)
		s.faults(sourceFault(m.Destination))
		c.setattr(what, mnt, false, o.set, o.clear, unix.MS_PRIVATE)
		c.cgroupClones[cgroupKey{i, h.name}] = mnt
	}
}
