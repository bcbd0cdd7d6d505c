package ext

import (
	"encoding/binary"
	"io"
)

// overlay is a disk on which some blocks are read from another place.
type overlay struct {
	r    io.ReaderAt
	size int64 // of a block
	at   map[uint64]logged
}

// logged says where the journal has a block. An escaped one began with the
// journal's magic number, which is zeros there.
type logged struct {
	place   uint64
	escaped bool
}

// ReadAt implements io.ReaderAt.
func (o *overlay) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		at := off + int64(done)
		// the longest part that is all on the disk, or one block of the journal
		end, l, ok := at, logged{}, false
		for end < off+int64(len(p)) {
			if l, ok = o.at[uint64(end/o.size)]; ok {
				break
			}
			end += o.size - end%o.size
		}
		place := at
		if ok && end == at {
			place, end = int64(l.place)*o.size+at%o.size, at+o.size-at%o.size
		}
		part := p[done:min(int64(len(p)), end-off)]
		n, err := o.r.ReadAt(part, place)
		if place != at && l.escaped {
			escape(part[:n], at%o.size)
		}
		if done += n; n < len(part) {
			return done, err
		}
	}
	return done, nil
}

// escape puts the magic number back into what was read from inside on in a
// block.
func escape(p []byte, inside int64) {
	if inside < 4 {
		copy(p, binary.BigEndian.AppendUint32(nil, jbdMagic)[inside:])
	}
}
