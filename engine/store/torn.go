package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// What is read of bbolt's file format itself (bbolt internal/common: page.go,
// Page, and meta.go, Meta): a meta page has a header of 16 bytes, then magic,
// version, page size and flags of 4 bytes each, root (16), freelist (8), the
// number of pages (8), the transaction (8) and the checksum of all before (8).
// The numbers are in the host's order of bytes.
const (
	metaHeader = 16
	metaPages  = 40
	metaTxid   = 48
	metaSum    = 56
	metaEnd    = 64
	boltMagic  = 0xED0CDAED
	minPage    = 512
	maxPage    = 64 << 10
)

// checkMeta finds a file that was cut off: bbolt would map it and fault. An
// absent and an empty file are in order; a file without a valid meta page is
// for bbolt to judge.
func checkMeta(name string) (err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return diskError(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	need := pagesOf(f) // before the size: another process may make the file longer
	info, err := f.Stat()
	if err != nil {
		return diskError(err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("not a file: %w", errdefs.ErrCorrupt)
	}
	if info.Size() < need {
		return fmt.Errorf("the database is torn: %d bytes, at least %d are in use: %w", info.Size(), need, errdefs.ErrCorrupt)
	}
	return nil
}

// pagesOf returns how long the file of the newest valid meta page must be.
func pagesOf(r io.ReaderAt) (bytes int64) {
	var newest uint64
	take := func(at int64) {
		pages, size, txid, ok := metaAt(r, at)
		if ok && txid >= newest {
			newest, bytes = txid, int64(pages)*size //nolint:gosec // a sum that is off is refused below as well
		}
	}
	take(0)
	// the second page tells the size of pages when the first is damaged
	for at := int64(minPage); at <= maxPage; at *= 2 {
		take(at)
	}
	return bytes
}

func metaAt(r io.ReaderAt, at int64) (pages uint64, size int64, txid uint64, ok bool) {
	page := make([]byte, metaHeader+metaEnd)
	if _, err := r.ReadAt(page, at); err != nil {
		return 0, 0, 0, false
	}
	meta := page[metaHeader:]
	order := binary.NativeEndian
	sum := fnv.New64a()
	_, _ = sum.Write(meta[:metaSum]) // a hash never fails
	if order.Uint32(meta) != boltMagic || order.Uint64(meta[metaSum:]) != sum.Sum64() {
		return 0, 0, 0, false
	}
	size = int64(order.Uint32(meta[8:]))
	if at != 0 && at != size {
		return 0, 0, 0, false // a page that looks like one
	}
	return order.Uint64(meta[metaPages:]), size, order.Uint64(meta[metaTxid:]), true
}

// readAll touches every key and value.
func readAll(tx *bolt.Tx) error {
	return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			_, _ = checksum(k), checksum(v)
			return nil
		})
	})
}
