// Package messaging is oslo.messaging RPC: envelopes, calls, casts, replies,
// remote exceptions, duplicate detection and call monitoring, over a Transport.
//
// It knows targets and versions and nothing of Nova's objects: arguments and
// results are JSON. Two transports implement the contract, messaging/amqp and
// messaging/inproc; the suite is messaging/transporttest.
//
// Source: oslo_messaging/_drivers/{common,amqp,amqpdriver,impl_rabbit}.py,
// oslo_messaging/rpc/{client,server,dispatcher}.py and target.py.
package messaging

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Target addresses a message (oslo_messaging/target.py).
type Target struct {
	// Topic is the queue name without host: "conductor", "compute".
	Topic string
	// Server narrows a topic to one host. Empty means any consumer.
	Server string
	// Fanout sends to all consumers of the topic.
	Fanout bool
	// Namespace selects an endpoint; empty is the null namespace.
	Namespace string
	// Version is what the sender requires of the endpoint, "3.0".
	Version string
}

// Caller is what clients of RPC need.
type Caller interface {
	// Call sends a request and waits for its end: nil and the result decoded
	// into result (a pointer, or nil to drop it), a *RemoteError, or ctx's
	// end. With no deadline in ctx the configured rpc_response_timeout
	// applies and its passing is ErrTimeout. A call is never sent again by
	// itself: after ErrTimeout nobody knows whether the method ran.
	Call(ctx context.Context, rc RequestContext, t Target, method string, args map[string]any, result any) error
	// Cast sends a request and returns when the broker has taken it. While
	// the broker is away it waits, until ctx ends.
	Cast(ctx context.Context, rc RequestContext, t Target, method string, args map[string]any) error
}

// ErrTimeout: no reply came in time (oslo_messaging.MessagingTimeout).
var ErrTimeout = errors.New("messaging timeout")

// Request is one received message.
type Request struct {
	Method, Namespace, Version string
	// Args are the keyword arguments, still JSON.
	Args map[string]json.RawMessage
	// Context is the caller's; it is sent on with every call made for it.
	Context RequestContext
	// IsCall says that the sender waits for a reply.
	IsCall bool
	// Received is when the message came.
	Received time.Time
}

// Arg decodes the named argument into v. An absent or null one leaves v as it is.
func (r *Request) Arg(name string, v any) error {
	raw, ok := r.Args[name]
	if !ok || string(raw) == "null" {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("argument %s of %s: %w", name, r.Method, err)
	}
	return nil
}

// Handler runs one request. The result is encoded with encoding/json. An error
// goes to a waiting caller as the remote exception that RemoteErrorOf finds in
// its chain. ctx ends when the server is closed.
type Handler func(ctx context.Context, req *Request) (any, error)

// Endpoint is a set of methods under one namespace and version.
type Endpoint struct {
	Namespace string
	// Version is the highest that is served; every lower minor of the same
	// major is served too.
	Version string
	Methods map[string]Handler
}
