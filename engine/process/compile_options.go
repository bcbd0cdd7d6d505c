package process

import (
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions are the options of one mount, understood.
type mountOptions struct {
	// set and clear are MOUNT_ATTR_* of the mount itself, and the recursive ones
	// of all below it.
	set, clear, setAll, clearAll uint64
	// propagation is MS_*, 0 for private; propagateAll is for all below too.
	propagation  uint64
	propagateAll bool
	bind, all    bool // all: rbind
	idmap        bool
	idmapAll     bool
	copyUp       bool
	// flags of the super block and data of the file system.
	flags, data []string
}

// attr is what one word sets and clears.
type attr struct{ set, clear uint64 }

// mountAttrs are the words of runc(8) for attributes; each has a recursive
// variant with a leading r. Access times are one field (mount_setattr(2)).
var mountAttrs = map[string]attr{
	"ro": {unix.MOUNT_ATTR_RDONLY, 0}, "rw": {0, unix.MOUNT_ATTR_RDONLY},
	"nosuid": {unix.MOUNT_ATTR_NOSUID, 0}, "suid": {0, unix.MOUNT_ATTR_NOSUID},
	"nodev": {unix.MOUNT_ATTR_NODEV, 0}, "dev": {0, unix.MOUNT_ATTR_NODEV},
	"noexec": {unix.MOUNT_ATTR_NOEXEC, 0}, "exec": {0, unix.MOUNT_ATTR_NOEXEC},
	"nosymfollow": {unix.MOUNT_ATTR_NOSYMFOLLOW, 0}, "symfollow": {0, unix.MOUNT_ATTR_NOSYMFOLLOW},
	"nodiratime": {unix.MOUNT_ATTR_NODIRATIME, 0}, "diratime": {0, unix.MOUNT_ATTR_NODIRATIME},
	"relatime":   {unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME},
	"noatime":    {unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME},
	"atime":      {unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME},
	"norelatime": {unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME},

	"strictatime": {unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME},
	// the kernel's default where strictatime is not
	"nostrictatime": {unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME},
}

var propagations = map[string]uint64{
	"shared": unix.MS_SHARED, "slave": unix.MS_SLAVE, "private": unix.MS_PRIVATE, "unbindable": unix.MS_UNBINDABLE,
}

// superFlags are the words that concern the super block (fsconfig(2),
// FSCONFIG_SET_FLAG); a bind mount cannot change them. The last ones are
// history and mean nothing.
var superFlags = map[string]bool{
	"sync": true, "async": true, "dirsync": true, "lazytime": true, "nolazytime": true, "mand": true, "nomand": true,
	"defaults": false, "silent": false, "loud": false, "iversion": false, "noiversion": false,
}

// put adds one word to the attributes: a later one wins.
func (a attr) put(set, clear *uint64) {
	*set = *set&^(a.clear|a.set) | a.set
	*clear = *clear&^a.set | a.clear
}

// options understands m.Options; errdefs.ErrInvalid for those that a mount of
// its kind cannot have.
func (m *Mount) options() (mountOptions, error) {
	o := mountOptions{bind: m.Type == "bind" || m.Type == "rbind", all: m.Type == "rbind"}
	for _, word := range m.Options {
		if err := o.add(word); err != nil {
			return o, err
		}
	}
	switch {
	case o.bind && len(o.data) > 0:
		return o, invalid("mount %s: option %q of a bind mount", m.Destination, o.data[0])
	case o.copyUp && (m.Type != "tmpfs" || o.bind):
		return o, invalid("mount %s: tmpcopyup is for tmpfs", m.Destination)
	case len(m.UIDMap)+len(m.GIDMap) > 0:
		o.idmap = true
	}
	if o.idmap && !o.bind {
		return o, invalid("mount %s: only a bind mount can be id-mapped", m.Destination)
	}
	return o, nil
}

func (o *mountOptions) add(word string) error {
	if a, ok := mountAttrs[word]; ok {
		a.put(&o.set, &o.clear)
		return nil
	}
	if p, ok := propagations[word]; ok {
		o.propagation, o.propagateAll = p, false
		return nil
	}
	if rest, ok := strings.CutPrefix(word, "r"); ok {
		if a, ok := mountAttrs[rest]; ok {
			a.put(&o.setAll, &o.clearAll)
			return nil
		}
		if p, ok := propagations[rest]; ok {
			o.propagation, o.propagateAll = p, true
			return nil
		}
	}
	if means, ok := superFlags[word]; ok {
		if means {
			o.flags = append(o.flags, word)
		}
		return nil
	}
	switch word {
	case "bind":
		o.bind = true
	case "rbind":
		o.bind, o.all = true, true
	case "idmap":
		o.idmap = true
	case "ridmap":
		o.idmap, o.idmapAll = true, true
	case "tmpcopyup":
		o.copyUp = true
	case "remount", "":
		return invalid("mount option %q", word)
	default:
		o.data = append(o.data, word)
	}
	return nil
}
