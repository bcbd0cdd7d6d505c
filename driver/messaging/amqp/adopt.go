package amqp

import (
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// declarer is what adopting needs of *amqp.Channel.
type declarer interface {
	ExchangeDeclare(name, kind string, durable, autoDelete, internal, noWait bool, args amqp.Table) error
	ExchangeDeclarePassive(name, kind string, durable, autoDelete, internal, noWait bool, args amqp.Table) error
	QueueDeclare(name string, durable, autoDelete, exclusive, noWait bool, args amqp.Table) (amqp.Queue, error)
	QueueDeclarePassive(name string, durable, autoDelete, exclusive, noWait bool, args amqp.Table) (amqp.Queue, error)
	QueueBind(name, key, exchange string, noWait bool, args amqp.Table) error
	Close() error
}

// adopter makes sure that shared exchanges and queues exist. One that exists
// is taken as it is: a passive declaration compares no properties. Refusals
// close an AMQP channel, so it works on throw-away ones. Not for concurrent use.
type adopter struct {
	open func() (declarer, error)
	ch   declarer // nil when the last one was closed by a refusal
}

func adopterOn(s *session) *adopter {
	return &adopter{open: func() (declarer, error) { return s.conn.Channel() }}
}

// exchange adopts or makes an exchange.
func (a *adopter) exchange(name, kind string, p properties) error {
	err := a.adopt(
		func(ch declarer) error {
			return ch.ExchangeDeclarePassive(name, kind, p.durable, p.autoDelete, false, false, p.args)
		},
		func(ch declarer) error {
			return ch.ExchangeDeclare(name, kind, p.durable, p.autoDelete, false, false, p.args)
		})
	if err != nil {
		return fmt.Errorf("declare exchange %s: %w", name, err)
	}
	return nil
}

// queue adopts or makes a queue.
func (a *adopter) queue(name string, p properties) error {
	err := a.adopt(
		func(ch declarer) error {
			_, err := ch.QueueDeclarePassive(name, p.durable, p.autoDelete, false, false, p.args)
			return err
		},
		func(ch declarer) error {
			_, err := ch.QueueDeclare(name, p.durable, p.autoDelete, false, false, p.args)
			return err
		})
	if err != nil {
		return fmt.Errorf("declare queue %s: %w", name, err)
	}
	return nil
}

// bind binds a queue; a binding that exists is success.
func (a *adopter) bind(queue, key, exchange string) error {
	err := a.on(func(ch declarer) error { return ch.QueueBind(queue, key, exchange, false, nil) })
	if err != nil {
		return fmt.Errorf("bind queue %s to %s: %w", queue, exchange, err)
	}
	return nil
}

// adopt tries passive; on "not found" it tries active; when that is refused
// because somebody has made the thing with other properties in between, it
// starts again.
func (a *adopter) adopt(passive, active func(declarer) error) error {
	var err error
	for range 3 {
		if err = a.on(passive); err == nil || !hasCode(err, amqp.NotFound) {
			return err
		}
		if err = a.on(active); err == nil || !hasCode(err, amqp.PreconditionFailed) {
			return err
		}
	}
	return err
}

// on runs f on a channel that is thrown away if f fails.
func (a *adopter) on(f func(declarer) error) error {
	if a.ch == nil {
		ch, err := a.open()
		if err != nil {
			return err
		}
		a.ch = ch
	}
	err := f(a.ch)
	if err != nil {
		_ = a.ch.Close() // mostly closed by the broker already
		a.ch = nil
	}
	return err
}

// close gives the last channel back.
func (a *adopter) close() {
	if a.ch != nil {
		_ = a.ch.Close()
		a.ch = nil
	}
}

func hasCode(err error, code int) bool {
	e, ok := errors.AsType[*amqp.Error](err)
	return ok && e.Code == code
}
