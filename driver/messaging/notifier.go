package messaging

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Priority of a notification; the second part of its queue's name.
type Priority string

// The priorities that Nova's compute uses.
const (
	PriorityInfo  Priority = "INFO"
	PriorityError Priority = "ERROR"
)

// NotifierOptions are the settings of a Notifier.
type NotifierOptions struct {
	// Drivers is the option driver of oslo_messaging_notifications:
	// "messagingv2" (with the envelope), "messaging" (without), "noop" or
	// nothing for no notifications.
	Drivers []string
	// Topics are the queues' names without priority: "notifications", or
	// "versioned_notifications" for versioned ones.
	Topics []string
	// Publisher is publisher_id: "compute.HOST", versioned "nova-compute:HOST".
	Publisher string
}

// Notifier publishes events for whoever bills or watches; nothing of Nova's own
// work depends on them (oslo_messaging/notify/notifier.py, messaging.py). An
// unversioned and a versioned stream are two Notifiers. Safe for concurrent use.
type Notifier struct {
	transport Transport
	opts      NotifierOptions
	plain, v2 bool
}

// NewNotifier returns a notifier on t. An unknown driver is errdefs.ErrInvalid.
func NewNotifier(t Transport, o NotifierOptions) (*Notifier, error) {
	n := &Notifier{transport: t, opts: o}
	for _, d := range o.Drivers {
		switch d {
		case "messaging":
			n.plain = true
		case "messagingv2":
			n.v2 = true
		case "", "noop":
		default:
			return nil, fmt.Errorf("notification driver %q: %w: expected messaging, messagingv2, noop or nothing", d, errdefs.ErrInvalid)
		}
	}
	return n, nil
}

// Enabled reports whether Notify sends anything, so that a caller can save
// itself the payload.
func (n *Notifier) Enabled() bool { return (n.plain || n.v2) && len(n.opts.Topics) > 0 }

// Notify publishes one event on each topic and returns when the broker has it,
// or at the end of ctx; the errors of the topics are joined. A caller logs the
// error and goes on: no operation fails because nobody could be told.
func (n *Notifier) Notify(ctx context.Context, rc RequestContext, p Priority, event string, payload any) error {
	if !n.Enabled() {
		return nil
	}
	body, err := n.encode(rc, p, event, payload)
	if err != nil {
		return fmt.Errorf("notify %s: %w", event, err)
	}
	var errs []error
	for _, topic := range n.opts.Topics {
		queue := topic + "." + strings.ToLower(string(p))
		if err := n.transport.Notify(ctx, queue, Message{Body: body}); err != nil {
			errs = append(errs, fmt.Errorf("notify %s on %s: %w", event, queue, err))
		}
	}
	return errors.Join(errs...)
}

func (n *Notifier) encode(rc RequestContext, p Priority, event string, payload any) ([]byte, error) {
	msg := map[string]any{
		"message_id":   uuid.NewString(),
		"publisher_id": n.opts.Publisher,
		"event_type":   event,
		"priority":     string(p),
		"payload":      payload,
		"timestamp":    time.Now().UTC().Format("2006-01-02 15:04:05.000000"),
		"_unique_id":   newID(),
	}
	for k, v := range rc.fields {
		msg[contextPrefix+k] = v
	}
	if n.v2 {
		return EncodeEnvelope(msg)
	}
	return marshal(msg)
}
