package dns

import (
	"net/netip"
	"sync"
	"time"
)

// limit bounds questions: of each address in time, and of all at once.
type limit struct {
	mu    sync.Mutex // guards all below
	now   int        // being answered
	asked map[netip.Addr]bucket
	swept time.Time
}

// bucket is how many questions are left of an address, at a time.
type bucket struct {
	left float64
	at   time.Time
}

func newLimit() limit { return limit{asked: map[netip.Addr]bucket{}} }

// enter reports whether a question may be answered; leave then follows.
func (l *limit) enter(a netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	b, known := l.asked[a]
	if !known {
		b = bucket{mostAtATime, now}
	}
	b.left = min(mostAtATime, b.left+now.Sub(b.at).Seconds()*mostPerSecond)
	b.at = now
	ok := b.left >= 1 && l.now < mostAtOnce
	if ok {
		b.left--
		l.now++
	}
	l.asked[a] = b
	return ok
}

func (l *limit) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now--
}

// sweep forgets, now and then, who has been silent for long enough to have all
// back. Guests of IPv6 may have as many addresses as they like.
func (l *limit) sweep(now time.Time) {
	const pause = mostAtATime / mostPerSecond * time.Second
	if now.Sub(l.swept) < pause {
		return
	}
	l.swept = now
	for a, b := range l.asked {
		if now.Sub(b.at) >= pause {
			delete(l.asked, a)
		}
	}
}
