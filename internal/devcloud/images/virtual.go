package images

import (
	"bytes"
	"encoding/binary"
)

// prefix keeps the first bytes that are written to it.
type prefix struct{ data []byte }

// Write implements io.Writer.
func (p *prefix) Write(b []byte) (int, error) {
	if room := 32 - len(p.data); room > 0 {
		p.data = append(p.data, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

// virtualSize is how large the disk of an image is, if that can be told from
// its first bytes: of raw images the size, of qcow2 the field at 24 of the
// header (qemu, docs/interop/qcow2.txt).
func virtualSize(i *Image, size int64, head []byte) *int64 {
	if i.DiskFormat == nil || i.ContainerFormat == nil || *i.ContainerFormat != "bare" {
		return nil
	}
	switch *i.DiskFormat {
	case "raw", "iso":
		return &size
	case "qcow2":
		if len(head) < 32 || !bytes.HasPrefix(head, []byte("QFI\xfb")) {
			return nil
		}
		n := int64(binary.BigEndian.Uint64(head[24:]) & (1<<63 - 1))
		return &n
	}
	return nil
}
