package btrfs

import "container/list"

// cacheBytes is what the cache of metadata blocks may hold.
const cacheBytes = 8 << 20

// cache keeps the metadata blocks that were used last, by logical address.
type cache struct {
	limit   int
	order   *list.List // of *cached, the last used in front
	entries map[uint64]*list.Element
}

type cached struct {
	block uint64
	node  *node
}

// newCache makes a cache for blocks of nodeSize bytes.
func newCache(nodeSize int) *cache {
	return &cache{limit: cacheBytes / nodeSize, order: list.New(), entries: map[uint64]*list.Element{}}
}

// get returns nil for what is not there.
func (c *cache) get(block uint64) *node {
	e := c.entries[block]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).node
}

func (c *cache) add(block uint64, n *node) {
	if c.order.Len() >= c.limit {
		delete(c.entries, c.order.Remove(c.order.Back()).(*cached).block)
	}
	c.entries[block] = c.order.PushFront(&cached{block, n})
}
