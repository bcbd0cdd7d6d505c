// Package amqp is messaging.Transport over RabbitMQ (AMQP 0-9-1), with the
// exchanges, queues and properties that oslo.messaging's rabbit driver uses, so
// that stock services and gantry share one broker.
//
// A transport has two connections: one publishes (a channel for requests and
// notifications, one for replies), one consumes (a channel for each
// subscription). Each is kept by a link that reconnects for ever. Shared
// exchanges and queues are adopted as they are: they are declared passively on
// a throw-away channel, and actively only when they do not exist, so that
// another durability than the configured one is no error. docs/wire.md lists
// every queue and every difference to stock.
//
// Only internal/daemon, and tests, import this package.
//
// Source: oslo_messaging/_drivers/impl_rabbit.py, amqpdriver.py, amqp.py.
package amqp
