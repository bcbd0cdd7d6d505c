package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
)

// plan is what a subscription consumes and how that comes to exist. Names are
// chosen once, so that after a reconnect the queues are the same.
type plan struct {
	queues []planned
}

// planned is one queue.
type planned struct {
	name  string
	props properties
	// own says that the name is ours alone: the queue is declared and not
	// adopted. remove says that it is deleted at a clean end.
	own, remove bool
	// exchange that it is bound to by key; none for a reply queue.
	exchange, kind, key string
	exchangeProps       properties
}

// subscription keeps the consumers of a plan on a link: it sets them up,
// delivers until its AMQP channel or one of its consumers ends, and sets them
// up again.
type subscription struct {
	link    *link
	plan    plan
	opts    Options
	log     zerolog.Logger
	deliver func(messaging.Delivery)
	ready   chan struct{} // closed when the consumers run for the first time
	cancel  context.CancelFunc
	done    chan struct{} // closed when run has returned

	gate  sync.RWMutex // held while delivering
	ended bool         // guarded by gate
	once  sync.Once
}

func newSubscription(l *link, o Options, p plan, deliver func(messaging.Delivery)) *subscription {
	return &subscription{
		link: l, plan: p, opts: o, log: l.log, deliver: deliver,
		ready: make(chan struct{}), done: make(chan struct{}),
	}
}

// run consumes until ctx ends.
func (s *subscription) run(ctx context.Context) {
	defer close(s.done)
	for failures := 0; ; {
		sess, err := s.link.session(ctx)
		if err != nil {
			return
		}
		worked, err := s.consume(ctx, sess)
		if ctx.Err() != nil {
			return
		}
		if worked {
			failures = 0
		}
		s.log.Warn().Err(err).Str("queue", s.plan.queues[0].name).Msg("consumers ended, setting up again")
		// The first time at once: a broken connection has its own pauses.
		if failures > 0 && !sleep(ctx, s.link.pace.after(failures-1)) {
			return
		}
		failures++
	}
}

var errCancelled = errors.New("broker cancelled a consumer")

// consume sets the plan up on sess and delivers until something ends. worked
// says that it came to delivering.
func (s *subscription) consume(ctx context.Context, sess *session) (worked bool, err error) {
	if err := s.declare(sess); err != nil {
		return false, err
	}
	ch, err := sess.conn.Channel()
	if err != nil {
		return false, fmt.Errorf("open channel: %w", err)
	}
	defer ch.Close()
	if s.opts.PrefetchCount > 0 {
		if err := ch.Qos(s.opts.PrefetchCount, 0, false); err != nil {
			return false, fmt.Errorf("set prefetch: %w", err)
		}
	}
	closes := ch.NotifyClose(make(chan *amqp.Error, 1))
	ended := make(chan struct{}, len(s.plan.queues))
	var running sync.WaitGroup
	defer running.Wait()
	defer ch.Close() // ends the goroutines that running waits for
	for _, q := range s.plan.queues {
		deliveries, err := ch.Consume(q.name, "", false, false, false, false, nil)
		if err != nil {
			return false, fmt.Errorf("consume queue %s: %w", q.name, err)
		}
		running.Go(func() {
			for d := range deliveries {
				s.hand(d)
			}
			ended <- struct{}{}
		})
	}
	s.markReady()
	select {
	case e := <-closes:
		if e == nil {
			return true, errRetry
		}
		return true, e
	case <-ended:
		return true, errCancelled
	case <-ctx.Done():
		s.tidy(ch)
		return true, nil
	}
}

// declare makes the exchanges, queues and bindings of the plan exist.
func (s *subscription) declare(sess *session) error {
	a := adopterOn(sess)
	defer a.close()
	for _, q := range s.plan.queues {
		if q.exchange != "" {
			if err := a.exchange(q.exchange, q.kind, q.exchangeProps); err != nil {
				return err
			}
		}
		if q.own {
			err := a.on(func(ch declarer) error {
				_, err := ch.QueueDeclare(q.name, q.props.durable, q.props.autoDelete, false, false, q.props.args)
				return err
			})
			if err != nil {
				return fmt.Errorf("declare queue %s: %w", q.name, err)
			}
		} else if err := a.queue(q.name, q.props); err != nil {
			return err
		}
		if q.exchange != "" {
			if err := a.bind(q.name, q.key, q.exchange); err != nil {
				return err
			}
		}
	}
	return nil
}

// tidy deletes what goes with the subscription.
func (s *subscription) tidy(ch *amqp.Channel) {
	for _, q := range s.plan.queues {
		if !q.remove {
			continue
		}
		if _, err := ch.QueueDelete(q.name, false, false, false); err != nil {
			s.log.Debug().Err(err).Str("queue", q.name).Msg("queue not deleted, it will expire")
			return
		}
	}
}

func (s *subscription) markReady() {
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
}

// hand delivers one message unless the subscription has ended; then the
// message stays unacknowledged and goes back to its queue.
func (s *subscription) hand(d amqp.Delivery) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.ended {
		return
	}
	s.deliver(messaging.NewDelivery(d.Body, d.Redelivered, func() error { return d.Ack(false) }))
}

// stop ends the deliveries and begins the end of run. Idempotent.
func (s *subscription) stop() {
	s.once.Do(func() {
		s.gate.Lock()
		s.ended = true
		s.gate.Unlock()
		s.cancel()
	})
}

// Close implements messaging.Subscription.
func (s *subscription) Close(ctx context.Context) error {
	s.stop()
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end subscription of %s: %w", s.plan.queues[0].name, ctx.Err())
	}
}
