package amqp

import (
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Options are the settings of a Transport, by the names of
// [oslo_messaging_rabbit]. Start from DefaultOptions.
type Options struct {
	// URL is transport_url.
	URL URL
	// ControlExchange is control_exchange, the exchange of the RPC topics.
	ControlExchange string
	// Program names the connections at the broker ("gantry-compute").
	Program string
	Log     zerolog.Logger

	// TLS: ssl, ssl_version, ssl_ca_file, ssl_cert_file, ssl_key_file. The
	// broker's certificate is verified only with SSLCAFile set, and then its
	// host name too unless SSLAnyHostName is set
	// (ssl_enforce_hostname_verification = false).
	SSL                                bool
	SSLVersion                         string
	SSLCAFile, SSLCertFile, SSLKeyFile string
	SSLAnyHostName                     bool
	// LoginMethod is rabbit_login_method: EXTERNAL, or PLAIN and AMQPLAIN,
	// which mean the same to a user: the broker's choice is taken.
	LoginMethod string

	// Properties of the shared topic exchange and queues, if we have to make
	// them: amqp_durable_queues, amqp_auto_delete, rabbit_ha_queues.
	DurableQueues, AutoDelete, HAQueues bool
	// QuorumQueue is rabbit_quorum_queue, with its limits
	// rabbit_quorum_delivery_limit and rabbit_quorum_max_memory_{length,bytes}
	// (0: none).
	QuorumQueue                                                bool
	QuorumDeliveryLimit, QuorumMaxMemoryLength, QuorumMaxBytes int
	// TransientQueuesTTL is rabbit_transient_queues_ttl: how long an unused
	// reply or fan-out queue stays; 0 is for ever. TransientQuorumQueue is
	// rabbit_transient_quorum_queue.
	TransientQueuesTTL   time.Duration
	TransientQuorumQueue bool
	// PrefetchCount is rabbit_qos_prefetch_count; 0 is no limit.
	PrefetchCount int

	// HeartbeatTimeout is heartbeat_timeout_threshold: a broker that was
	// silent for so long is gone; 0 leaves the time to the broker.
	// HeartbeatRate is heartbeat_rate, signs of life sent in that time; fewer
	// than 3 are taken as 3.
	HeartbeatTimeout time.Duration
	HeartbeatRate    int
	// Pauses between tries to connect: RetryInterval (rabbit_retry_interval)
	// at first, more by RetryBackoff (rabbit_retry_backoff) each time, up to
	// IntervalMax (rabbit_interval_max). ReconnectDelay
	// (kombu_reconnect_delay) stands before the first try after a loss.
	RetryInterval, RetryBackoff, IntervalMax, ReconnectDelay time.Duration
}

// DefaultOptions returns the defaults of a Nova service on Zed.
func DefaultOptions() Options {
	return Options{
		ControlExchange:    "nova",
		Program:            "gantry",
		Log:                zerolog.Nop(),
		TransientQueuesTTL: 1800 * time.Second,
		HeartbeatTimeout:   60 * time.Second,
		HeartbeatRate:      3,
		RetryInterval:      time.Second,
		RetryBackoff:       2 * time.Second,
		IntervalMax:        30 * time.Second,
		ReconnectDelay:     time.Second,
	}
}

// validate refuses what the broker or we cannot do.
func (o Options) validate() error {
	problem := ""
	switch {
	case len(o.URL.Hosts) == 0:
		problem = "transport_url: no host"
	case o.ControlExchange == "":
		problem = "control_exchange is empty"
	case o.HAQueues && (o.QuorumQueue || o.TransientQuorumQueue):
		problem = "rabbit_ha_queues and quorum queues exclude each other"
	case o.PrefetchCount < 0 || o.QuorumDeliveryLimit < 0 || o.QuorumMaxMemoryLength < 0 || o.QuorumMaxBytes < 0:
		problem = "a negative limit"
	case o.TransientQueuesTTL < 0 || o.HeartbeatTimeout < 0:
		problem = "a negative time"
	case o.RetryInterval <= 0 || o.RetryBackoff < 0 || o.IntervalMax <= 0 || o.ReconnectDelay < 0:
		problem = "rabbit_retry_interval and rabbit_interval_max are positive, rabbit_retry_backoff and kombu_reconnect_delay not negative"
	case o.LoginMethod != "" && o.LoginMethod != "PLAIN" && o.LoginMethod != "AMQPLAIN" && o.LoginMethod != "EXTERNAL":
		problem = "rabbit_login_method: expected PLAIN, AMQPLAIN or EXTERNAL"
	}
	if problem != "" {
		return fmt.Errorf("oslo_messaging_rabbit: %w: %s", errdefs.ErrInvalid, problem)
	}
	return nil
}

// properties are what an exchange or queue is declared with.
type properties struct {
	durable, autoDelete bool
	args                amqp.Table
}

// topic are the properties of the control exchange and of the topic queues
// (amqp.py, get_queue_arguments in impl_rabbit.py).
func (o Options) topic() properties {
	p := properties{durable: o.DurableQueues || o.QuorumQueue, autoDelete: o.AutoDelete, args: amqp.Table{}}
	o.ha(p.args)
	if o.QuorumQueue {
		o.quorum(p.args)
	}
	return p
}

// topicExchange are those of the control exchange, which takes no arguments.
func (o Options) topicExchange() properties {
	p := o.topic()
	p.args = nil
	return p
}

// transient are the properties of a reply or fan-out queue.
func (o Options) transient() properties {
	p := properties{durable: o.TransientQuorumQueue, args: amqp.Table{}}
	o.ha(p.args)
	if o.TransientQueuesTTL > 0 {
		p.args["x-expires"] = o.TransientQueuesTTL.Milliseconds()
	}
	if o.TransientQuorumQueue {
		o.quorum(p.args)
	}
	return p
}

// fanoutExchange are those of TOPIC_fanout: it goes with its last queue.
func (o Options) fanoutExchange() properties {
	return properties{durable: o.TransientQuorumQueue, autoDelete: true}
}

func (o Options) ha(args amqp.Table) {
	if o.HAQueues {
		args["x-ha-policy"] = "all"
	}
}

func (o Options) quorum(args amqp.Table) {
	args["x-queue-type"] = "quorum"
	for name, n := range map[string]int{
		"x-delivery-limit":       o.QuorumDeliveryLimit,
		"x-max-in-memory-length": o.QuorumMaxMemoryLength,
		"x-max-in-memory-bytes":  o.QuorumMaxBytes,
	} {
		if n > 0 {
			args[name] = int64(n)
		}
	}
}

// heartbeat is the interval to agree on with the broker. The client library
// sends a frame each half of it and gives up after one and a half without one.
func (o Options) heartbeat() time.Duration {
	if o.HeartbeatTimeout == 0 {
		return 0
	}
	rate := max(o.HeartbeatRate, 3)
	return max(2*o.HeartbeatTimeout/time.Duration(rate), time.Second)
}
