package messaging

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// pending is one call that waits for its end. Servers of today send one
// message with result and ending; older ones send the result, then an ending
// without one; both are read, and the last result counts
// (oslo_messaging/_drivers/amqpdriver.py, _ReplyWaiter.wait).
type pending struct {
	beat chan struct{} // a sign of life
	done chan struct{} // closed at the end

	mu     sync.Mutex
	ended  bool            // +checklocks:mu
	result json.RawMessage // +checklocks:mu
	err    error           // +checklocks:mu
}

func newPending() *pending {
	return &pending{beat: make(chan struct{}, 1), done: make(chan struct{})}
}

// take puts one reply message in.
func (p *pending) take(r wireReply) {
	var err error
	if r.Failure != nil {
		remote, bad := decodeFailure(*r.Failure)
		err = bad
		if bad == nil {
			err = remote
		}
	}
	select {
	case p.beat <- struct{}{}:
	default:
	}
	if r.Ending {
		p.end(r.Result, err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep(r.Result, err)
}

// end finishes the call. What was kept before stays unless there is better.
func (p *pending) end(result json.RawMessage, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.ended = true
	p.keep(result, err)
	close(p.done)
}

// +checklocks:p.mu
func (p *pending) keep(result json.RawMessage, err error) {
	if err != nil {
		p.err = err
	}
	if result != nil {
		p.result = result
	}
}

// wait returns at the end of the call, of ctx, or after silence for the time
// monitor (0: silence is allowed).
func (p *pending) wait(ctx context.Context, monitor time.Duration) (json.RawMessage, error) {
	var silent <-chan time.Time
	var timer *time.Timer
	if monitor > 0 {
		timer = time.NewTimer(monitor)
		defer timer.Stop()
		silent = timer.C
	}
	for {
		select {
		case <-p.done:
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.result, p.err
		case <-p.beat:
			if timer != nil {
				timer.Reset(monitor)
			}
		case <-silent:
			return nil, fmt.Errorf("%w: no heartbeat for %s", ErrTimeout, monitor)
		case <-ctx.Done():
			return nil, timeout(ctx, ctx.Err())
		}
	}
}
