package messaging

import "sync"

// recall remembers the last ids seen. Stock remembers 16 for each listener
// (oslo_messaging/_drivers/amqp.py, _MsgIdCache); we keep more, because one
// cache serves all queues of a process and an id costs 32 bytes.
type recall struct {
	mu   sync.Mutex
	seen map[string]struct{} // +checklocks:mu
	ring []string            // +checklocks:mu
	next int                 // +checklocks:mu
}

const recallSize = 1024

func newRecall() *recall {
	return &recall{seen: make(map[string]struct{}), ring: make([]string, recallSize)}
}

// first remembers id and reports whether it was unknown. The empty id is
// always unknown: not every sender gives one.
func (r *recall) first(id string) bool {
	if id == "" {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.seen[id]; ok {
		return false
	}
	delete(r.seen, r.ring[r.next])
	r.ring[r.next] = id
	r.seen[id] = struct{}{}
	r.next = (r.next + 1) % len(r.ring)
	return true
}
