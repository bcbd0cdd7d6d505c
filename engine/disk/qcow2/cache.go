package qcow2

import "container/list"

// cache keeps the byte slices that were used last.
type cache struct {
	most  int
	byKey map[uint64]*list.Element
	order *list.List // of cached, the one used last in front
}

type cached struct {
	key  uint64
	data []byte
}

func newCache(most int) cache {
	return cache{most: most, byKey: map[uint64]*list.Element{}, order: list.New()}
}

func (c *cache) get(key uint64) ([]byte, bool) {
	e, ok := c.byKey[key]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(cached).data, true
}

// put adds what get did not find.
func (c *cache) put(key uint64, data []byte) {
	if c.order.Len() >= c.most {
		last := c.order.Back()
		delete(c.byKey, last.Value.(cached).key)
		c.order.Remove(last)
	}
	c.byKey[key] = c.order.PushFront(cached{key, data})
}
