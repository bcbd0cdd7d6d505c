package ext

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// lostFound adds the directory that e2fsck puts things into, if there is none.
func (w *writer) lostFound() error {
	root := w.dirs[""]
	if number, _ := root.find("lost+found"); number != 0 {
		return nil
	}
	number, err := w.allocInode()
	if err != nil {
		return err
	}
	w.addDir("lost+found", &directory{
		node:   node{number: number, mode: unix.S_IFDIR | 0o700, mtime: time.Unix(int64(le32(w.raw, 0x108)), 0)}, // when the old one was made
		parent: rootInode,
	})
	root.subs++
	root.add(number, 2, "lost+found")
	return nil
}

// directories writes those that were collected.
func (w *writer) directories() error {
	for _, d := range w.order {
		if err := w.ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		b := w.dirBlocks(d)
		var runs []stretch
		for done := 0; done < len(b); {
			at, n, err := w.alloc(uint64((len(b) - done) / w.blockSize))
			if err != nil {
				return err
			}
			size := int(n) * w.blockSize
			if err := w.put(b[done:done+size], at); err != nil {
				return err
			}
			runs = join(runs, stretch{uint32(done / w.blockSize), at, uint32(n)})
			done += size
		}
		d.size, d.links = int64(len(b)), uint32(2+d.subs)
		if d.links > mostLinks {
			if w.roCompat&roCompatDirNlink == 0 {
				return invalid("more than %d directories in one", mostLinks)
			}
			d.links = 1
		}
		if err := w.mapBlocks(&d.node, runs); err != nil {
			return err
		}
		if err := w.putNode(&d.node); err != nil {
			return err
		}
		d.entries = nil
	}
	return nil
}

// dirBlocks lays the entries of a directory out in blocks, without an index.
func (w *writer) dirBlocks(d *directory) []byte {
	usable := w.blockSize
	if w.sums() {
		usable -= 12
	}
	le := binary.LittleEndian
	var out []byte
	at, last := usable, -1 // in the last block: where the next goes, where the last one began
	add := func(number uint32, kind byte, name []byte) {
		size := 8 + (len(name)+3)&^3
		if at+size > usable {
			if last >= 0 {
				b := out[len(out)-w.blockSize:]
				le.PutUint16(b[last+4:], uint16(usable-last))
			}
			out = append(out, make([]byte, w.blockSize)...)
			at = 0
		}
		b := out[len(out)-w.blockSize:]
		le.PutUint32(b[at:], number)
		le.PutUint16(b[at+4:], uint16(size))
		b[at+6], b[at+7] = byte(len(name)), kind
		copy(b[at+8:], name)
		last, at = at, at+size
	}
	add(d.number, 2, []byte("."))
	add(d.parent, 2, []byte(".."))
	for e := d.entries; len(e) > 0; e = e[6+int(e[5]):] {
		add(le32(e, 0), e[4], e[6:6+int(e[5])])
	}
	le.PutUint16(out[len(out)-w.blockSize+last+4:], uint16(usable-last))
	if !w.sums() {
		return out
	}
	for b := out; len(b) > 0; b = b[w.blockSize:] {
		tail := b[usable:w.blockSize]
		le.PutUint16(tail[4:], 12)
		tail[7] = 0xde
		le.PutUint32(tail[8:], checksum(w.inodeSeed(d.number), b[:usable]))
	}
	return out
}

// writeJournal makes an empty journal (Documentation/filesystems/ext4/journal.rst).
func (w *writer) writeJournal() error {
	if w.journal == 0 {
		return nil
	}
	n := node{number: 8, mode: unix.S_IFREG | 0o600, links: 1, mtime: w.now, size: int64(w.journal) * int64(w.blockSize)}
	var runs []stretch
	for done := uint32(0); done < w.journal; {
		at, got, err := w.alloc(uint64(w.journal - done))
		if err != nil {
			return err
		}
		runs = join(runs, stretch{done, at, uint32(got)})
		done += uint32(got)
	}
	b, be := make([]byte, w.blockSize), binary.BigEndian
	for at, v := range map[int]uint32{
		0: 0xc03b3998, 4: 4, 0xc: uint32(w.blockSize), 0x10: w.journal, 0x14: 1, 0x18: 1, 0x40: 1, // magic, version 2, ..., first block, sequence, users
	} {
		be.PutUint32(b[at:], v)
	}
	copy(b[0x30:0x40], w.uuid[:])
	if err := w.put(b, runs[0].at); err != nil {
		return err
	}
	if err := w.mapBlocks(&n, runs); err != nil {
		return err
	}
	// e2fsck has a copy of the inode in the superblock
	le := binary.LittleEndian
	le.PutUint32(w.raw[0xe0:], n.number)
	w.raw[0xfd] = 1
	copy(w.raw[0x10c:], n.area[:])
	le.PutUint32(w.raw[0x148:], uint32(n.size>>32))
	le.PutUint32(w.raw[0x14c:], uint32(n.size))
	return w.putNode(&n)
}

// writeResize makes the inode that holds the blocks which are kept for the
// descriptors of further groups: a map of two levels, which has for each such
// block behind the first superblock those behind its copies.
func (w *writer) writeResize() error {
	if w.compat&compatResizeInode == 0 {
		return nil
	}
	at, _, err := w.alloc(1)
	if err != nil {
		return err
	}
	perBlock := uint64(w.blockSize / 4)
	top, le := make([]byte, w.blockSize), binary.LittleEndian
	n := node{number: 7, mode: unix.S_IFREG | 0o600, links: 1, mtime: w.now, blocks: 1}
	n.size = int64(perBlock*perBlock+perBlock+12) * int64(w.blockSize)
	le.PutUint32(n.area[4*13:], uint32(at))
	for i := range w.reserved {
		block := w.firstBlock + 1 + w.descBlocks + i
		le.PutUint32(top[4*((w.descBlocks+i)%perBlock):], uint32(block))
		copies, count := make([]byte, w.blockSize), uint64(0)
		for g := uint64(1); g < w.groups; g++ {
			if w.hasSuper(g) {
				le.PutUint32(copies[4*count:], uint32(block+g*w.blocksPerGroup))
				count++
			}
		}
		n.blocks += 1 + count
		if err := w.put(copies, block); err != nil {
			return err
		}
	}
	if err := w.put(top, at); err != nil {
		return err
	}
	w.roCompat |= roCompatLargeFile
	return w.putNode(&n)
}

// finish writes maps, descriptors and superblocks.
func (w *writer) finish() error {
	desc := make([]byte, w.descBlocks*uint64(w.blockSize))
	for g := range w.groups {
		if err := w.finishGroup(g, desc[g*uint64(w.descSize):][:w.descSize]); err != nil {
			return err
		}
	}
	le := binary.LittleEndian
	le.PutUint32(w.raw[0x64:], w.roCompat)
	le.PutUint32(w.raw[0xc:], uint32(w.left))
	if w.incompat&incompat64Bit != 0 {
		le.PutUint32(w.raw[0x158:], uint32(w.left>>32))
	}
	le.PutUint32(w.raw[0x10:], w.inodes-(w.nextInode-1))
	for g := range w.groups {
		if !w.hasSuper(g) {
			continue
		}
		le.PutUint16(w.raw[0x5a:], uint16(g))
		if w.sums() {
			le.PutUint32(w.raw[0x3fc:], checksum(^uint32(0), w.raw[:0x3fc]))
		}
		at := int64(w.groupStart(g)) * int64(w.blockSize)
		super := at
		if g == 0 {
			super = superStart
		}
		if _, err := w.to.WriteAt(w.raw, super); err != nil {
			return err
		}
		if _, err := w.to.WriteAt(desc, at+int64(w.blockSize)); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) finishGroup(g uint64, d []byte) error {
	l, le := w.places[g], binary.LittleEndian
	usedInodes := uint32(min(uint64(w.inodesPerGroup), uint64(w.nextInode-1)-min(uint64(w.nextInode-1), g*uint64(w.inodesPerGroup))))
	blocks, inodes := make([]byte, w.blockSize), make([]byte, w.blockSize)
	copy(blocks, w.used[g*w.blocksPerGroup/8:(g+1)*w.blocksPerGroup/8])
	here := w.groupEnd(g) - w.groupStart(g)
	free := uint64(0)
	for b := range here {
		if !bitmap(blocks).has(b) {
			free++
		}
	}
	ones(blocks, here)
	for i := range uint64(usedInodes) {
		bitmap(inodes).set(i)
	}
	ones(inodes, uint64(w.inodesPerGroup))
	if err := w.put(blocks, l.blockMap); err != nil {
		return err
	}
	if err := w.put(inodes, l.inodeMap); err != nil {
		return err
	}
	split := func(lo, hi int, v uint64, half int) {
		if half == 4 {
			le.PutUint32(d[lo:], uint32(v))
		} else {
			le.PutUint16(d[lo:], uint16(v))
		}
		if len(d) < 64 {
			return
		}
		if half == 4 {
			le.PutUint32(d[hi:], uint32(v>>32))
		} else {
			le.PutUint16(d[hi:], uint16(v>>16))
		}
	}
	split(0x0, 0x20, l.blockMap, 4)
	split(0x4, 0x24, l.inodeMap, 4)
	split(0x8, 0x28, l.table, 4)
	split(0xc, 0x2c, free, 2)
	split(0xe, 0x2e, uint64(w.inodesPerGroup-usedInodes), 2)
	split(0x10, 0x30, uint64(w.dirsIn[g]), 2)
	switch {
	case w.sums():
		le.PutUint16(d[0x12:], 4) // the table is zeros where nothing is
		split(0x1c, 0x32, uint64(w.inodesPerGroup-usedInodes), 2)
		split(0x18, 0x38, uint64(checksum(w.seed, blocks[:w.blocksPerGroup/8])), 2)
		split(0x1a, 0x3a, uint64(checksum(w.seed, inodes[:w.inodesPerGroup/8])), 2)
		le.PutUint16(d[0x1e:], w.descSum(g, d))
	case w.roCompat&roCompatGDTCsum != 0:
		le.PutUint16(d[0x12:], 4)
		split(0x1c, 0x32, uint64(w.inodesPerGroup-usedInodes), 2)
		var number [4]byte
		le.PutUint32(number[:], uint32(g))
		sum := crc16(crc16(crc16(0xffff, w.uuid[:]), number[:]), d[:0x1e])
		if len(d) > 0x20 && w.incompat&incompat64Bit != 0 {
			sum = crc16(sum, d[0x20:])
		}
		le.PutUint16(d[0x1e:], sum)
	}
	return nil
}

// ones sets the bits behind the last one that stands for something.
func ones(b bitmap, from uint64) {
	for ; from%8 != 0; from++ {
		b.set(from)
	}
	for i := from / 8; i < uint64(len(b)); i++ {
		b[i] = 0xff
	}
}

// crc16 is that of descriptors without metadata_csum: polynomial 0x8005,
// reflected.
func crc16(sum uint16, p []byte) uint16 {
	for _, c := range p {
		sum ^= uint16(c)
		for range 8 {
			sum = sum>>1 ^ 0xa001*(sum&1)
		}
	}
	return sum
}
