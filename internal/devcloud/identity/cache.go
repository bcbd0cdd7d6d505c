package identity

import (
	"sync"
	"time"
)

// mostSessions is how many tokens are kept in memory.
const mostSessions = 8192

// cache holds what valid tokens say. A change of anything that could make one
// say something else empties it; what was read from the database before that
// change does not get in after it.
type cache struct {
	mu sync.RWMutex
	// +checklocks:mu
	epoch uint64
	// +checklocks:mu
	sessions map[tokenHash]*session
}

// get returns the session and, for put, the epoch in which it is asked for.
func (c *cache) get(h tokenHash, now time.Time) (*session, uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if s := c.sessions[h]; s != nil && now.Before(s.Expires) {
		return s, c.epoch
	}
	return nil, c.epoch
}

func (c *cache) put(h tokenHash, s *session, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch {
		return
	}
	if c.sessions == nil || len(c.sessions) >= mostSessions {
		c.sessions = map[tokenHash]*session{}
	}
	c.sessions[h] = s
}

func (c *cache) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.sessions = nil
}
