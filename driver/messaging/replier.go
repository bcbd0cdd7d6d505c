package messaging

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	replyPause     = 250 * time.Millisecond
	deadQueueTime  = 60 * time.Second
	deadQueueLimit = 200
	// replyPatience bounds how long a reply waits for a broker that is away;
	// nobody waits for an answer longer (long_rpc_timeout is 30 minutes).
	replyPatience = 30 * time.Minute
)

// replier sends replies. A reply queue that is missing may be on its way back,
// because its owner is reconnecting: the reply is tried again for retry. A
// queue that stayed away is not tried at all for a while
// (oslo_messaging/_drivers/amqpdriver.py, _send_reply and ObsoleteReplyQueuesCache).
type replier struct {
	transport Transport
	retry     time.Duration

	mu   sync.Mutex
	dead map[string]time.Time // +checklocks:mu
}

func newReplier(t Transport, retry time.Duration) *replier {
	return &replier{transport: t, retry: retry, dead: make(map[string]time.Time)}
}

// send returns nil when the reply is in the queue. ErrNoReplyQueue means that
// the caller is gone.
func (r *replier) send(ctx context.Context, queue string, body []byte) error {
	if r.isDead(queue) {
		return ErrNoReplyQueue
	}
	ctx, cancel := context.WithTimeout(ctx, replyPatience)
	defer cancel()
	var missingSince time.Time
	for {
		err := r.transport.Reply(ctx, queue, Message{Body: body})
		if !errors.Is(err, ErrNoReplyQueue) {
			return err
		}
		now := time.Now()
		if missingSince.IsZero() {
			missingSince = now
		}
		if now.Sub(missingSince) >= r.retry {
			r.bury(queue, now)
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(replyPause):
		}
	}
}

func (r *replier) isDead(queue string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.dead[queue]
	if ok && time.Since(at) >= deadQueueTime {
		delete(r.dead, queue)
		return false
	}
	return ok
}

func (r *replier) bury(queue string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.dead) >= deadQueueLimit {
		oldest := queue
		for q, at := range r.dead {
			if first, ok := r.dead[oldest]; !ok || at.Before(first) {
				oldest = q
			}
		}
		delete(r.dead, oldest)
	}
	r.dead[queue] = now
}
