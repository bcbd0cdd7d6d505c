package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/filesystem/btrfs"
	"github.com/gantry-project/gantry/engine/disk/filesystem/ext"
	"github.com/gantry-project/gantry/engine/disk/filesystem/xfs"
)

// content is what a partition holds, judged by its marks.
type content string

// What is told apart. The first three are read.
const (
	contentExt     content = "ext"
	contentXFS     content = "XFS"
	contentBtrfs   content = "btrfs"
	contentLVM     content = "LVM"
	contentLUKS    content = "LUKS encryption"
	contentRAID    content = "Linux RAID"
	contentBcache  content = "bcache"
	contentZFS     content = "ZFS"
	contentF2FS    content = "f2fs"
	contentEROFS   content = "EROFS"
	contentSquash  content = "squashfs"
	contentSwap    content = "swap"
	contentFAT     content = "FAT"
	contentNTFS    content = "NTFS"
	contentISO     content = "ISO 9660"
	contentUnknown content = "unknown"
)

// String implements fmt.Stringer.
func (c content) String() string { return string(c) }

// hides says that there may be a root in it, or that it may be one, which
// cannot be read here.
func (c content) hides() bool {
	switch c {
	case contentLVM, contentLUKS, contentRAID, contentBcache, contentZFS, contentF2FS, contentEROFS, contentSquash:
		return true
	case contentExt, contentXFS, contentBtrfs, contentSwap, contentFAT, contentNTFS, contentISO, contentUnknown:
	}
	return false
}

// readers open what can be read.
func readers() map[content]filesystem.Opener {
	return map[content]filesystem.Opener{contentExt: ext.Open, contentXFS: xfs.Open, contentBtrfs: btrfs.Open}
}

// mark is a text at a place.
type mark struct {
	at   int
	text string
	is   content
}

// marks are looked for in this order: what wraps other things comes first,
// because it may leave the mark of what was there before.
func marks() []mark {
	list := []mark{{0, "LUKS\xba\xbe", contentLUKS}}
	for s := range 4 { // LVM's label is in one of the first four sectors
		list = append(list, mark{s * 512, "LABELONE", contentLVM})
	}
	return append(list,
		mark{0, "\xfc\x4e\x2b\xa9", contentRAID}, // metadata 1.1
		mark{4096, "\xfc\x4e\x2b\xa9", contentRAID},
		mark{4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", contentBcache},
		mark{0, "XFSB", contentXFS},
		mark{65536 + 64, "_BHRfS_M", contentBtrfs},
		mark{1024 + 56, "\x53\xef", contentExt},
		mark{1024, "\x10\x20\xf5\xf2", contentF2FS},
		mark{1024, "\xe2\xe1\xf5\xe0", contentEROFS},
		mark{0, "hsqs", contentSquash},
		mark{4096 - 10, "SWAPSPACE2", contentSwap},
		mark{65536 - 10, "SWAPSPACE2", contentSwap},
		mark{3, "NTFS    ", contentNTFS},
		mark{54, "FAT", contentFAT},
		mark{82, "FAT32", contentFAT},
		mark{32769, "CD001", contentISO},
	)
}

// probeLen is how much of a partition the marks are in.
const probeLen = 256 << 10

// probe judges by the marks. Most of them are in the first bytes; ZFS has a row
// of them in its label.
func probe(r io.ReaderAt, size int64) (content, error) {
	head := make([]byte, min(size, probeLen))
	n, err := r.ReadAt(head, 0)
	if n < len(head) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return contentUnknown, fmt.Errorf("read the first bytes: %w", err)
	}
	for _, m := range marks() {
		if len(head) >= m.at+len(m.text) && string(head[m.at:m.at+len(m.text)]) == m.text {
			return m.is, nil
		}
	}
	for at := 128 << 10; at+8 <= len(head); at += 1024 { // uberblocks
		if binary.LittleEndian.Uint64(head[at:]) == 0x00bab10c || binary.BigEndian.Uint64(head[at:]) == 0x00bab10c {
			return contentZFS, nil
		}
	}
	return contentUnknown, nil
}
