package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/amqp"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// openWire connects to the broker of the cell; a broker that is away is waited for.
func openWire(ctx context.Context, cfg *config.Config, log zerolog.Logger) (*wire, error) {
	opts, err := brokerOptions(cfg, log)
	if err != nil {
		return nil, err
	}
	transport, err := amqp.New(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("connect to the message broker: %w", err)
	}
	return newWire(transport, cfg, log)
}

// brokerOptions are what the configuration says of the broker.
func brokerOptions(cfg *config.Config, log zerolog.Logger) (amqp.Options, error) {
	url, err := amqp.ParseURL(cfg.Default.TransportURL)
	if err != nil {
		return amqp.Options{}, &config.Error{Section: "DEFAULT", Key: "transport_url", Problem: err.Error()}
	}
	r := cfg.Rabbit
	opts := amqp.DefaultOptions()
	opts.URL, opts.ControlExchange, opts.Program, opts.Log = url, cfg.Default.ControlExchange, "gantry-compute", log
	opts.SSL, opts.SSLCAFile, opts.SSLCertFile, opts.SSLKeyFile = r.SSL, r.SSLCAFile, r.SSLCertFile, r.SSLKeyFile
	opts.DurableQueues, opts.AutoDelete, opts.HAQueues = r.DurableQueues, r.AutoDelete, r.HAQueues
	opts.QuorumQueue, opts.QuorumDeliveryLimit = r.QuorumQueue, r.QuorumDeliveryLimit
	opts.TransientQueuesTTL, opts.TransientQuorumQueue = r.TransientQueuesTTL, r.TransientQuorumQueue
	opts.PrefetchCount, opts.HeartbeatTimeout, opts.HeartbeatRate = r.PrefetchCount, r.HeartbeatTimeout, r.HeartbeatRate
	opts.RetryInterval, opts.RetryBackoff, opts.IntervalMax = r.RetryInterval, r.RetryBackoff, r.IntervalMax
	opts.ReconnectDelay = r.ReconnectDelay
	return opts, nil
}

// newWire speaks over a transport, which it closes in the end.
func newWire(transport messaging.Transport, cfg *config.Config, log zerolog.Logger) (*wire, error) {
	w := &wire{transport: transport}
	w.client = messaging.NewClient(transport, messaging.ClientOptions{ResponseTimeout: cfg.Default.RPCResponseTimeout, Log: log})
	w.conductor = conductor.New(w.client, cfg.Default.Host)
	w.scheduler = conductor.NewScheduler(w.client, cfg.Default.Host, log)
	for _, stream := range []struct {
		to        **messaging.Notifier
		off       string // the format in which this one is silent
		topics    []string
		publisher string
	}{
		{&w.notifier, "versioned", cfg.Notifications.Topics, "compute." + cfg.Default.Host},
		{&w.versioned, "unversioned", cfg.Events.Topics, "nova-compute:" + cfg.Default.Host},
	} {
		o := messaging.NotifierOptions{Drivers: []string{cfg.Notifications.Driver}, Topics: stream.topics, Publisher: stream.publisher}
		if cfg.Events.Format == stream.off {
			o.Topics = nil
		}
		n, err := messaging.NewNotifier(transport, o)
		if err != nil {
			return nil, errors.Join(&config.Error{Section: "oslo_messaging_notifications", Key: "driver", Problem: err.Error()}, transport.Close())
		}
		*stream.to = n
	}
	return w, nil
}

// away reports whether the control plane did not answer, so that asking again
// makes sense.
func away(err error) bool {
	return errors.Is(err, messaging.ErrTimeout) || errors.Is(err, errdefs.ErrUnavailable)
}
