package messaging

import (
	"context"
	"errors"
	"time"
)

// Transport moves message bodies between processes. It knows names of topics,
// servers and queues and nothing of what a body says; Client, Server and
// Notifier are written on top of it. Implementations are messaging/amqp and
// messaging/inproc; messaging/transporttest says in tests what this comment
// says in words.
//
// Topics and queues. A listener of topic T as server S consumes three queues:
// T (shared by all servers of the topic, each message goes to one of them),
// T.S (its own), and a fan-out queue of which every listener has one. The
// first two outlive the listener: what is sent while it is away waits for it.
// The fan-out queue ends with the listener. A reply queue belongs to one
// transport and has a name that nobody else has.
//
// Delivery. A message is delivered again when its Delivery was not acknowledged
// before the listener or its connection ended, and a sender that lost its
// connection may have delivered its message twice: receivers drop the
// duplicates by the id in the envelope. There is no order between messages.
//
// Connections. An implementation reconnects by itself and then has the same
// queues and listeners as before. What a method does while the broker is away
// is said with the method. All methods may be called concurrently.
type Transport interface {
	// Send publishes to t's topic, to its server when it names one, or to all
	// listeners when it asks for a fan-out; namespace and version do not
	// matter here. It returns nil when the broker has the message. A target
	// that has no queue swallows it: that is not an error, as in Nova. While
	// the broker is away it waits, until ctx ends.
	Send(ctx context.Context, t Target, m Message) error
	// Reply publishes to a reply queue. ErrNoReplyQueue says that the queue
	// does not exist now. While the broker is away it waits, until ctx ends.
	Reply(ctx context.Context, queue string, m Message) error
	// Notify publishes to the queue of that name ("notifications.info") and
	// makes it if it is not there, so that the message waits for a consumer.
	// While the broker is away it waits, until ctx ends.
	Notify(ctx context.Context, queue string, m Message) error
	// Listen consumes the queues of a. It returns when they exist and are
	// consumed, or with an error when ctx ends first; later ctx means
	// nothing. deliver is called from several goroutines at a time and must
	// return soon. It is not called any more when Subscription.Close or
	// Transport.Close has returned.
	Listen(ctx context.Context, a Address, deliver func(Delivery)) (Subscription, error)
	// ListenReplies makes a reply queue with a new name and consumes it, with
	// the promises of Listen. The queue stays for a while after the end, so
	// that late repliers need not look for it.
	ListenReplies(ctx context.Context, deliver func(Delivery)) (queue string, s Subscription, err error)
	// Close ends all subscriptions and connections. Waiting calls and all
	// later ones return ErrClosed. It is idempotent.
	Close() error
}

// Address says what a listener hears.
type Address struct {
	// Topics are consumed each with its shared, own and fan-out queue.
	Topics []string
	// Server is this listener's name; empty means no own queues.
	Server string
}

// Subscription is a running Listen or ListenReplies.
type Subscription interface {
	// Close stops the deliveries. What was delivered and not acknowledged is
	// delivered again, to whoever listens. Idempotent. ctx bounds the tidying
	// at the broker; the subscription is ended in every case.
	Close(ctx context.Context) error
}

// Message is what a transport carries.
type Message struct {
	// Body is the encoded envelope. Nobody changes it any more: the transport
	// may still hold it after a method has returned early.
	Body []byte
	// Expiration is how long the message may wait in a queue before it is
	// thrown away; 0 means for ever. Rounded up to milliseconds.
	Expiration time.Duration
}

// Delivery is one received message.
type Delivery struct {
	// Body belongs to the receiver.
	Body []byte
	// Redelivered says that the message was delivered before, to anybody, and
	// not acknowledged.
	Redelivered bool
	ack         func() error
}

// NewDelivery is for implementations of Transport. ack must be safe to call
// from any goroutine.
func NewDelivery(body []byte, redelivered bool, ack func() error) Delivery {
	return Delivery{Body: body, Redelivered: redelivered, ack: ack}
}

// Ack tells the broker to forget the message; to be called once. On an error
// the message will be delivered again, so the receiver drops it.
func (d Delivery) Ack() error { return d.ack() }

var (
	// ErrClosed: the transport, client or server was closed.
	ErrClosed = errors.New("messaging closed")
	// ErrNoReplyQueue: nobody has a reply queue of that name now.
	ErrNoReplyQueue = errors.New("no such reply queue")
)
