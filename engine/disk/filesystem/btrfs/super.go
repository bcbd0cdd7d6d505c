package btrfs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	superSize = 4096
	magic     = "_BHRfS_M"

	maxLevel = 7
)

// superOffsets are the places of the superblock and its mirrors.
func superOffsets() [3]int64 { return [3]int64{64 << 10, 64 << 20, 256 << 30} }

// super is what the superblock says, as far as it is needed.
type super struct {
	fsid, metadataID     [16]byte
	generation           uint64
	root, chunk          tree
	logRoot              uint64
	defaultDirectory     uint64
	deviceID             uint64
	sectorSize, nodeSize uint32
	checksum             checksum
	label                string
	systemChunks         []byte
}

// features are the incompatible features, by bit; a name that begins with "!"
// is one that this package cannot read.
func features() []string {
	return []string{
		"mixed backref", "default subvolume", "mixed groups", "LZO", "zstd", "big metadata", "extended inode references",
		"RAID5/6", "skinny metadata", "no holes", "metadata UUID", "RAID1C3/4", "!zoned devices", "!extent tree v2", "!raid stripe tree", "", "simple quotas",
	}
}

const featureMetadataID = 1 << 10

// readSuper returns the newest valid superblock. The first one makes a file
// system a btrfs: where its magic number is gone, mirrors are left over from
// what was there before. The same goes for mirrors of another UUID, if the
// first one is valid.
func readSuper(dev device, verify bool) (*super, error) {
	var newest *super
	var first error
	for i, offset := range superOffsets() {
		if offset+superSize > dev.size {
			break
		}
		buf := make([]byte, superSize)
		if err := dev.read(buf, offset); err != nil {
			return nil, fmt.Errorf("superblock at %d: %w", offset, err)
		}
		if string(buf[0x40:0x48]) != magic {
			if i == 0 {
				break
			}
			continue
		}
		s, err := parseSuper(buf, offset, verify)
		switch {
		case err != nil:
			first = cmp.Or(first, err)
		case newest == nil || s.fsid == newest.fsid && s.generation > newest.generation:
			newest = s
		}
	}
	switch {
	case newest != nil:
		return newest, nil
	case first != nil:
		return nil, first
	}
	return nil, fmt.Errorf("btrfs: superblock: %w", errdefs.ErrNotFound)
}

// parseSuper reads the superblock in b, which lies at offset and has the magic
// number.
func parseSuper(b []byte, offset int64, verify bool) (*super, error) {
	le := binary.LittleEndian
	s := &super{
		fsid: [16]byte(b[0x20:]), metadataID: [16]byte(b[0x20:]),
		generation: le.Uint64(b[0x48:]),
		root:       tree{id: rootTree, block: le.Uint64(b[0x50:]), level: b[0xc6], generation: le.Uint64(b[0x48:])},
		chunk:      tree{id: chunkTree, block: le.Uint64(b[0x58:]), level: b[0xc7], generation: le.Uint64(b[0xa4:])},
		logRoot:    le.Uint64(b[0x60:]), defaultDirectory: le.Uint64(b[0x80:]), deviceID: le.Uint64(b[0xc9:]),
		sectorSize: le.Uint32(b[0x90:]), nodeSize: le.Uint32(b[0x94:]),
		checksum: checksum(le.Uint16(b[0xc4:])),
	}
	label, _, _ := bytes.Cut(b[0x12b:0x22b], []byte{0})
	s.label = string(label)
	if !s.checksum.known() {
		return nil, unsupported("checksum of type %d", s.checksum)
	}
	if verify && !s.checksum.matches(b) {
		return nil, corrupt("superblock at %d: checksum", offset)
	}
	n := le.Uint32(b[0xa0:])
	switch {
	case le.Uint64(b[0x30:]) != uint64(offset):
		return nil, corrupt("superblock at %d: says that it lies at %d", offset, le.Uint64(b[0x30:]))
	case !powerOfTwo(s.sectorSize, 4096, 65536), !powerOfTwo(s.nodeSize, s.sectorSize, 65536):
		return nil, corrupt("superblock at %d: sectors of %d and blocks of %d bytes", offset, s.sectorSize, s.nodeSize)
	case s.root.level > maxLevel || s.chunk.level > maxLevel:
		return nil, corrupt("superblock at %d: trees of %d and %d levels", offset, s.root.level, s.chunk.level)
	case n > 2048:
		return nil, corrupt("superblock at %d: %d bytes of chunks", offset, n)
	}
	s.systemChunks = b[0x32b : 0x32b+n]
	if err := checkFeatures(le.Uint64(b[0xbc:])); err != nil {
		return nil, err
	}
	if le.Uint64(b[0xbc:])&featureMetadataID != 0 {
		s.metadataID = [16]byte(b[0x23b:])
	}
	if le.Uint64(b[0x38:])&(3<<33) != 0 {
		return nil, unsupported("a dump of the metadata without data")
	}
	if n := le.Uint64(b[0x88:]); n != 1 {
		return nil, unsupported("a file system on %d devices", n)
	}
	return s, nil
}

func checkFeatures(flags uint64) error {
	names := features()
	for bit := range 64 {
		switch {
		case flags>>bit&1 == 0:
		case bit >= len(names) || names[bit] == "":
			return unsupported("feature bit %d", bit)
		case names[bit][0] == '!':
			return unsupported("%s", names[bit][1:])
		}
	}
	return nil
}

// powerOfTwo says whether n is one, from least to most.
func powerOfTwo(n, least, most uint32) bool { return n >= least && n <= most && n&(n-1) == 0 }

func uuidText(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// device is the image.
type device struct {
	r    io.ReaderAt
	size int64
}

// read fills p from offset. What lies outside is errdefs.ErrCorrupt, since
// the file system refers to it.
func (d device) read(p []byte, offset int64) error {
	if offset < 0 || offset > d.size || int64(len(p)) > d.size-offset {
		return corrupt("%d bytes at %d lie beyond the end of the image", len(p), offset)
	}
	if n, err := d.r.ReadAt(p, offset); n < len(p) {
		if err == nil || err == io.EOF {
			return corrupt("the image ends before %d", offset+int64(len(p)))
		}
		return fmt.Errorf("read the image at %d: %w", offset, err)
	}
	return nil
}
