package amqp

import (
	"fmt"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// fakeChannel answers declarations from a script of codes, 0 for success, and
// is unusable after a refusal, as a real one is.
type fakeChannel struct {
	script *[]int
	log    *[]string
	dead   bool
}

func (c *fakeChannel) do(what, name string, durable bool) error {
	*c.log = append(*c.log, fmt.Sprintf("%s %s durable=%t", what, name, durable))
	if c.dead {
		return fmt.Errorf("used after a refusal: %s", what)
	}
	code := 0
	if len(*c.script) > 0 {
		code, *c.script = (*c.script)[0], (*c.script)[1:]
	}
	if code == 0 {
		return nil
	}
	c.dead = true
	return &amqp.Error{Code: code}
}

func (c *fakeChannel) ExchangeDeclare(name, _ string, durable, _, _, _ bool, _ amqp.Table) error {
	return c.do("active", name, durable)
}

func (c *fakeChannel) ExchangeDeclarePassive(name, _ string, durable, _, _, _ bool, _ amqp.Table) error {
	return c.do("passive", name, durable)
}

func (c *fakeChannel) QueueDeclare(name string, durable, _, _, _ bool, _ amqp.Table) (amqp.Queue, error) {
	return amqp.Queue{}, c.do("active", name, durable)
}

func (c *fakeChannel) QueueDeclarePassive(name string, durable, _, _, _ bool, _ amqp.Table) (amqp.Queue, error) {
	return amqp.Queue{}, c.do("passive", name, durable)
}

func (c *fakeChannel) QueueBind(name, _, _ string, _ bool, _ amqp.Table) error {
	return c.do("bind", name, false)
}

func (c *fakeChannel) Close() error {
	*c.log = append(*c.log, "close")
	return nil
}

func TestAdopt(t *testing.T) {
	for name, tc := range map[string]struct {
		script []int
		want   string
		fails  int
	}{
		"there is one":     {nil, "open, passive x durable=true, close", 0},
		"there is none":    {[]int{404}, "open, passive x durable=true, close, open, active x durable=true, close", 0},
		"no access":        {[]int{403}, "open, passive x durable=true, close", 403},
		"made differently": {[]int{404, 406}, "open, passive x durable=true, close, open, active x durable=true, close, open, passive x durable=true, close", 0},
		"node is down":     {[]int{404, 404}, "open, passive x durable=true, close, open, active x durable=true, close", 404},
	} {
		for _, kind := range []string{"exchange", "queue"} {
			script, log := append([]int(nil), tc.script...), []string{}
			a := &adopter{open: func() (declarer, error) {
				log = append(log, "open")
				return &fakeChannel{script: &script, log: &log}, nil
			}}
			var err error
			if kind == "queue" {
				err = a.queue("x", properties{durable: true})
			} else {
				err = a.exchange("x", amqp.ExchangeTopic, properties{durable: true})
			}
			a.close()
			if got := strings.Join(log, ", "); got != tc.want {
				t.Errorf("%s, %s:\n got %s\nwant %s", name, kind, got, tc.want)
			}
			if (err != nil) != (tc.fails != 0) || err != nil && !hasCode(err, tc.fails) {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
		}
	}
}
