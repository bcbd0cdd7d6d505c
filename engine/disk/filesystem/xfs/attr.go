package xfs

import (
	"fmt"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
)

// Flags of an attribute: XFS_ATTR_*.
const (
	attrLocal      = 1 << 0
	attrRoot       = 1 << 1
	attrSecure     = 1 << 2
	attrParent     = 1 << 3 // a pointer to a parent directory, which nobody sees
	attrIncomplete = 1 << 7
)

// Magic numbers of struct xfs_da_blkinfo, versions 4 and 5.
const (
	attrNode4, attrNode5 = 0xfebe, 0x3ebe
	attrLeaf4, attrLeaf5 = 0xfbee, 0x3bee
)

const (
	// maxAttrNames is what listxattr(2) returns at most: a file with more has
	// names that no program could ever list.
	maxAttrNames = 64 << 10
	// maxAttrValue is the longest value that Linux sets.
	maxAttrValue = 64 << 10
	// maxAttrs bounds what one call of Xattrs returns, in bytes.
	maxAttrs = 8 << 20
)

// attrs collects the extended attributes of one inode.
type attrs struct {
	fs           *FS
	fork         *fork // nil for attributes in the inode
	inode        uint64
	found        map[string]string
	names, bytes int
}

// Xattrs implements filesystem.FileSystem. A file with more than 64 KiB of
// names or 8 MiB of values is errdefs.ErrUnsupported.
func (fs *FS) Xattrs(n filesystem.Node) (map[string]string, error) {
	i, err := fs.inode(n)
	if err != nil {
		return nil, err
	}
	if i.attrs == nil {
		return nil, nil
	}
	a := &attrs{fs: fs, inode: i.num}
	switch {
	case i.attrFormat == formatLocal:
		err = a.readShort(i.attrs)
	case i.attrFormat == formatExtents && i.attrExtents == 0:
	default:
		if a.fork, err = fs.newFork(i.num, i.attrFormat, i.attrExtents, i.attrs); err == nil {
			err = a.readLeaves()
		}
	}
	if err != nil {
		return nil, err
	}
	return a.found, nil
}

// add takes an attribute, whose value is asked for only if it counts.
func (a *attrs) add(flags byte, name []byte, value func() ([]byte, error)) error {
	if flags&(attrParent|attrIncomplete) != 0 {
		return nil
	}
	if len(name) == 0 {
		return corrupt("inode %d: attribute without a name", a.inode)
	}
	v, err := value()
	if err != nil {
		return err
	}
	full, text, err := attribute(flags, string(name), v)
	if err != nil {
		return fmt.Errorf("inode %d: attribute %q: %w", a.inode, name, err)
	}
	if _, ok := a.found[full]; ok {
		return corrupt("inode %d: attribute %q appears twice", a.inode, full)
	}
	a.names += len(full) + 1
	a.bytes += len(full) + len(text)
	if a.names > maxAttrNames || a.bytes > maxAttrs {
		return unsupported("inode %d: more than %d bytes of names or %d bytes of extended attributes", a.inode, maxAttrNames, maxAttrs)
	}
	if a.found == nil {
		a.found = map[string]string{}
	}
	a.found[full] = text
	return nil
}

// readShort reads a struct xfs_attr_sf_hdr and its entries.
func (a *attrs) readShort(b []byte) error {
	bad := func() error { return corrupt("inode %d: attributes in the inode are cut off", a.inode) }
	if len(b) < 4 || int(be.Uint16(b)) < 4 || int(be.Uint16(b)) > len(b) {
		return bad()
	}
	count := int(b[2])
	b = b[4:be.Uint16(b)]
	for range count {
		if len(b) < 3 {
			return bad()
		}
		name, value := int(b[0]), int(b[1])
		if len(b) < 3+name+value {
			return bad()
		}
		v := b[3+name : 3+name+value]
		if err := a.add(b[2], b[3:3+name], func() ([]byte, error) { return v, nil }); err != nil {
			return err
		}
		b = b[3+name+value:]
	}
	return nil
}

// readLeaves goes along the chain of leaves. Each has to name the one before
// it, so that a chain cannot lead back into itself.
func (a *attrs) readLeaves() error {
	at, err := a.firstLeaf()
	if err != nil {
		return err
	}
	for before := uint32(0); ; {
		b, err := a.block(uint64(at))
		if err != nil {
			return err
		}
		next, back := be.Uint32(b), be.Uint32(b[4:])
		if back != before || next != 0 && at == 0 {
			return corrupt("inode %d: attribute leaf %d follows %d and says that it follows %d", a.inode, at, before, back)
		}
		if err := a.readLeaf(b, at); err != nil {
			return err
		}
		if next == 0 {
			return nil
		}
		before, at = at, next
	}
}

func (a *attrs) isNode(b []byte) bool { return be.Uint16(b[8:]) == a.magic(attrNode4, attrNode5) }
func (a *attrs) isLeaf(b []byte) bool { return be.Uint16(b[8:]) == a.magic(attrLeaf4, attrLeaf5) }

func (a *attrs) magic(v4, v5 uint16) uint16 {
	if a.fs.sb.v5 {
		return v5
	}
	return v4
}

// firstLeaf walks down the left edge of the tree whose root, struct
// xfs_da_intnode, or only leaf is block 0.
func (a *attrs) firstLeaf() (uint32, error) {
	at, level := uint32(0), 0
	for {
		b, err := a.block(uint64(at))
		if err != nil {
			return 0, err
		}
		if a.isLeaf(b) && level <= 1 {
			return at, nil
		}
		header, entries := 12, 16
		if a.fs.sb.v5 {
			header, entries = 56, 64
		}
		count, its := int(be.Uint16(b[header:])), int(be.Uint16(b[header+2:]))
		const maxNodes = 5 // XFS_DA_NODE_MAXDEPTH
		if !a.isNode(b) || count == 0 || its < 1 || its > maxNodes || level != 0 && its != level-1 {
			return 0, corrupt("inode %d: attribute block %d is no node below level %d", a.inode, at, level)
		}
		at, level = be.Uint32(b[entries+4:]), its
	}
}

// block reads one verified block of the attribute fork.
func (a *attrs) block(at uint64) ([]byte, error) {
	b, off, err := a.rawBlock(at)
	if err != nil {
		return nil, err
	}
	if a.fs.sb.v5 {
		return b, a.fs.verify(b, off, a.inode, &daLayout)
	}
	return b, nil
}

func (a *attrs) rawBlock(at uint64) ([]byte, int64, error) {
	fsb, err := a.fork.mapped(at)
	if err != nil {
		return nil, 0, err
	}
	b := make([]byte, a.fs.sb.blockSize())
	off, err := a.fs.readBlock(b, fsb)
	if err != nil {
		return nil, 0, fmt.Errorf("inode %d: attribute block %d: %w", a.inode, at, err)
	}
	return b, off, nil
}

// readLeaf reads the entries of a leaf: struct xfs_attr_leaf_hdr, struct
// xfs_attr_leaf_entry for each attribute, and what these point to.
func (a *attrs) readLeaf(b []byte, at uint32) error {
	countAt, entries := 12, 32
	if a.fs.sb.v5 {
		countAt, entries = 56, 80
	}
	count := int(be.Uint16(b[countAt:]))
	if !a.isLeaf(b) || count > (len(b)-entries)/8 || count == 0 && at != 0 {
		return corrupt("inode %d: attribute leaf %d with %d entries", a.inode, at, count)
	}
	for i := range count {
		entry := b[entries+8*i:]
		start, flags := int(be.Uint16(entry[4:])), entry[6]
		if start < entries+8*count || start >= len(b) {
			return corrupt("inode %d: attribute leaf %d: entry %d is at %d", a.inode, at, i, start)
		}
		if err := a.leafEntry(b[start:], flags); err != nil {
			return err
		}
	}
	return nil
}

// leafEntry takes a struct xfs_attr_leaf_name_local or _remote.
func (a *attrs) leafEntry(b []byte, flags byte) error {
	bad := func() error { return corrupt("inode %d: an attribute is cut off", a.inode) }
	if flags&attrLocal != 0 {
		if len(b) < 3 || len(b) < 3+int(b[2])+int(be.Uint16(b)) {
			return bad()
		}
		name, value := int(b[2]), int(be.Uint16(b))
		return a.add(flags, b[3:3+name], func() ([]byte, error) { return b[3+name : 3+name+value], nil })
	}
	if len(b) < 9 || len(b) < 9+int(b[8]) {
		return bad()
	}
	return a.add(flags, b[9:9+int(b[8])], func() ([]byte, error) {
		return a.remote(uint64(be.Uint32(b)), be.Uint32(b[4:]))
	})
}

// remote reads a value of size bytes in blocks of its own, each with a header
// in version 5.
func (a *attrs) remote(at uint64, size uint32) ([]byte, error) {
	if size > maxAttrValue {
		return nil, corrupt("inode %d: attribute value of %d bytes", a.inode, size)
	}
	value := make([]byte, 0, size)
	for ; len(value) < int(size); at++ {
		b, off, err := a.rawBlock(at)
		if err != nil {
			return nil, err
		}
		if a.fs.sb.v5 {
			if b, err = a.fs.stripRemote(b, off, a.inode, "XARM", &remLayout); err != nil {
				return nil, err
			}
		}
		value = append(value, b[:min(len(b), int(size)-len(value))]...)
	}
	return value, nil
}
