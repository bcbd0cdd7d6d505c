package layer

import (
	"encoding/binary"
	"strings"
)

// paxXattr is the prefix of PAX records that carry extended attributes.
const paxXattr = "SCHILY.xattr."

// ownXattrs begin the names of attributes that mean something to this package.
const ownXattrs = "user.gantry."

const capabilityXattr = "security.capability"

// xattrVerdict says what to do with an extended attribute of a foreign layer.
type xattrVerdict int

const (
	xattrDrop xattrVerdict = iota
	xattrKeep
	xattrRefuse
)

// judgeXattr decides by name. The attributes of overlayfs in a stream would
// forge whiteouts and redirects, so they are refused; those that mean
// something only on the host that wrote them (labels, signatures) are dropped.
func judgeXattr(name string) xattrVerdict {
	switch {
	case strings.HasPrefix(name, "trusted."), strings.HasPrefix(name, "user.overlay."), strings.HasPrefix(name, ownXattrs):
		return xattrRefuse
	case name == capabilityXattr,
		name == "system.posix_acl_access", name == "system.posix_acl_default":
		return xattrKeep
	case strings.HasPrefix(name, "user.") && len(name) > len("user."):
		return xattrKeep
	}
	return xattrDrop
}

// Layout of struct vfs_ns_cap_data, linux/capability.h.
const (
	capRevision2    = 0x02000000
	capRevision3    = 0x03000000
	capRevisionMask = 0xff000000
	capSize2        = 20
	capSize3        = 24
)

// plainCapability returns file capabilities in the form without a root id
// (revision 2), which every user namespace reads as its own root's through an
// id-mapped mount. Those of another root id are no use to anybody and refused
// (ok is false), and so are other revisions.
func plainCapability(v []byte) (plain []byte, ok bool) {
	if len(v) < 4 {
		return nil, false
	}
	magic := binary.LittleEndian.Uint32(v)
	switch {
	case magic&capRevisionMask == capRevision2 && len(v) == capSize2:
		return v, true
	case magic&capRevisionMask == capRevision3 && len(v) == capSize3:
		if binary.LittleEndian.Uint32(v[capSize2:]) != 0 {
			return nil, false
		}
		plain = append([]byte(nil), v[:capSize2]...)
		binary.LittleEndian.PutUint32(plain, magic&^capRevisionMask|capRevision2)
		return plain, true
	}
	return nil, false
}
