package fuse

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Operations (enum fuse_opcode).
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opOpen        = 14
	opRead        = 15
	opStatfs      = 17
	opRelease     = 18
	opInit        = 26
	opOpendir     = 27
	opReaddir     = 28
	opReleasedir  = 29
	opDestroy     = 38
	opBatchForget = 42
)

// Numbers of the protocol.
const (
	major, minor = 7, 31
	// fopenDirectIO: each read(2) is a request, whatever the size.
	fopenDirectIO = 1
	// parallelDirops: lookups and lists of one directory need not wait for one another.
	parallelDirops = 1 << 18

	inHeader  = 40
	outHeader = 16
	// maxWrite is the least that a kernel takes; nothing can be written.
	maxWrite = 4096
	// bufferSize is what a kernel wants to have room for (FUSE_MIN_READ_BUFFER).
	bufferSize = 8192
	maxAnswer  = 128 << 10
	statfsSize = 80
)

// validFor is how long a kernel may keep what never changes.
const validFor = time.Hour

// request is one request of the kernel's (struct fuse_in_header). data is what
// follows the header.
type request struct {
	op     uint32
	unique uint64
	node   uint64
	pid    int
	data   []byte
}

// parseRequest reads a request; errdefs.ErrCorrupt for what is none.
func parseRequest(b []byte) (request, error) {
	if len(b) < inHeader {
		return request{}, fmt.Errorf("request of %d bytes: %w", len(b), errdefs.ErrCorrupt)
	}
	le := binary.NativeEndian
	size := le.Uint32(b)
	if size < inHeader || int64(size) > int64(len(b)) {
		return request{}, fmt.Errorf("request of %d bytes in %d: %w", size, len(b), errdefs.ErrCorrupt)
	}
	return request{
		op: le.Uint32(b[4:]), unique: le.Uint64(b[8:]), node: le.Uint64(b[16:]), pid: int(le.Uint32(b[32:])), data: b[inHeader:size],
	}, nil
}

// name is the one of a lookup.
func (r request) name() (string, bool) {
	text, _, ok := bytes.Cut(r.data, []byte{0})
	return string(text), ok && validName(string(text))
}

// readRequest is a struct fuse_read_in.
type readRequest struct {
	handle, offset uint64
	size           int
}

func (r request) read() (readRequest, bool) {
	if len(r.data) < 24 {
		return readRequest{}, false
	}
	le := binary.NativeEndian
	return readRequest{le.Uint64(r.data), le.Uint64(r.data[8:]), int(min(le.Uint32(r.data[16:]), maxAnswer))}, true
}

// handle is the first field of a struct fuse_release_in.
func (r request) handle() uint64 {
	if len(r.data) < 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(r.data)
}

// answer is a struct fuse_out_header with what follows, which is nothing where
// number is an error.
func answer(b []byte, unique uint64, number unix.Errno, body func([]byte) []byte) []byte {
	b = append(b[:0], make([]byte, outHeader)...)
	if number == 0 && body != nil {
		b = body(b)
	}
	le := binary.NativeEndian
	le.PutUint32(b, uint32(len(b)))
	le.PutUint32(b[4:], uint32(-int32(number)))
	le.PutUint64(b[8:], unique)
	return b
}

// appendAttr appends a struct fuse_attr: owned by the host's root, readable by
// all.
func appendAttr(b []byte, e Entry, size int) []byte {
	le := binary.NativeEndian
	mode, links := uint32(unix.S_IFREG|0o444), uint32(1)
	if e.Dir {
		mode, links = unix.S_IFDIR|0o555, 2
	}
	b = le.AppendUint64(b, e.Node)
	b = le.AppendUint64(b, uint64(size))
	b = append(b, make([]byte, 4*8+3*4)...) // blocks, times
	b = le.AppendUint32(b, mode)
	b = le.AppendUint32(b, links)
	b = append(b, make([]byte, 3*4)...) // owner and device
	b = le.AppendUint32(b, 4096)
	return le.AppendUint32(b, 0)
}

// appendEntry appends a struct fuse_entry_out.
func appendEntry(b []byte, e Entry) []byte {
	le := binary.NativeEndian
	valid := uint64(validFor / time.Second)
	if e.May {
		valid = 0
	}
	b = le.AppendUint64(b, e.Node)
	b = le.AppendUint64(b, 0) // generation
	b = le.AppendUint64(b, valid)
	b = le.AppendUint64(b, attrValid(e))
	b = le.AppendUint64(b, 0)
	return appendAttr(b, e, 0)
}

// attrValid is for how many seconds a kernel may keep attributes: of a file it
// asks at each open, for its size.
func attrValid(e Entry) uint64 {
	if e.Dir {
		return uint64(validFor / time.Second)
	}
	return 0
}

// appendAttrOut appends a struct fuse_attr_out.
func appendAttrOut(b []byte, e Entry, size int) []byte {
	b = binary.NativeEndian.AppendUint64(b, attrValid(e))
	b = append(b, make([]byte, 8)...)
	return appendAttr(b, e, size)
}

// appendOpen appends a struct fuse_open_out.
func appendOpen(b []byte, handle uint64, flags uint32) []byte {
	b = binary.NativeEndian.AppendUint64(b, handle)
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, 0)
}

// appendInit appends a struct fuse_init_out.
func appendInit(b []byte) []byte {
	le := binary.NativeEndian
	b = le.AppendUint32(b, major)
	b = le.AppendUint32(b, minor)
	b = le.AppendUint32(b, 0) // read-ahead
	b = le.AppendUint32(b, parallelDirops)
	b = le.AppendUint16(b, 64) // requests in the background: releases
	b = le.AppendUint16(b, 48)
	b = le.AppendUint32(b, maxWrite)
	b = le.AppendUint32(b, 1) // nanoseconds
	return append(b, make([]byte, 36)...)
}

// appendDir appends the entries of a directory from offset on that fit into size
// (struct fuse_dirent).
func appendDir(b []byte, list []Entry, offset uint64, size int) []byte {
	le := binary.NativeEndian
	for i, e := range list {
		if uint64(i) < offset {
			continue
		}
		length := (24 + len(e.Name) + 7) &^ 7
		if size -= length; size < 0 {
			break
		}
		kind := uint32(unix.DT_REG)
		if e.Dir {
			kind = unix.DT_DIR
		}
		b = le.AppendUint64(b, e.Node)
		b = le.AppendUint64(b, uint64(i)+1)
		b = le.AppendUint32(b, uint32(len(e.Name)))
		b = le.AppendUint32(b, kind)
		b = append(b, e.Name...)
		b = append(b, make([]byte, length-24-len(e.Name))...)
	}
	return b
}
