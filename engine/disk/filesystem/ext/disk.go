package ext

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	chunkSize  = 16 << 10
	cacheBytes = 8 << 20
)

// disk reads metadata through a cache of chunks.
type disk struct {
	r         io.ReaderAt
	size      int64 // whole blocks
	blockSize int
	chunk     int64 // a multiple of the block size

	chunks map[int64][]byte
	ring   []int64 // the keys of chunks in the order of their reading
	oldest int
}

func newDisk(r io.ReaderAt, size int64, blockSize int) *disk {
	return &disk{r: r, size: size, blockSize: blockSize, chunk: int64(max(chunkSize, blockSize)), chunks: map[int64][]byte{}}
}

// bytes returns length bytes at off, within one block. They are not to be
// changed, and stay as they are.
func (d *disk) bytes(off int64, length int) ([]byte, error) {
	if off < 0 || off > d.size-int64(length) {
		return nil, corrupt("byte %d is outside of the file system", off)
	}
	n := off / d.chunk
	c, ok := d.chunks[n]
	if !ok {
		c = make([]byte, min(d.chunk, d.size-n*d.chunk))
		if k, err := d.r.ReadAt(c, n*d.chunk); err != nil && (!errors.Is(err, io.EOF) || k < len(c)) {
			return nil, fmt.Errorf("read at %d: %w", n*d.chunk, err)
		}
		d.keep(n, c)
	}
	off -= n * d.chunk
	return c[off : off+int64(length) : off+int64(length)], nil
}

func (d *disk) keep(n int64, c []byte) {
	if len(d.ring) < int(cacheBytes/d.chunk) {
		d.ring = append(d.ring, n)
	} else {
		delete(d.chunks, d.ring[d.oldest])
		d.ring[d.oldest] = n
		d.oldest = (d.oldest + 1) % len(d.ring)
	}
	d.chunks[n] = c
}

// block returns a whole block.
func (d *disk) block(n uint64) ([]byte, error) {
	if n > uint64(d.size)/uint64(d.blockSize) {
		return nil, corrupt("block %d is outside of the file system", n)
	}
	return d.bytes(int64(n)*int64(d.blockSize), d.blockSize)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the kernel's crc32c: without inversion before and after.
func checksum(seed uint32, p []byte) uint32 { return ^crc32.Update(^seed, castagnoli, p) }

var zero4 [4]byte
