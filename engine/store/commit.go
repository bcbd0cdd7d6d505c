package store

import (
	"sync"

	bolt "go.etcd.io/bbolt"
)

// committer makes changes durable. bbolt waits for the disk twice for each
// transaction and lets one at a time do so; the changes that come meanwhile are
// made in one transaction then. One alone does not wait for others.
type committer struct {
	commit sync.Mutex // held by the transaction

	mu      sync.Mutex
	waiting []*change // guarded by mu
}

// change is a part of a transaction. It may be run more than once, and only the
// last time counts.
type change struct {
	fn   func(*bolt.Tx) error
	done bool // guarded by commit, as is err
	err  error
}

// do returns when fn is durable, or with its error; then nothing of fn has
// happened. run runs a transaction.
func (c *committer) do(fn func(*bolt.Tx) error, run func(func(*bolt.Tx) error) error) error {
	own := &change{fn: fn}
	c.mu.Lock()
	c.waiting = append(c.waiting, own)
	c.mu.Unlock()
	c.commit.Lock()
	defer c.commit.Unlock()
	if own.done { // by whom we have waited for
		return own.err
	}
	c.mu.Lock()
	batch := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	together := run(func(tx *bolt.Tx) error {
		for _, one := range batch {
			if err := one.fn(tx); err != nil {
				return err
			}
		}
		return nil
	})
	for _, one := range batch {
		one.done = true
		if one.err = together; together != nil && len(batch) > 1 {
			one.err = run(one.fn) // one fails, not its neighbours
		}
	}
	return own.err
}
