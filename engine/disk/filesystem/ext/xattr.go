package ext

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
)

const (
	xattrMagic     = 0xea020000
	xattrEntryLen  = 16
	xattrHeaderLen = 32
	// mostXattr is the longest value, as in linux/limits.h; mostXattrs bounds
	// the values of one inode, which are in memory together.
	mostXattr  = 65536
	mostXattrs = 4 << 20
)

// Numbers that stand for the first part of a name.
const (
	indexACLAccess  = 2
	indexACLDefault = 3
	indexSystem     = 7
)

// prefixes of the attributes that the kernel shows.
var prefixes = map[byte]string{
	1: "user.", indexACLAccess: "system.posix_acl_access", indexACLDefault: "system.posix_acl_default", 4: "trusted.", 6: "security.",
}

// xattr is an entry of an attribute table.
type xattr struct {
	index byte
	name  string
	// value is in the same table, or in the inode holder.
	value  []byte
	holder uint32
	size   uint32
}

// Xattrs implements filesystem.FileSystem.
func (f *fileSystem) Xattrs(node filesystem.Node) (map[string]string, error) {
	n, err := f.node(node)
	if err != nil {
		return nil, err
	}
	var out map[string]string
	total := 0
	add := func(x xattr) error {
		name, ok := prefixes[x.index]
		if !ok {
			return nil
		}
		value, err := f.xattrValue(x)
		if err != nil {
			return err
		}
		if total += len(value); total > mostXattrs {
			return corrupt("more than %d bytes of attributes", mostXattrs)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name+x.name] = value
		return nil
	}
	if err = f.inodeXattrs(n, add); err == nil {
		err = f.blockXattrs(n, add)
	}
	if err != nil {
		return nil, fmt.Errorf("inode %d: attributes: %w", n.number, err)
	}
	return out, nil
}

// inodeXattrs reads those behind the fields of the inode.
func (f *fileSystem) inodeXattrs(n *inode, visit func(xattr) error) error {
	at := 128 + n.extra
	if len(n.raw) < at+8 || n.extra == 0 || le32(n.raw, at) != xattrMagic {
		return nil
	}
	return xattrTable(n.raw[at+4:], 0, visit)
}

// blockXattrs reads those in a block.
func (f *fileSystem) blockXattrs(n *inode, visit func(xattr) error) error {
	number := uint64(le32(n.raw, 0x68))
	if f.incompat&incompat64Bit != 0 {
		number |= uint64(le16(n.raw, 0x76)) << 32
	}
	if number == 0 {
		return nil
	}
	b, err := f.disk.block(number)
	if err != nil {
		return err
	}
	if number <= f.firstBlock || le32(b, 0) != xattrMagic || le32(b, 8) != 1 {
		return corrupt("block %d holds none", number)
	}
	if f.sums() {
		var at [8]byte
		binary.LittleEndian.PutUint64(at[:], number)
		c := checksum(checksum(f.seed, at[:]), b[:16])
		if checksum(checksum(c, zero4[:]), b[20:]) != le32(b, 16) {
			return corrupt("block %d: checksum differs", number)
		}
	}
	return xattrTable(b, xattrHeaderLen, visit)
}

// xattrTable reads the entries in b from first on; their values are at offsets
// in b.
func xattrTable(b []byte, first int, visit func(xattr) error) error {
	for at := first; ; {
		if len(b)-at < 4 {
			return corrupt("the table has no end")
		}
		if le32(b, at) == 0 {
			return nil
		}
		if len(b)-at < xattrEntryLen+int(b[at]) {
			return corrupt("an entry is cut off")
		}
		x := xattr{index: b[at+1], name: string(b[at+xattrEntryLen:][:b[at]]), holder: le32(b, at+4), size: le32(b, at+8)}
		if x.holder == 0 {
			off := int(le16(b, at+2))
			if off > len(b) || x.size > uint32(len(b)-off) {
				return corrupt("the value of %q is outside", x.name)
			}
			x.value = b[off:][:x.size]
		}
		if err := visit(x); err != nil {
			return err
		}
		at += (xattrEntryLen + int(b[at]) + 3) &^ 3
	}
}

// xattrValue returns what getxattr would.
func (f *fileSystem) xattrValue(x xattr) (string, error) {
	if x.holder != 0 {
		value, err := f.holderValue(x)
		if err != nil {
			return "", fmt.Errorf("value of %q in inode %d: %w", x.name, x.holder, err)
		}
		x.value = value
	}
	if x.index == indexACLAccess || x.index == indexACLDefault {
		return accessList(x.value)
	}
	return string(x.value), nil
}

// holderValue reads a value that has an inode of its own.
func (f *fileSystem) holderValue(x xattr) ([]byte, error) {
	if x.size > mostXattr {
		return nil, corrupt("%d bytes", x.size)
	}
	n, err := f.inode(x.holder)
	if err != nil {
		return nil, err
	}
	if !n.has(flagEAInode) || n.kind() != unix.S_IFREG || n.has(flagInline) || n.size != int64(x.size) {
		return nil, corrupt("it holds no such attribute")
	}
	value := make([]byte, x.size)
	return value, (&file{f: f, n: n}).read(value, 0, uint64(f.blockSize))
}

// inlineRest returns the part of inline data that is in an attribute.
func (f *fileSystem) inlineRest(n *inode) (rest []byte, err error) {
	err = f.inodeXattrs(n, func(x xattr) error {
		if x.index == indexSystem && x.name == "data" {
			rest = x.value
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("inode %d: inline data: %w", n.number, err)
	}
	return rest, nil
}

// accessList turns the form on disk, version 1 with ids only where they mean
// something, into that of getxattr, version 2 (linux/posix_acl_xattr.h).
func accessList(b []byte) (string, error) {
	const user, group, none = 2, 8, 0xffffffff
	if len(b) < 4 || le32(b, 0) != 1 {
		return "", corrupt("an access list is of an unknown version")
	}
	out := binary.LittleEndian.AppendUint32(make([]byte, 0, 2*len(b)), 2)
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 {
			return "", corrupt("an access list is cut off")
		}
		tag, id, length := le16(b, 0), uint32(none), 4
		if tag == user || tag == group {
			if len(b) < 8 {
				return "", corrupt("an access list is cut off")
			}
			id, length = le32(b, 4), 8
		}
		out = binary.LittleEndian.AppendUint32(append(out, b[:4]...), id)
		b = b[length:]
	}
	return string(out), nil
}
