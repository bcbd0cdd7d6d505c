package ext

import (
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// plan is where everything of a new file system but its files is.
type plan struct {
	super
	raw     []byte // the superblock
	journal uint32 // blocks
	// descBlocks and reserved are the blocks behind each copy of the superblock.
	descBlocks, reserved uint64
	used                 bitmap
	// left is how many blocks are free.
	left   uint64
	places []place
}

// place is where a group has its tables.
type place struct{ blockMap, inodeMap, table uint64 }

// bitmap of blocks, from the first of group 0 on.
type bitmap []byte

func (b bitmap) has(n uint64) bool { return b[n/8]&(1<<(n%8)) != 0 }
func (b bitmap) set(n uint64)      { b[n/8] |= 1 << (n % 8) }

func (p *plan) tableBlocks() int { return int(p.inodesPerGroup) * p.inodeSize / p.blockSize }

// measure finds the sizes, and checks that tables and journal have room.
func (p *plan) measure() error {
	p.descBlocks = (p.groups*uint64(p.descSize) + uint64(p.blockSize) - 1) / uint64(p.blockSize)
	if p.compat&compatResizeInode != 0 {
		p.reserved = min(uint64(le16(p.raw, 0xce)), uint64(p.blockSize/4))
	}
	return p.layOut()
}

// groupStart is the first block of a group.
func (p *plan) groupStart(g uint64) uint64 { return p.firstBlock + g*p.blocksPerGroup }

func (p *plan) groupEnd(g uint64) uint64 { return min(p.blocks, p.groupStart(g+1)) }

// take marks free blocks as used.
func (p *plan) take(at, n uint64) error {
	if at < p.firstBlock || at > p.blocks || n > p.blocks-at {
		return fmt.Errorf("ext: %d blocks at %d of %d: %w", n, at, p.blocks, errdefs.ErrUnsupported)
	}
	for b := at; b < at+n; b++ {
		if p.used.has(b - p.firstBlock) {
			return fmt.Errorf("ext: block %d has two uses: %w", b, errdefs.ErrUnsupported)
		}
		p.used.set(b - p.firstBlock)
	}
	p.left -= n
	return nil
}

// layOut places superblocks, descriptors, maps and tables of inodes. With
// flexible groups the tables of neighbours lie together.
func (p *plan) layOut() error {
	p.used, p.left = make(bitmap, p.groups*p.blocksPerGroup/8), p.blocks-p.firstBlock
	p.places = make([]place, p.groups)
	for g := range p.groups {
		if !p.hasSuper(g) {
			continue
		}
		if err := p.take(p.groupStart(g), 1+p.descBlocks+p.reserved); err != nil {
			return err
		}
	}
	flex := uint64(1)
	if p.incompat&incompatFlexBG != 0 && p.raw[0x174] < 31 {
		flex = 1 << p.raw[0x174]
	}
	for first := uint64(0); first < p.groups; first += flex {
		if err := p.layOutGroups(first, min(p.groups, first+flex), flex > 1); err != nil {
			return err
		}
	}
	if uint64(p.journal) >= p.left/2 {
		return fmt.Errorf("ext: a journal of %d blocks in %d: %w", p.journal, p.left, errdefs.ErrUnsupported)
	}
	return nil
}

func (p *plan) layOutGroups(first, end uint64, flex bool) error {
	parts := []struct {
		n  uint64
		at func(*place) *uint64
	}{
		{1, func(l *place) *uint64 { return &l.blockMap }},
		{1, func(l *place) *uint64 { return &l.inodeMap }},
		{uint64(p.tableBlocks()), func(l *place) *uint64 { return &l.table }},
	}
	for _, part := range parts {
		from := p.groupStart(first)
		for g := first; g < end; g++ {
			limit := p.blocks
			if !flex {
				limit = p.groupEnd(g)
			}
			at, ok := p.gap(from, limit, part.n)
			if !ok {
				return fmt.Errorf("ext: no room for the tables of group %d: %w", g, errdefs.ErrUnsupported)
			}
			if err := p.take(at, part.n); err != nil {
				return err
			}
			*part.at(&p.places[g]), from = at, at+part.n
		}
	}
	return nil
}

// gap finds n free blocks in a row.
func (p *plan) gap(from, limit, n uint64) (uint64, bool) {
	run := uint64(0)
	for b := from; b < limit; b++ {
		if p.used.has(b - p.firstBlock) {
			run = 0
			continue
		}
		if run++; run == n {
			return b + 1 - n, true
		}
	}
	return 0, false
}

// free is how many blocks are left for files.
func (p *plan) free() uint64 {
	use := uint64(p.journal) + uint64(p.journal)/300 + 8
	return p.left - min(p.left, use)
}
