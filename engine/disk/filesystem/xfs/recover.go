package xfs

import (
	"fmt"
)

// Types of log items: XFS_LI_*.
const (
	itemInode  = 0x123b
	itemBuffer = 0x123c

	// Announcements of changes that show, and their ends; what announces
	// changes of the free space and of the reverse map only is not read.
	itemMapIntent      = 0x1244 // BUI
	itemMapDone        = 0x1245
	itemAttrIntent     = 0x1246 // ATTRI
	itemAttrDone       = 0x1247
	itemExchangeIntent = 0x1248 // XMI
	itemExchangeDone   = 0x1249
)

func (i *logItem) kind() uint16 { return le.Uint16(i.regions[0]) }

// commit applies a transaction: buffers, then inodes, which may lie in them.
func (p *replay) commit(t *transaction) error {
	for n := range t.items {
		i := &t.items[n]
		if len(i.regions) != i.total {
			return corrupt("log: item %#x with %d of %d regions", i.kind(), len(i.regions), i.total)
		}
		if err := p.intent(i); err != nil {
			return err
		}
	}
	for _, kind := range []uint16{itemBuffer, itemInode} {
		for n := range t.items {
			i := &t.items[n]
			if i.kind() != kind {
				continue
			}
			var err error
			if kind == itemBuffer {
				err = p.buffer(i, t.lsn)
			} else if !p.first {
				err = p.inode(i, t.lsn)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// intent keeps book of what was announced.
func (p *replay) intent(i *logItem) error {
	kind := i.kind()
	if !p.first || kind < itemMapIntent || kind > itemExchangeDone {
		return nil
	}
	if len(i.regions[0]) < 16 {
		return corrupt("log: item %#x of %d bytes", kind, len(i.regions[0]))
	}
	id := le.Uint64(i.regions[0][8:])
	switch kind {
	case itemMapIntent, itemAttrIntent, itemExchangeIntent:
		p.intents[id] = true
		return p.keep(nil, 50)
	default:
		delete(p.intents, id)
		return nil
	}
}

// Flags and types of buffers: XFS_BLF_* and enum xfs_blft.
const (
	bufferInodes = 1 << 0 // nothing in it but the list of removed inodes
	bufferCancel = 1 << 1
	bufferQuota  = 1<<2 | 1<<3 | 1<<4

	bufferTypeShift = 11
	bufferBtree     = 4
	bufferSuper     = 18
)

// bufferOther are the types of what this package does not read: quotas (1 to
// 3), headers of allocation groups (5 to 7), indexes of directories (12 to
// 14), the real-time section (19, 20).
const bufferOther = 1<<1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<7 | 1<<12 | 1<<13 | 1<<14 | 1<<19 | 1<<20

// buffer applies a struct xfs_buf_log_format: parts of a block, as a bitmap
// over pieces of 128 bytes says.
func (p *replay) buffer(i *logItem, lsn uint64) error {
	f := i.regions[0]
	if len(f) < 20 || uint64(len(f)-20) < uint64(le.Uint32(f[16:]))*4 {
		return corrupt("log: buffer item of %d bytes", len(f))
	}
	flags, sectors, at := le.Uint16(f[4:]), int(le.Uint16(f[6:])), int64(le.Uint64(f[8:]))
	if flags&bufferCancel != 0 {
		if p.first {
			p.cancelled[at]++
			return p.keep(nil, 50)
		}
		p.cancelled[at]--
		return nil
	}
	kind := uint(flags >> bufferTypeShift)
	if p.first || p.cancelled[at] > 0 || flags&(bufferInodes|bufferQuota) != 0 || bufferOther>>kind&1 != 0 {
		return nil
	}
	if at < 0 || at > p.fs.dev.size/sector || sectors == 0 || sectors > maxRecord/sector || kind == bufferSuper && at != 0 {
		return corrupt("log: buffer of %d sectors at sector %d", sectors, at)
	}
	pieces, err := split(f[20:20+4*le.Uint32(f[16:])], i.regions[1:], sectors*sector)
	if err != nil {
		return err
	}
	var head [sector]byte
	if err := p.fs.dev.read(head[:], at*sector); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	if p.fs.sb.v5 && p.fs.newer(head[:], lsn) {
		return nil
	}
	if len(pieces) > 0 && pieces[0].at == 0 {
		copy(head[:], pieces[0].data)
	}
	if magic := string(head[:4]); kind == bufferBtree && magic != "BMAP" && magic != "BMA3" {
		return nil
	}
	for _, c := range pieces {
		if err := p.write(c.data, at*sector+int64(c.at)); err != nil {
			return err
		}
	}
	return nil
}

// piece is what was logged of a buffer, in one region.
type piece struct {
	at   int
	data []byte
}

// split says which place of a buffer each region is for. A row of set bits is
// one region, or several.
func split(bitmap []byte, regions [][]byte, size int) ([]piece, error) {
	const unit = 128
	set := func(bit int) bool { return bit < 8*len(bitmap) && bitmap[bit/8]>>(bit%8)&1 != 0 }
	var out []piece
	for bit := 0; bit < 8*len(bitmap); {
		if !set(bit) {
			bit++
			continue
		}
		row := 1
		for row < size/unit && set(bit+row) {
			row++
		}
		if len(regions) == 0 || len(regions[0]) < unit || len(regions[0]) > row*unit || len(regions[0]) > size-bit*unit {
			return nil, corrupt("log: buffer item without its %d pieces at %d", row, bit)
		}
		out = append(out, piece{at: bit * unit, data: regions[0]})
		bit += len(regions[0]) / unit
		regions = regions[1:]
	}
	return out, nil
}

// newer says whether a block of version 5, of which b is the first sector, is
// at least as new as the change: xlog_recover_get_buf_lsn, for the blocks that
// matter here.
func (fs *FS) newer(b []byte, lsn uint64) bool {
	at, uuid := 0, 0
	switch magic := string(b[:4]); {
	case magic == "BMA3":
		at, uuid = 32, bmapLayout.uuid
	case magic == "XDB3" || magic == "XDD3":
		at, uuid = 16, dirLayout.uuid
	case magic == "XSLM":
		at, uuid = 48, linkLayout.uuid
	case be.Uint16(b[8:]) == attrNode5 || be.Uint16(b[8:]) == attrLeaf5:
		at, uuid = 24, daLayout.uuid
	case magic == superMagic:
		at, uuid = 240, 248
		if string(b[uuid:uuid+16]) == string(make([]byte, 16)) {
			uuid = 32
		}
	default:
		return false
	}
	has := be.Uint64(b[at:])
	return string(b[uuid:uuid+16]) == string(fs.sb.metaUUID[:]) && has != 0 && has != 1<<64-1 && has >= lsn
}

// write lays b over the device.
func (p *replay) write(b []byte, off int64) error {
	bytes, err := p.fs.dev.lay(b, off)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return p.keep(nil, bytes)
}
