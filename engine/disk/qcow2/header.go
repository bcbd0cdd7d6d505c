package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Bits of incompatible_features.
const (
	featureDirty = 1 << iota // of the reference counts, which are not read
	featureCorrupt
	featureDataFile
	featureCompression
	featureExtended
)

// Types of header extensions that change what the image is.
const (
	extensionEnd      = 0
	extensionLUKS     = 0x0537be77
	extensionDataFile = 0x44415441
)

// Lengths of the header: of version 2, and the part of version 3 that always
// exists.
const (
	headerV2 = 72
	headerV3 = 104
)

// Bounds that QEMU has too, for the cluster size and for the first table.
const (
	minClusterBits, maxClusterBits = 9, 21
	minExtendedBits                = 14
	maxL1                          = 32 << 20 / 8
	maxExtensions                  = 256
)

// header is what of the image's header is needed for reading.
type header struct {
	clusterBits uint
	size        int64
	l1Offset    int64
	l1Entries   int64
	v3          bool
	extended    bool
	zstd        bool
}

// readHeader reads and checks the header of an image that is size bytes long.
func readHeader(r io.ReaderAt, size int64) (*header, error) {
	raw := make([]byte, headerV3+8)
	n, err := r.ReadAt(raw, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read qcow2 header: %w", err)
	}
	raw = raw[:n]
	if len(raw) < headerV2 || string(raw[:4]) != Magic {
		return nil, corrupt("it has no header")
	}
	be := binary.BigEndian
	version, length := be.Uint32(raw[4:]), uint32(headerV2)
	var features uint64
	switch version {
	case 2:
	case 3:
		if len(raw) < headerV3 {
			return nil, corrupt("its header is cut off")
		}
		features, length = be.Uint64(raw[72:]), be.Uint32(raw[100:])
	default:
		return nil, refuse(errdefs.ErrUnsupported, "the disk image is qcow2 of version %d; versions 2 and 3 are supported", version)
	}
	if err := checkSelfContained(raw, features); err != nil {
		return nil, err
	}
	h := &header{
		clusterBits: uint(be.Uint32(raw[20:])), l1Entries: int64(be.Uint32(raw[36:])),
		v3: version == 3, extended: features&featureExtended != 0,
	}
	if h.zstd, err = compression(raw, features, length); err != nil {
		return nil, err
	}
	if err := h.geometry(be.Uint64(raw[24:]), be.Uint64(raw[40:]), size); err != nil {
		return nil, err
	}
	if length < headerV2 || length%8 != 0 || version == 3 && length < headerV3 || int64(length) > h.cluster() {
		return nil, corrupt("its header is said to have %d bytes", length)
	}
	return h, checkExtensions(r, int64(length), min(h.cluster(), size))
}

// checkSelfContained refuses what needs anything but this file to be read.
func checkSelfContained(raw []byte, features uint64) error {
	be := binary.BigEndian
	switch {
	case be.Uint64(raw[8:]) != 0 || be.Uint32(raw[16:]) != 0:
		return refuse(errdefs.ErrInvalid, "the disk image has a backing file; it must hold all of its data itself")
	case features&featureDataFile != 0:
		return refuse(errdefs.ErrInvalid, "the disk image keeps its data in another file; it must hold all of its data itself")
	case be.Uint32(raw[32:]) != 0:
		return refuse(errdefs.ErrInvalid, "the disk image is encrypted")
	case features&featureCorrupt != 0:
		return corrupt("it is marked so by who wrote it last; qemu-img check -r all may repair it")
	case features >= featureExtended<<1:
		return refuse(errdefs.ErrUnsupported, "the disk image uses unknown features of qcow2 (%#x)", features)
	}
	return nil
}

// compression says whether compressed clusters are zstd.
func compression(raw []byte, features uint64, length uint32) (bool, error) {
	var kind byte
	if length > headerV3 && len(raw) > headerV3 {
		kind = raw[headerV3]
	}
	switch {
	case kind > 1:
		return false, refuse(errdefs.ErrUnsupported, "the disk image uses the unknown compression %d", kind)
	case (kind != 0) != (features&featureCompression != 0):
		return false, corrupt("its header contradicts itself about the compression")
	}
	return kind == 1, nil
}

// geometry checks the sizes and takes them over. l1 is the offset of the first
// table, size the length of the file.
func (h *header) geometry(virtual, l1 uint64, size int64) error {
	least := uint(minClusterBits)
	if h.extended {
		least = minExtendedBits
	}
	if h.clusterBits < least || h.clusterBits > maxClusterBits {
		return corrupt("its clusters are said to be of 2^%d bytes", h.clusterBits)
	}
	if virtual > 1<<62 || h.l1Entries > maxL1 {
		return refuse(errdefs.ErrInvalid, "the disk image is too large: %d bytes", virtual)
	}
	h.size = int64(virtual)
	if l1%uint64(h.cluster()) != 0 || l1 > uint64(size) || h.l1Entries*8 > size-int64(l1) {
		return corrupt("its first table is said to be at %d, with %d entries", l1, h.l1Entries)
	}
	h.l1Offset = int64(l1)
	if spans := h.cluster() * h.l2Entries(); (h.size+spans-1)/spans > h.l1Entries {
		return corrupt("its first table is too short for %d bytes", h.size)
	}
	return nil
}

// cluster is the length of a cluster, and of a second table, in bytes.
func (h *header) cluster() int64 { return 1 << h.clusterBits }

// l2Entries is how many clusters a second table maps.
func (h *header) l2Entries() int64 { return h.cluster() / h.entrySize() }

func (h *header) entrySize() int64 {
	if h.extended {
		return 16
	}
	return 8
}

// checkExtensions looks for header extensions that refer to other files or keys,
// from the end of the header to the end of the first cluster. Unknown ones are
// to be ignored (the specification, "Header extensions").
func checkExtensions(r io.ReaderAt, off, end int64) error {
	var head [8]byte
	for range maxExtensions {
		if off+8 > end {
			return nil
		}
		if _, err := r.ReadAt(head[:], off); err != nil {
			return fmt.Errorf("read qcow2 header extension: %w", err)
		}
		kind, length := binary.BigEndian.Uint32(head[:]), int64(binary.BigEndian.Uint32(head[4:]))
		switch {
		case kind == extensionEnd:
			return nil
		case kind == extensionDataFile:
			return refuse(errdefs.ErrInvalid, "the disk image keeps its data in another file; it must hold all of its data itself")
		case kind == extensionLUKS:
			return refuse(errdefs.ErrInvalid, "the disk image is encrypted")
		case length > end-off-8:
			return corrupt("a header extension is said to have %d bytes", length)
		}
		off += 8 + (length+7)&^7
	}
	return corrupt("it has more than %d header extensions", maxExtensions)
}
