package amqp

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// TestProperties is the table of the options that change what is declared.
func TestProperties(t *testing.T) {
	const ttl = int64(1800000)
	type want struct {
		topic, transient, fanout properties
	}
	for name, tc := range map[string]struct {
		set  func(*Options)
		want want
	}{
		"default": {func(*Options) {}, want{
			topic:     properties{args: amqp.Table{}},
			transient: properties{args: amqp.Table{"x-expires": ttl}},
			fanout:    properties{autoDelete: true},
		}},
		"durable": {func(o *Options) { o.DurableQueues = true }, want{
			topic:     properties{durable: true, args: amqp.Table{}},
			transient: properties{args: amqp.Table{"x-expires": ttl}},
			fanout:    properties{autoDelete: true},
		}},
		"auto delete, no ttl": {func(o *Options) { o.AutoDelete, o.TransientQueuesTTL = true, 0 }, want{
			topic:     properties{autoDelete: true, args: amqp.Table{}},
			transient: properties{args: amqp.Table{}},
			fanout:    properties{autoDelete: true},
		}},
		"mirrored": {func(o *Options) { o.HAQueues = true }, want{
			topic:     properties{args: amqp.Table{"x-ha-policy": "all"}},
			transient: properties{args: amqp.Table{"x-ha-policy": "all", "x-expires": ttl}},
			fanout:    properties{autoDelete: true},
		}},
		"quorum": {func(o *Options) { o.QuorumQueue, o.QuorumDeliveryLimit = true, 3 }, want{
			topic:     properties{durable: true, args: amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": int64(3)}},
			transient: properties{args: amqp.Table{"x-expires": ttl}},
			fanout:    properties{autoDelete: true},
		}},
		"all quorum": {func(o *Options) {
			o.QuorumQueue, o.TransientQuorumQueue, o.QuorumMaxMemoryLength, o.QuorumMaxBytes = true, true, 4, 5
		}, want{
			topic: properties{durable: true, args: amqp.Table{
				"x-queue-type": "quorum", "x-max-in-memory-length": int64(4), "x-max-in-memory-bytes": int64(5),
			}},
			transient: properties{durable: true, args: amqp.Table{
				"x-queue-type": "quorum", "x-max-in-memory-length": int64(4), "x-max-in-memory-bytes": int64(5), "x-expires": ttl,
			}},
			fanout: properties{durable: true, autoDelete: true},
		}},
	} {
		o := DefaultOptions()
		tc.set(&o)
		got := want{o.topic(), o.transient(), o.fanoutExchange()}
		if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(want{}, properties{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if e := o.topicExchange(); e.args != nil || e.durable != tc.want.topic.durable || e.autoDelete != tc.want.topic.autoDelete {
			t.Errorf("%s: topic exchange is %+v", name, e)
		}
		for _, table := range []amqp.Table{got.topic.args, got.transient.args} {
			if err := table.Validate(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	for name, set := range map[string]func(*Options){
		"no host":      func(o *Options) { o.URL.Hosts = nil },
		"no exchange":  func(o *Options) { o.ControlExchange = "" },
		"ha + quorum":  func(o *Options) { o.HAQueues, o.QuorumQueue = true, true },
		"ha + quorum2": func(o *Options) { o.HAQueues, o.TransientQuorumQueue = true, true },
		"prefetch":     func(o *Options) { o.PrefetchCount = -1 },
		"ttl":          func(o *Options) { o.TransientQueuesTTL = -time.Second },
		"pause":        func(o *Options) { o.RetryInterval = 0 },
		"login":        func(o *Options) { o.LoginMethod = "RABBIT-CR-DEMO" },
		"tls version":  func(o *Options) { o.SSL, o.SSLVersion = true, "SSLv3" },
		"no ca file":   func(o *Options) { o.SSL, o.SSLCAFile = true, "/nonexistent" },
		"no cert file": func(o *Options) { o.SSL, o.SSLCertFile = true, "/nonexistent" },
	} {
		o := DefaultOptions()
		o.URL = URL{Hosts: []Host{{Name: "127.0.0.1", Port: 1}}, VHost: "/"}
		set(&o)
		if tr, err := New(t.Context(), o); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				_ = tr.Close()
			}
		}
	}
}

func TestHeartbeat(t *testing.T) {
	for _, tc := range []struct {
		timeout time.Duration
		rate    int
		want    time.Duration
	}{
		{60 * time.Second, 2, 40 * time.Second}, // dead after one and a half: 60 s
		{60 * time.Second, 3, 40 * time.Second},
		{60 * time.Second, 6, 20 * time.Second},
		{time.Second, 3, time.Second},
		{0, 2, 0},
	} {
		o := Options{HeartbeatTimeout: tc.timeout, HeartbeatRate: tc.rate}
		if got := o.heartbeat(); got != tc.want {
			t.Errorf("%s at rate %d: %s", tc.timeout, tc.rate, got)
		}
	}
}

func TestExpiration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "", -1: "", 1: "1", time.Millisecond: "1", 10 * time.Second: "10000", 1500 * time.Microsecond: "2",
	} {
		if got := expiration(d); got != want {
			t.Errorf("%s is %q", d, got)
		}
	}
}
