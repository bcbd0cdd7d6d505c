package store

import (
	"iter"

	bolt "go.etcd.io/bbolt"
)

// Decode is decode, for the fuzz target.
func Decode(stored []byte, v any) error { return decode(stored, v) }

// FreeBlock is freeBlock: filling a store up would take minutes.
func FreeBlock(taken iter.Seq[uint32]) (uint32, error) { return freeBlock(taken) }

// Hold lets no transaction begin until release is called; waiting tells how many
// changes do.
func (b *Bolt) Hold() (waiting func() int, release func()) {
	b.changes.commit.Lock()
	return func() int {
		b.changes.mu.Lock()
		defer b.changes.mu.Unlock()
		return len(b.changes.waiting)
	}, b.changes.commit.Unlock
}

// Transactions is how many have been written.
func (b *Bolt) Transactions() (n int) {
	_ = b.db.View(func(tx *bolt.Tx) error { n = tx.ID(); return nil })
	return n
}
