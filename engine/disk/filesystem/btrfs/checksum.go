package btrfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/crypto/blake2b"
)

// checksum is the algorithm that protects metadata, as numbered in the
// superblock.
type checksum uint16

const (
	checksumCRC32C checksum = iota
	checksumXXHash
	checksumSHA256
	checksumBLAKE2
)

func (c checksum) known() bool { return c <= checksumBLAKE2 }

// matches says whether the block b begins with its checksum, which takes up to
// 32 bytes and covers what follows them.
func (c checksum) matches(b []byte) bool {
	var sum [32]byte
	var n int
	switch c {
	case checksumCRC32C:
		n = 4
		binary.LittleEndian.PutUint32(sum[:], crc32.Checksum(b[32:], crc32.MakeTable(crc32.Castagnoli)))
	case checksumXXHash:
		n = 8
		binary.LittleEndian.PutUint64(sum[:], xxhash.Sum64(b[32:]))
	case checksumSHA256:
		n, sum = 32, sha256.Sum256(b[32:])
	case checksumBLAKE2:
		n, sum = 32, blake2b.Sum256(b[32:])
	}
	return bytes.Equal(sum[:n], b[:n])
}
