package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/driver/messaging/amqp"
	"github.com/gantry-project/gantry/driver/messaging/amqp/amqptest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const secret = "hush-hush"

// listen returns a listener that is closed with the test.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// broker returns the address of one with user gantry and vhost nova.
func broker(t *testing.T) string {
	t.Helper()
	l := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&amqptest.Broker{User: "gantry", Password: secret, VHost: "nova"}).Serve(l)
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func probe(ctx context.Context, t *testing.T, url string, change func(*amqp.Options)) ([]amqp.Probed, error) {
	t.Helper()
	o := amqp.DefaultOptions()
	var err error
	if o.URL, err = amqp.ParseURL(url); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&o)
	}
	return amqp.Probe(ctx, o)
}

func TestProbe(t *testing.T) {
	at := broker(t)
	nobody := listen(t)
	gone := nobody.Addr().String()
	_ = nobody.Close()
	url := func(user, password, at, vhost string) string {
		return fmt.Sprintf("rabbit://%s:%s@%s/%s", user, password, at, vhost)
	}
	for name, c := range map[string]struct {
		url  string
		want string // in the error
	}{
		"well":           {url("gantry", secret, at, "nova"), ""},
		"wrong password": {url("gantry", secret+"x", at, "nova"), "username or password not allowed"},
		"wrong user":     {url("guest", secret, at, "nova"), "username or password not allowed"},
		"wrong vhost":    {url("gantry", secret, at, "other"), "vhost not found"},
		"nobody there":   {url("gantry", secret, gone, "nova"), "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := probe(t.Context(), t, c.url, nil)
			if err != nil || len(got) != 1 {
				t.Fatalf("%v, %v", got, err)
			}
			if err := got[0].Err; (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !errors.Is(err, errdefs.ErrUnavailable)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if said := fmt.Sprintf("%v %+v %#v", got, got, got); strings.Contains(said, secret) {
				t.Errorf("it tells the password: %s", said)
			}
		})
	}
	got, err := probe(t.Context(), t, "rabbit://gantry:"+secret+"@"+gone+",gantry:"+secret+"@"+at+"/nova", nil)
	if err != nil || len(got) != 2 || got[0].Err == nil || got[1].Err != nil || got[1].Host.Address() != at {
		t.Errorf("two brokers: %v, %v", got, err)
	}
}

// TestProbeOfASilentBroker ends with its context: one that accepts connections
// and says nothing, and TLS towards one that does not speak it.
func TestProbeOfASilentBroker(t *testing.T) {
	l := listen(t)
	accepted := make(chan net.Conn, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for _, tls := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer cancel() // once it waits for an answer
			c := <-accepted
			buf := make([]byte, 1)
			_, _ = c.Read(buf)
			t.Cleanup(func() { _ = c.Close() })
		}()
		got, err := probe(ctx, t, "rabbit://gantry:"+secret+"@"+l.Addr().String()+"/nova", func(o *amqp.Options) { o.SSL = tls })
		cancel()
		if err != nil || len(got) != 1 || !errors.Is(got[0].Err, errdefs.ErrUnavailable) {
			t.Errorf("TLS %v: %v, %v", tls, got, err)
		}
	}
}

func TestProbeOfBadOptions(t *testing.T) {
	if _, err := probe(t.Context(), t, "rabbit://h/", func(o *amqp.Options) { o.SSL, o.SSLCAFile = true, "/nowhere" }); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("no certificates: %v", err)
	}
	if _, err := amqp.Probe(t.Context(), amqp.Options{}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("no options: %v", err)
	}
}
