package ext

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Format of a JBD2 journal, whose numbers are big-endian.
const (
	jbdMagic = 0xc03b3998

	jbdDescriptor = 1
	jbdCommit     = 2
	jbdSuper1     = 3
	jbdSuper2     = 4
	jbdRevoke     = 5

	jbdHeaderLen = 12
	jbdRevokeLen = 16 // its header

	jbdIncompat64Bit      = 0x2
	jbdIncompatCsum2      = 0x8
	jbdIncompatCsum3      = 0x10
	jbdIncompatFastCommit = 0x20
	// revoke, 64bit, async_commit, csum_v2, csum_v3, fast_commit
	jbdIncompatKnown = 0x3f

	jbdTagEscape   = 1
	jbdTagSameUUID = 2
	jbdTagLast     = 8

	// mostLogged bounds the blocks of a journal that are remembered, and those
	// that it revokes, and its pieces; together 16 MiB.
	mostLogged = 1 << 17
)

func be16(b []byte, at int) uint16 { return binary.BigEndian.Uint16(b[at:]) }
func be32(b []byte, at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }

// log is a journal that is to be replayed.
type log struct {
	f *fileSystem
	n *inode
	// length in blocks; first to last (not included) go round.
	length, first, last uint32
	sequence, start     uint32
	incompat            uint32
	seed                uint32
	runs                []run

	revoked map[uint64]uint32 // the last transaction that revokes a block
	over    *overlay
}

// journal returns the disk with what the journal holds shown in its place, or
// nil if there is nothing to show. dirty says that there is more in it.
func (f *fileSystem) journal() (shown io.ReaderAt, dirty bool, err error) {
	if f.compat&compatJournal == 0 || f.incompat&incompatRecover == 0 {
		return nil, false, nil
	}
	if f.journalInode == 0 {
		return nil, true, nil // on another device
	}
	l, err := f.openLog()
	if err != nil || l.start == 0 {
		return nil, false, err
	}
	end, err := l.scan(l.sequence, func(uint32, uint32, []byte) error { return nil })
	if err != nil {
		return nil, false, err
	}
	for _, pass := range []func(seq, at uint32, b []byte) error{l.revoke, l.replay} {
		if _, err := l.scan(end, pass); err != nil {
			return nil, false, err
		}
	}
	dirty, err = l.fastCommits(end)
	return l.over, dirty, err
}

// openLog reads the superblock of the journal.
func (f *fileSystem) openLog() (*log, error) {
	n, err := f.inode(f.journalInode)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", f.journalInode, err)
	}
	l := &log{f: f, n: n, revoked: map[uint64]uint32{}, over: &overlay{r: f.disk.r, size: int64(f.blockSize), at: map[uint64]logged{}}}
	err = f.runs(n, 0, func(r run) error {
		if r.unwritten || len(l.runs) > mostLogged {
			return corrupt("block %d is not written, or in too many pieces", r.logical)
		}
		l.runs = append(l.runs, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	b, err := l.block(0)
	if err != nil {
		return nil, err
	}
	kind := be32(b, 4)
	if be32(b, 0) != jbdMagic || kind != jbdSuper1 && kind != jbdSuper2 || be32(b, 0xc) != uint32(f.blockSize) {
		return nil, corrupt("it has no superblock")
	}
	l.length, l.first, l.sequence, l.start = be32(b, 0x10), be32(b, 0x14), be32(b, 0x18), be32(b, 0x1c)
	l.last = l.length
	if kind == jbdSuper2 {
		if l.incompat = be32(b, 0x28); l.incompat&^jbdIncompatKnown != 0 {
			return nil, fmt.Errorf("features %#x: %w", l.incompat, errdefs.ErrUnsupported)
		}
		l.seed = checksum(^uint32(0), b[0x30:0x40])
		if l.sums() {
			c := checksum(^uint32(0), b[:0xfc])
			if checksum(checksum(c, zero4[:]), b[0x100:0x400]) != be32(b, 0xfc) {
				return nil, corrupt("superblock: checksum differs")
			}
		}
		if l.incompat&jbdIncompatFastCommit != 0 {
			fast := be32(b, 0x54)
			if fast == 0 {
				fast = 256
			}
			if fast >= l.length {
				return nil, corrupt("%d of %d blocks for fast commits", fast, l.length)
			}
			l.last -= fast
		}
	}
	if int64(l.length) > n.size/int64(f.blockSize) || l.first == 0 || l.last <= l.first || l.start >= l.last || l.start != 0 && l.start < l.first {
		return nil, corrupt("blocks %d to %d, beginning at %d", l.first, l.last, l.start)
	}
	return l, nil
}

// sums says whether the blocks of the journal have checksums to be verified.
func (l *log) sums() bool { return l.f.check && l.incompat&(jbdIncompatCsum2|jbdIncompatCsum3) != 0 }

// place returns where on the disk a block of the journal is.
func (l *log) place(n uint32) (uint64, error) {
	lo, hi := 0, len(l.runs)
	for lo < hi {
		if mid := (lo + hi) / 2; l.runs[mid].end() <= uint64(n) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(l.runs) || l.runs[lo].logical > uint64(n) {
		return 0, corrupt("block %d of it is not there", n)
	}
	return l.runs[lo].physical + uint64(n) - l.runs[lo].logical, nil
}

func (l *log) block(n uint32) ([]byte, error) {
	at, err := l.place(n)
	if err != nil {
		return nil, err
	}
	return l.f.disk.block(at)
}

// next is the block behind n, going round.
func (l *log) next(n, by uint32) uint32 {
	if n += by; n >= l.last {
		n -= l.last - l.first
	}
	return n
}

// scan goes through the transactions, calls visit with each block that
// describes something, of the transaction seq at block at, and returns the
// number of the first transaction that is not whole. Where end is not that of
// the first transaction, it ends there. visit gets blocks only then.
func (l *log) scan(end uint32, visit func(seq, at uint32, b []byte) error) (uint32, error) {
	at, seq := l.start, l.sequence
	bounded := end != l.sequence
	for steps := uint32(0); steps < l.last && (!bounded || seq != end); steps++ {
		b, err := l.block(at)
		if err != nil {
			return 0, err
		}
		if be32(b, 0) != jbdMagic || be32(b, 8) != seq {
			break
		}
		here, kind := at, be32(b, 4)
		at = l.next(at, 1)
		switch kind {
		case jbdDescriptor, jbdRevoke:
			if l.sums() && checksum(checksum(l.seed, b[:len(b)-4]), zero4[:]) != be32(b, len(b)-4) {
				return seq, nil
			}
			if kind == jbdDescriptor {
				count := uint32(len(l.tags(b)))
				if steps += count; steps >= l.last {
					return seq, nil
				}
				at = l.next(at, count)
			}
			if bounded {
				err = visit(seq, here, b)
			}
		case jbdCommit:
			if l.sums() {
				c := checksum(checksum(checksum(l.seed, b[:16]), zero4[:]), b[20:])
				if c != be32(b, 16) {
					return seq, nil
				}
			}
			seq++
		default:
			return seq, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return seq, nil
}

// tag says what block of the disk a block of the journal is.
type tag struct {
	block    uint64
	flags    uint32
	checksum uint32
}

// tags reads those of a descriptor block.
func (l *log) tags(b []byte) (tags []tag) {
	length := 8
	if l.incompat&jbdIncompat64Bit != 0 {
		length += 4
	}
	switch {
	case l.incompat&jbdIncompatCsum3 != 0:
		length = 16
	case l.incompat&jbdIncompatCsum2 != 0:
		length += 2
	}
	end := len(b)
	if l.incompat&(jbdIncompatCsum2|jbdIncompatCsum3) != 0 {
		end -= 4
	}
	for at := jbdHeaderLen; at+length <= end; {
		t := tag{block: uint64(be32(b, at)), flags: uint32(be16(b, at+6)), checksum: uint32(be16(b, at+4))}
		if l.incompat&jbdIncompatCsum3 != 0 {
			t.flags, t.checksum = be32(b, at+4), be32(b, at+12)
		}
		if l.incompat&jbdIncompat64Bit != 0 {
			t.block |= uint64(be32(b, at+8)) << 32
		}
		tags = append(tags, t)
		if at += length; t.flags&jbdTagSameUUID == 0 {
			at += 16
		}
		if t.flags&jbdTagLast != 0 {
			break
		}
	}
	return tags
}

// revoke remembers the blocks that earlier transactions must not bring back.
func (l *log) revoke(seq, _ uint32, b []byte) error {
	if be32(b, 4) != jbdRevoke {
		return nil
	}
	length, end := 4, int(be32(b, jbdHeaderLen))
	if l.incompat&jbdIncompat64Bit != 0 {
		length = 8
	}
	if end > len(b) {
		return corrupt("revoke block of %d bytes", end)
	}
	for at := jbdRevokeLen; at+length <= end; at += length {
		n := uint64(be32(b, at))
		if length == 8 {
			n = n<<32 | uint64(be32(b, at+4))
		}
		if l.revoked[n] = seq; len(l.revoked) > mostLogged {
			return fmt.Errorf("it revokes more than %d blocks: %w", mostLogged, errdefs.ErrUnsupported)
		}
	}
	return nil
}

// replay remembers where the last copy of each block is.
func (l *log) replay(seq, at uint32, b []byte) error {
	if be32(b, 4) != jbdDescriptor {
		return nil
	}
	for _, t := range l.tags(b) {
		at = l.next(at, 1)
		if last, ok := l.revoked[t.block]; ok && int32(seq-last) <= 0 {
			continue
		}
		place, err := l.place(at)
		if err != nil {
			return err
		}
		if err := l.checkData(seq, t, place); err != nil {
			return err
		}
		if t.block >= l.f.blocks {
			return corrupt("it has block %d of %d", t.block, l.f.blocks)
		}
		l.over.at[t.block] = logged{place: place, escaped: t.flags&jbdTagEscape != 0}
		if len(l.over.at) > mostLogged {
			return fmt.Errorf("it holds more than %d blocks: %w", mostLogged, errdefs.ErrUnsupported)
		}
	}
	return nil
}

func (l *log) checkData(seq uint32, t tag, place uint64) error {
	if !l.sums() {
		return nil
	}
	b, err := l.f.disk.block(place)
	if err != nil {
		return err
	}
	var s [4]byte
	binary.BigEndian.PutUint32(s[:], seq)
	c := checksum(checksum(l.seed, s[:]), b)
	if l.incompat&jbdIncompatCsum3 == 0 {
		c &= 0xffff
	}
	if c != t.checksum {
		return corrupt("block %d in transaction %d: checksum differs", t.block, seq)
	}
	return nil
}

// fastCommits says whether there are fast commits that belong behind the
// transactions before end. They are changes, not blocks, and not read here.
func (l *log) fastCommits(end uint32) (bool, error) {
	const tagHead, tid = 9, 8 // in ext4_fc_tl and ext4_fc_head
	if l.incompat&jbdIncompatFastCommit == 0 {
		return false, nil
	}
	b, err := l.block(l.last + 1)
	if err != nil {
		return false, err
	}
	return le16(b, 0) == tagHead && le32(b, tid) == end, nil
}
