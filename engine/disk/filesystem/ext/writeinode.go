package ext

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// node is an inode that is to be written.
type node struct {
	number   uint32
	mode     uint16
	uid, gid uint32
	size     int64
	mtime    time.Time
	links    uint32
	flags    uint32
	blocks   uint64 // all that it takes
	area     [blockAreaLen]byte
	attrs    []diskAttribute
}

// dirType is the type in an entry of a directory.
func (n *node) dirType() byte {
	switch n.mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 1
	case unix.S_IFDIR:
		return 2
	case unix.S_IFCHR:
		return 3
	case unix.S_IFBLK:
		return 4
	case unix.S_IFIFO:
		return 5
	case unix.S_IFLNK:
		return 7
	}
	return 0
}

// inodeSeed is the seed of the checksums of an inode whose generation is 0.
func (w *writer) inodeSeed(number uint32) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint32(b[:], number)
	return checksum(w.seed, b[:])
}

func (w *writer) sums() bool { return w.roCompat&roCompatMetadataCsum != 0 }

const (
	inlineExtents  = 4
	extentsTail    = 4
	lastExtraField = 0x20 // up to the project id
)

// mapBlocks writes the tree of extents.
func (w *writer) mapBlocks(n *node, runs []stretch) error {
	n.flags |= flagExtents
	var list [][12]byte
	for _, r := range runs {
		n.blocks += uint64(r.n)
		var e [12]byte
		binary.LittleEndian.PutUint32(e[:], r.logical)
		binary.LittleEndian.PutUint16(e[4:], uint16(r.n))
		binary.LittleEndian.PutUint16(e[6:], uint16(r.at>>32))
		binary.LittleEndian.PutUint32(e[8:], uint32(r.at))
		list = append(list, e)
	}
	depth := uint16(0)
	for ; len(list) > inlineExtents; depth++ {
		var above [][12]byte
		for part := range slices.Chunk(list, (w.blockSize-12)/12) {
			at, err := w.extentBlock(n.number, part, depth)
			if err != nil {
				return err
			}
			n.blocks++
			var e [12]byte
			copy(e[:4], part[0][:4])
			binary.LittleEndian.PutUint32(e[4:], uint32(at))
			binary.LittleEndian.PutUint16(e[8:], uint16(at>>32))
			above = append(above, e)
		}
		list = above
	}
	putExtents(n.area[:], list, inlineExtents, depth)
	return nil
}

func putExtents(b []byte, list [][12]byte, most int, depth uint16) {
	le := binary.LittleEndian
	le.PutUint16(b, extentMagic)
	le.PutUint16(b[2:], uint16(len(list)))
	le.PutUint16(b[4:], uint16(most))
	le.PutUint16(b[6:], depth)
	for i, e := range list {
		copy(b[12*(i+1):], e[:])
	}
}

func (w *writer) extentBlock(number uint32, list [][12]byte, depth uint16) (uint64, error) {
	at, _, err := w.alloc(1)
	if err != nil {
		return 0, err
	}
	b := make([]byte, w.blockSize)
	most := (w.blockSize - 12) / 12
	putExtents(b, list, most, depth)
	if tail := 12 * (most + 1); w.sums() && tail+extentsTail <= len(b) {
		binary.LittleEndian.PutUint32(b[tail:], checksum(w.inodeSeed(number), b[:tail]))
	}
	return at, w.put(b, at)
}

// inodeAt is where an inode is, in bytes.
func (w *writer) inodeAt(number uint32) int64 {
	group, index := (number-1)/w.inodesPerGroup, (number-1)%w.inodesPerGroup
	return int64(w.places[group].table)*int64(w.blockSize) + int64(index)*int64(w.inodeSize)
}

// extraLen is the length of the fields behind the first 128 bytes.
func (w *writer) extraLen() int {
	if w.inodeSize == 128 {
		return 0
	}
	want := int(max(le16(w.raw, 0x15c), le16(w.raw, 0x15e)))
	if want < lastExtraField || want%4 != 0 || want > w.inodeSize-128 {
		want = lastExtraField
	}
	return want
}

// putNode writes an inode, and the attributes that have no room in it.
func (w *writer) putNode(n *node) error {
	b := make([]byte, w.inodeSize)
	acl, err := w.putAttrs(n, b)
	if err != nil {
		return err
	}
	if acl != 0 {
		n.blocks++
	}
	le := binary.LittleEndian
	le.PutUint16(b, n.mode)
	le.PutUint16(b[0x2:], uint16(n.uid))
	le.PutUint32(b[0x4:], uint32(n.size))
	le.PutUint16(b[0x18:], uint16(n.gid))
	le.PutUint16(b[0x1a:], uint16(n.links))
	sectors := n.blocks * uint64(w.blockSize/512)
	le.PutUint32(b[0x1c:], uint32(sectors))
	le.PutUint32(b[0x20:], n.flags)
	copy(b[blockArea:], n.area[:])
	le.PutUint32(b[0x68:], uint32(acl))
	le.PutUint32(b[0x6c:], uint32(n.size>>32))
	le.PutUint16(b[0x74:], uint16(sectors>>32))
	le.PutUint16(b[0x76:], uint16(acl>>32))
	le.PutUint16(b[0x78:], uint16(n.uid>>16))
	le.PutUint16(b[0x7a:], uint16(n.gid>>16))
	extra := w.extraLen()
	if extra > 0 {
		le.PutUint16(b[0x80:], uint16(extra))
	}
	for _, at := range [][2]int{{0x8, 0x8c}, {0xc, 0x84}, {0x10, 0x88}, {0x90, 0x94}} { // access, change, modification, creation
		if at[0] < 0x80 || extra > 0 {
			putTime(b, at[0], at[1], extra > 0, n.mtime)
		}
	}
	return w.putInode(n.number, b)
}

// putTime writes a time with its other bits, if there are.
func putTime(b []byte, at, more int, wide bool, t time.Time) {
	seconds := t.Unix()
	if !wide {
		binary.LittleEndian.PutUint32(b[at:], uint32(max(math.MinInt32, min(math.MaxInt32, seconds))))
		return
	}
	seconds = max(math.MinInt32, min(3<<32+math.MaxInt32, seconds))
	binary.LittleEndian.PutUint32(b[at:], uint32(seconds))
	epoch := uint32((seconds-int64(int32(seconds)))>>32) & 3
	binary.LittleEndian.PutUint32(b[more:], uint32(t.Nanosecond())<<2|epoch)
}

// putInode writes an inode with its checksum.
func (w *writer) putInode(number uint32, b []byte) error {
	if w.sums() {
		le := binary.LittleEndian
		wide := len(b) > 128 && le16(b, 0x80) >= 4
		le.PutUint16(b[0x7c:], 0)
		if wide {
			le.PutUint16(b[0x82:], 0)
		}
		sum := checksum(w.inodeSeed(number), b)
		le.PutUint16(b[0x7c:], uint16(sum))
		if wide {
			le.PutUint16(b[0x82:], uint16(sum>>16))
		}
	}
	_, err := w.to.WriteAt(b, w.inodeAt(number))
	return err
}

// mostLinks of a file.
const mostLinks = 65000

// addLink counts another name of an inode that was written.
func (w *writer) addLink(number uint32) error {
	b := make([]byte, w.inodeSize)
	if _, err := w.to.ReadAt(b, w.inodeAt(number)); err != nil {
		return fmt.Errorf("read inode %d again: %w", number, err)
	}
	links := le16(b, 0x1a)
	if links >= mostLinks {
		return invalid("a file with more than %d names", mostLinks)
	}
	binary.LittleEndian.PutUint16(b[0x1a:], links+1)
	return w.putInode(number, b)
}

// diskAttribute is an extended attribute as it is stored.
type diskAttribute struct {
	index byte
	name  string
	value []byte
}

// size is what it takes.
func (a *diskAttribute) size() int { return 16 + (len(a.name)+3)&^3 + (len(a.value)+3)&^3 }

// diskAttr is an attribute by its full name.
func diskAttr(name, value string) (diskAttribute, error) {
	switch name {
	case "system.posix_acl_access", "system.posix_acl_default":
		acl, err := diskACL([]byte(value))
		index := byte(2)
		if name == "system.posix_acl_default" {
			index = 3
		}
		return diskAttribute{index: index, value: acl}, err
	}
	for index, prefix := range map[byte]string{1: "user.", 4: "trusted.", 6: "security."} {
		if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" && len(rest) <= 255 {
			return diskAttribute{index: index, name: rest, value: []byte(value)}, nil
		}
	}
	return diskAttribute{}, invalid("attribute %.100q", name)
}

// diskACL makes of a list as getxattr(2) gives it (linux/posix_acl_xattr.h) what
// ext4 stores (fs/ext4/acl.h): entries without an id are shorter.
func diskACL(v []byte) ([]byte, error) {
	if len(v) < 4 || len(v)%8 != 4 || le32(v, 0) != 2 {
		return nil, invalid("an access control list of %d bytes", len(v))
	}
	out := binary.LittleEndian.AppendUint32(nil, 1)
	for e := v[4:]; len(e) > 0; e = e[8:] {
		out = append(out, e[:4]...)
		if tag := le16(e, 0); tag == 2 || tag == 8 { // a named user or group
			out = append(out, e[4:8]...)
		}
	}
	return out, nil
}

const attrMagic = 0xea020000

// putAttrs puts attributes into an inode, as long as there is room, and the
// others into a block of their own, whose number it returns.
func (w *writer) putAttrs(n *node, b []byte) (uint64, error) {
	if len(n.attrs) == 0 {
		return 0, nil
	}
	slices.SortFunc(n.attrs, func(a, b diskAttribute) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	var inside, outside []diskAttribute
	start := 128 + w.extraLen()
	room := len(b) - start - 8 // the mark before, four zeros behind
	for _, a := range n.attrs {
		if start > 128 && a.size() <= room {
			inside, room = append(inside, a), room-a.size()
		} else {
			outside = append(outside, a)
		}
	}
	if len(inside) > 0 {
		binary.LittleEndian.PutUint32(b[start:], attrMagic)
		putAttrList(b[start+4:], 0, inside)
	}
	if len(outside) == 0 {
		return 0, nil
	}
	total := 32 + 4
	for _, a := range outside {
		total += a.size()
	}
	if total > w.blockSize {
		return 0, invalid("extended attributes of %d bytes", total)
	}
	return w.attrBlock(outside)
}

func (w *writer) attrBlock(list []diskAttribute) (uint64, error) {
	at, _, err := w.alloc(1)
	if err != nil {
		return 0, err
	}
	b, le := make([]byte, w.blockSize), binary.LittleEndian
	le.PutUint32(b, attrMagic)
	le.PutUint32(b[4:], 1) // references
	le.PutUint32(b[8:], 1) // blocks
	putAttrList(b, 32, list)
	if w.sums() {
		var number [8]byte
		le.PutUint64(number[:], at)
		le.PutUint32(b[16:], checksum(checksum(w.seed, number[:]), b))
	}
	return at, w.put(b, at)
}

// putAttrList writes entries from an offset on, and values from the end.
func putAttrList(b []byte, at int, list []diskAttribute) {
	end, le := len(b), binary.LittleEndian
	for _, a := range list {
		end -= (len(a.value) + 3) &^ 3
		copy(b[end:], a.value)
		b[at], b[at+1] = byte(len(a.name)), a.index
		if len(a.value) > 0 {
			le.PutUint16(b[at+2:], uint16(end))
		}
		le.PutUint32(b[at+8:], uint32(len(a.value)))
		copy(b[at+16:], a.name)
		le.PutUint32(b[at+12:], attrHash(a.name, b[end:end+(len(a.value)+3)&^3]))
		at += 16 + (len(a.name)+3)&^3
	}
}

// attrHash is ext4_xattr_hash_entry of fs/ext4/xattr.c.
func attrHash(name string, value []byte) uint32 {
	var h uint32
	for i := range len(name) {
		h = h<<5 ^ h>>27 ^ uint32(name[i])
	}
	for ; len(value) > 0; value = value[4:] {
		h = h<<16 ^ h>>16 ^ le32(value, 0)
	}
	return h
}
