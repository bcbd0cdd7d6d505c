//go:build functional

package amqp_test

import (
	"os"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/amqp"
	"github.com/gantry-project/gantry/driver/messaging/transporttest"
)

// testExchange keeps the tests away from the cloud's own exchange.
const testExchange = "gantrytest"

// brokerURL is where the real RabbitMQ is.
func brokerURL(t *testing.T) amqp.URL {
	t.Helper()
	s := os.Getenv("GANTRY_TEST_AMQP_URL")
	if s == "" {
		t.Fatal("GANTRY_TEST_AMQP_URL is not set; expected rabbit://USER:PASS@HOST:PORT/VHOST")
	}
	u, err := amqp.ParseURL(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// options connect to the broker by way of p, and fast after a loss.
func options(t *testing.T, p *proxy) amqp.Options {
	t.Helper()
	o := amqp.DefaultOptions()
	o.URL = brokerURL(t)
	if p != nil {
		o.URL.Hosts = o.URL.Hosts[:1]
		o.URL.Hosts[0].Name, o.URL.Hosts[0].Port = "127.0.0.1", p.port()
	}
	o.ControlExchange, o.Program = testExchange, "gantrytest"
	o.TransientQueuesTTL = time.Minute
	o.RetryInterval, o.RetryBackoff, o.ReconnectDelay = 50*time.Millisecond, 0, 50*time.Millisecond
	o.Log = zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	return o
}

func open(t *testing.T, o amqp.Options) messaging.Transport {
	t.Helper()
	tr, err := amqp.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// admin is a connection of the test's own.
func admin(t *testing.T) *amqp091.Channel {
	t.Helper()
	u := brokerURL(t)
	h := u.Hosts[0]
	conn, err := amqp091.DialConfig("amqp://"+h.Address(), amqp091.Config{
		SASL:  []amqp091.Authentication{&amqp091.PlainAuth{Username: h.User, Password: h.Password}},
		Vhost: u.VHost,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// forget deletes what the topics have left at the broker.
func forget(t *testing.T, topics []string) {
	ch := admin(t)
	for _, topic := range topics {
		for _, q := range []string{topic, topic + ".h", topic + ".one", topic + ".two", topic + ".old"} {
			if _, err := ch.QueueDelete(q, false, false, false); err != nil {
				t.Errorf("delete queue %s: %v", q, err)
			}
		}
		if err := ch.ExchangeDelete(topic+"_fanout", false, false); err != nil {
			t.Errorf("delete exchange: %v", err)
		}
	}
}

func TestTransport(t *testing.T) {
	t.Cleanup(func() { _ = admin(t).ExchangeDelete(testExchange, true, false) })
	transporttest.Run(t, func(t *testing.T) transporttest.Bus {
		u := brokerURL(t)
		p := newProxy(t, u.Hosts[0].Address())
		return transporttest.Bus{
			Open:      func(t *testing.T) messaging.Transport { return open(t, options(t, p)) },
			Interrupt: func(*testing.T) { p.cut() },
			Forget:    forget,
		}
	})
}
