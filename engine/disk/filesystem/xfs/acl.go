package xfs

import (
	"encoding/binary"
	"math"
)

// attribute returns the full name and the value of an attribute as
// getxattr(2) would.
func attribute(flags byte, name string, value []byte) (string, string, error) {
	switch {
	case flags&attrRoot != 0 && name == "SGI_ACL_FILE":
		acl, err := accessList(value)
		return "system.posix_acl_access", acl, err
	case flags&attrRoot != 0 && name == "SGI_ACL_DEFAULT":
		acl, err := accessList(value)
		return "system.posix_acl_default", acl, err
	case flags&attrRoot != 0:
		return "trusted." + name, string(value), nil
	case flags&attrSecure != 0:
		return "security." + name, string(value), nil
	default:
		return "user." + name, string(value), nil
	}
}

// accessList turns a struct xfs_acl into a struct posix_acl_xattr_header with
// its entries.
func accessList(b []byte) (string, error) {
	const header, entry = 4, 12
	if len(b) < header || (len(b)-header)%entry != 0 || uint64(be.Uint32(b)) > uint64(len(b)-header)/entry {
		return "", corrupt("access control list of %d bytes", len(b))
	}
	out := binary.LittleEndian.AppendUint32(nil, 2) // POSIX_ACL_XATTR_VERSION
	count := int(be.Uint32(b))
	for b = b[header:]; count > 0; count, b = count-1, b[entry:] {
		tag, id, perm := be.Uint32(b), be.Uint32(b[4:]), be.Uint16(b[8:])
		switch tag {
		case 0x02, 0x08: // a user, a group
		case 0x01, 0x04, 0x10, 0x20: // owner, owning group, mask, others
			id = math.MaxUint32
		default:
			return "", corrupt("access control list with the tag %#x", tag)
		}
		if perm > 7 {
			return "", corrupt("access control list with the permissions %#o", perm)
		}
		out = binary.LittleEndian.AppendUint16(out, uint16(tag))
		out = binary.LittleEndian.AppendUint16(out, perm)
		out = binary.LittleEndian.AppendUint32(out, id)
	}
	return string(out), nil
}
