package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// compression is the type of a compressed extent.
type compression uint8

const (
	compressNone compression = iota
	compressZlib
	compressLZO
	compressZstd
)

func (c compression) known() bool { return c <= compressZstd }

// String is the name that the mount option has.
func (c compression) String() string {
	return [...]string{"none", "zlib", "lzo", "zstd"}[c]
}

// expander expands extents. Its decoders are made when they are first needed.
type expander struct {
	zlib io.ReadCloser
	zstd *zstd.Decoder
	lzo  []byte // a piece, of which only the beginning is wanted
}

// expand fills out from in. What in expands to beyond out is not looked at,
// and what is missing is zero, as the kernel has it (linux/btrfs.h, struct
// btrfs_ioctl_encoded_io_args, unencoded_len). LZO is in pieces that fit
// sectors.
func (x *expander) expand(c compression, out, in []byte, sector int) error {
	var err error
	switch c {
	case compressZlib:
		err = x.expandZlib(out, in)
	case compressLZO:
		err = x.expandLZO(out, in, sector)
	case compressZstd:
		err = x.expandZstd(out, in)
	}
	if err != nil {
		return corrupt("%v: %v", c, err)
	}
	return nil
}

func (x *expander) expandZlib(out, in []byte) error {
	var err error
	if x.zlib == nil {
		x.zlib, err = zlib.NewReader(bytes.NewReader(in))
	} else {
		err = x.zlib.(zlib.Resetter).Reset(bytes.NewReader(in), nil)
	}
	if err != nil {
		return err
	}
	_, err = fill(out, x.zlib)
	return err
}

func (x *expander) expandZstd(out, in []byte) error {
	var err error
	if x.zstd == nil {
		// With one goroutine, the caller's, there is nothing to close.
		x.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxCompressed))
		if err != nil {
			return err
		}
	}
	// The frame ends where the data does, out where the sector does, and in up
	// to three bytes behind the frame: with zeros after it, the end of a frame
	// is always told from a frame that is cut off.
	if err := x.zstd.Reset(io.MultiReader(bytes.NewReader(in), bytes.NewReader(make([]byte, 4)))); err != nil {
		return err
	}
	n, err := fill(out, x.zstd)
	if n > 0 && errors.Is(err, zstd.ErrMagicMismatch) {
		return nil // the frame is over
	}
	return err
}

// fill reads all of out from r, or less if r comes to an orderly end. It says
// how much.
func fill(out []byte, r io.Reader) (n int, err error) {
	for n < len(out) && err == nil {
		var k int
		k, err = r.Read(out[n:])
		n += k
	}
	if n == len(out) || err == io.EOF {
		err = nil // what follows does not matter
	}
	return n, err
}

var errLZO = errors.New("the stream is damaged")

// expandLZO reads what btrfs calls LZO: a length of all, then pieces of up to
// a sector when expanded, each after its length, which does not cross sectors.
func (x *expander) expandLZO(out, in []byte, sector int) error {
	const number = 4
	le := binary.LittleEndian
	if len(in) < number || uint64(le.Uint32(in)) > uint64(len(in)) || le.Uint32(in) < number {
		return errLZO
	}
	in = in[:le.Uint32(in)]
	for at := number; at < len(in) && len(out) > 0; {
		if left := sector - at%sector; left < number {
			at += left
		}
		if len(in)-at < number {
			return errLZO
		}
		n := le.Uint32(in[at:])
		at += number
		if uint64(n) > uint64(len(in)-at) {
			return errLZO
		}
		piece := out
		if len(out) < sector {
			x.lzo = slices.Grow(x.lzo[:0], sector)
			piece = x.lzo
		}
		k, err := lzo1x(piece[:sector], in[at:at+int(n)])
		if err != nil {
			return err
		}
		out = out[copy(out, piece[:k]):]
		at += int(n)
	}
	return nil
}
