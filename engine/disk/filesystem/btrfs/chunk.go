package btrfs

import (
	"encoding/binary"
	"math"
	"sort"
)

// maxChunks bounds the memory of the map: 32 TiB in chunks of 256 MiB.
const maxChunks = 1 << 17

// chunk says where a range of logical addresses lies on the device.
type chunk struct {
	logical, length uint64
	// copies are the offsets on the device; the second is the same as the
	// first where there is only one.
	copies [2]int64
}

// The profiles of block groups, by bit of the type of a chunk.
const (
	profileShift = 3
	profileRAID0 = 1 << 3
	profileDUP   = 1 << 5
	profileMask  = 0xff << profileShift
)

func profileName(bits uint64) string {
	names := []string{"RAID0", "RAID1", "DUP", "RAID10", "RAID5", "RAID6", "RAID1C3", "RAID1C4"}
	found := ""
	for i, name := range names {
		if bits>>(profileShift+i)&1 != 0 {
			found += name
		}
	}
	return found
}

// chunkHead is the size of a chunk item without its stripes.
const chunkHead, chunkStripe = 48, 32

// parseChunk reads the chunk item at the beginning of b, which may be longer,
// and says how long the item is.
func (s *super) parseChunk(k key, b []byte) (c chunk, size int, err error) {
	le := binary.LittleEndian
	if k.object != chunkObject || k.kind != kindChunk {
		return c, 0, corrupt("chunk %d: %v is not the key of a chunk", k.offset, k)
	}
	if len(b) < chunkHead {
		return c, 0, corrupt("chunk %d: has %d bytes", k.offset, len(b))
	}
	c = chunk{logical: k.offset, length: le.Uint64(b)}
	stripes := int(le.Uint16(b[44:]))
	size = chunkHead + stripes*chunkStripe
	if stripes == 0 || len(b) < size {
		return c, 0, corrupt("chunk %d: %d stripes in %d bytes", k.offset, stripes, len(b))
	}
	if c.length == 0 || c.length > math.MaxInt64 || c.logical > math.MaxInt64-c.length {
		return c, 0, corrupt("chunk %d: has a length of %d", k.offset, c.length)
	}
	profile := le.Uint64(b[24:]) & profileMask
	want := 1
	switch profile {
	case 0, profileRAID0: // RAID0 over one device is a straight line
	case profileDUP:
		want = 2
	default:
		return c, 0, unsupported("chunk %d: profile %s", k.offset, profileName(profile))
	}
	if stripes != want {
		return c, 0, corrupt("chunk %d: %d stripes for the profile %s", k.offset, stripes, profileName(profile))
	}
	for i := range c.copies {
		stripe := b[chunkHead+chunkStripe*min(i, stripes-1):]
		if id := le.Uint64(stripe); id != s.deviceID {
			return c, 0, unsupported("chunk %d: lies on device %d, the image is device %d", k.offset, id, s.deviceID)
		}
		offset := le.Uint64(stripe[8:])
		if offset > math.MaxInt64-c.length {
			return c, 0, corrupt("chunk %d: lies at %d", k.offset, offset)
		}
		c.copies[i] = int64(offset)
	}
	return c, size, nil
}

// loadChunks fills the map: from the superblock what is needed to read the
// chunk tree, and from this all of it.
func (f *forest) loadChunks() error {
	for b := f.super.systemChunks; len(b) > 0; {
		if len(b) < keySize {
			return corrupt("superblock: chunks end within a key")
		}
		c, n, err := f.super.parseChunk(parseKey(b), b[keySize:])
		if err != nil {
			return err
		}
		if err := f.addChunk(c); err != nil {
			return err
		}
		b = b[keySize+n:]
	}
	bootstrap := f.chunks
	var all []chunk
	err := f.each(f.super.chunk, chunkObject, kindChunk, func(it item) error {
		c, _, err := f.super.parseChunk(it.key, it.data)
		if err != nil {
			return err
		}
		f.chunks = all
		err = f.addChunk(c)
		all, f.chunks = f.chunks, bootstrap
		return err
	})
	f.chunks = all
	return err
}

// addChunk appends to the map, in the order of logical addresses.
func (f *forest) addChunk(c chunk) error {
	if n := len(f.chunks); n > 0 && f.chunks[n-1].logical+f.chunks[n-1].length > c.logical {
		return corrupt("chunk %d: overlaps the chunk %d", c.logical, f.chunks[n-1].logical)
	} else if n >= maxChunks {
		return unsupported("more than %d chunks", maxChunks)
	}
	f.chunks = append(f.chunks, c)
	return nil
}

// locate returns where length bytes at the logical address lie.
func (f *forest) locate(logical, length uint64) (copies [2]int64, err error) {
	i := sort.Search(len(f.chunks), func(i int) bool { return f.chunks[i].logical > logical }) - 1
	if i < 0 || logical-f.chunks[i].logical >= f.chunks[i].length {
		return copies, corrupt("no chunk holds the address %d", logical)
	}
	c := f.chunks[i]
	into := logical - c.logical
	if length > c.length-into {
		return copies, corrupt("%d bytes at address %d go beyond their chunk", length, logical)
	}
	return [2]int64{c.copies[0] + int64(into), c.copies[1] + int64(into)}, nil
}

// readData fills p from the logical address.
func (f *forest) readData(p []byte, logical uint64) error {
	at, err := f.locate(logical, uint64(len(p)))
	if err != nil {
		return err
	}
	return f.device.read(p, at[0])
}
