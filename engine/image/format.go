package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// compression of a stream, decided by its first bytes.
type compression string

const (
	plain compression = ""
	gz    compression = "gzip"
	xzip  compression = "xz"
	zst   compression = "zstd"
	bz2   compression = "bzip2"
)

// sniffLen is how much of a file sniff wants to see.
const sniffLen = 68 << 10

// sniffed is what the first bytes of a file are.
type sniffed struct {
	compression compression
	tar         bool   // plain and begins with a tar header
	disk        string // name of a disk image format, or empty
}

// sniff decides by content. Marks of disk images at offset 0 come first: no
// tar header begins with them; weaker marks count only for what is no tar.
func sniff(head []byte) sniffed {
	if d := diskAtZero(head); d != "" {
		return sniffed{disk: d}
	}
	if c := sniffCompression(head); c != plain {
		return sniffed{compression: c}
	}
	if isTar(head) {
		return sniffed{tar: true}
	}
	return sniffed{disk: diskElsewhere(head)}
}

// SniffLen is how much of a file IsDisk wants to see.
const SniffLen = sniffLen

// IsDisk says whether the first bytes of a file are those of a disk image of a
// format that is read.
func IsDisk(head []byte) bool {
	kind := sniff(head).disk
	return kind == diskRaw || kind == diskQCOW2
}

func sniffCompression(head []byte) compression {
	has := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case has("\x1f\x8b\x08"):
		return gz
	case has("\xfd7zXZ\x00"):
		return xzip
	case has("\x28\xb5\x2f\xfd"):
		return zst
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && has(string(head[0])+"\x2a\x4d\x18"):
		return zst // skippable frame
	case has("BZh") && len(head) > 3 && head[3] >= '1' && head[3] <= '9':
		return bz2
	}
	return plain
}

// isTar checks the checksum of the first header, which old tar formats without
// the magic "ustar" have too. A stream of zeros is an empty archive, not one
// that can boot.
func isTar(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	h := head[:512]
	var want int64
	field := bytes.Trim(h[148:156], " \x00")
	if len(field) == 0 {
		return false
	}
	for _, c := range field {
		if c < '0' || c > '7' {
			return false
		}
		want = want<<3 | int64(c-'0')
	}
	var unsigned, signed int64
	for i, c := range h {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

// diskAtZero knows the magic numbers at the beginning of disk image formats.
// Sources: QEMU docs/interop/qcow2.txt, vmdk and vhdx specifications, and the
// file systems' own headers.
func diskAtZero(head []byte) string {
	for _, m := range []struct{ magic, name string }{
		{"QFI\xfb", diskQCOW2},
		{"KDMV", "vmdk"},
		{"COWD", "vmdk"},
		{"# Disk DescriptorFile", "vmdk"},
		{"vhdxfile", "vhdx"},
		{"conectix", "vhd"},
		{"QED\x00", "qed"},
		{"hsqs", "squashfs"},
		{"XFSB", diskRaw},
		{"LUKS\xba\xbe", "luks"},
		{"WithoutFreeSpace", "ploop"},
		{"WithouFreSpacExt", "ploop"},
	} {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.name
		}
	}
	if len(head) > 0x44 && binary.LittleEndian.Uint32(head[0x40:]) == 0xbeda107f {
		return "vdi"
	}
	return ""
}

// diskElsewhere knows the weaker marks of raw disks and file systems.
func diskElsewhere(head []byte) string {
	at := func(off int, magic string) bool {
		return len(head) >= off+len(magic) && string(head[off:off+len(magic)]) == magic
	}
	switch {
	case at(32769, "CD001"):
		return "iso"
	case at(512, "LABELONE"):
		return "LVM"
	case at(512, "EFI PART"), at(510, "\x55\xaa"), at(1080, "\x53\xef"), at(65600, "_BHRfS_M"):
		return diskRaw
	}
	return ""
}

// readHead returns the first bytes of a file for sniff.
func readHead(r io.ReaderAt, size int64) ([]byte, error) {
	head := make([]byte, min(size, sniffLen))
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read image: %w", err)
	}
	return head[:n], nil
}

// checkContent refuses what can never be opened as an image here.
func checkContent(s sniffed, opts OpenOptions) error {
	switch {
	case s.disk != "":
		return checkDisk(s.disk, opts)
	case s.compression == plain && !s.tar:
		return refuse(errdefs.ErrInvalid, "the format of the image is not known: it is neither a tar archive, plain or compressed, nor a disk image")
	}
	// A file that is declared to be a disk image and is an archive may be a
	// polyglot made to be read in two ways.
	disks := []string{diskQCOW2, "vmdk", "vhd", "vhdx", "vdi", "iso", "ploop", "ami", "aki", "ari"}
	if slices.Contains(disks, opts.DiskFormat) {
		return refuse(errdefs.ErrInvalid, "the image is declared to have the disk_format %s, but its content is an archive", opts.DiskFormat)
	}
	switch opts.ContainerFormat {
	case "", "docker", "bare":
		return nil
	}
	return refuse(errdefs.ErrUnsupported, "images with the container_format %q are not supported; use docker or bare", opts.ContainerFormat)
}

// checkKind compares what the content is with what was declared.
func checkKind(k Kind, opts OpenOptions) error {
	switch {
	case opts.ContainerFormat == "docker" && k == Rootfs:
		return refuse(errdefs.ErrInvalid, "the image is declared to have the container_format docker, but its content is a %s; use bare", k)
	case opts.ContainerFormat == "bare" && k != Rootfs:
		return refuse(errdefs.ErrInvalid, "the image is declared to have the container_format bare, but its content is a %s; use docker", k)
	}
	return nil
}

// refuse makes an error whose text a tenant may read.
func refuse(class error, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	return errdefs.WithPublic(fmt.Errorf("open image: %w", class), text)
}

// damaged says that an image is not what its own digests or formats say.
func damaged(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return errdefs.WithPublic(fmt.Errorf("open image: %w: %w", errdefs.ErrCorrupt, err), "the image is damaged: "+err.Error())
}
