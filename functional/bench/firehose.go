package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// firehose keeps what the broker's tracer tells: every message that anybody
// publishes, with the time at which it came here.
type firehose struct {
	conn *amqp091.Connection
	mu   sync.Mutex
	raw  []traced // guarded by mu
	done chan struct{}
}

type traced struct {
	at   time.Time
	key  string // routing key of the message
	body []byte
}

// openFirehose subscribes to the tracer and switches it on.
func openFirehose(ctx context.Context, set settings) (*firehose, error) {
	conn, err := amqp091.Dial("amqp://openstack:" + set.pass + "@127.0.0.1:5672/")
	if err != nil {
		return nil, fmt.Errorf("connect to the broker: %w", err)
	}
	f := &firehose{conn: conn, done: make(chan struct{})}
	messages, err := f.subscribe()
	if err == nil {
		err = trace(ctx, set, "trace_on")
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	go func() {
		defer close(f.done)
		for m := range messages {
			f.add(m)
		}
	}()
	return f, nil
}

func (f *firehose) subscribe() (<-chan amqp091.Delivery, error) {
	ch, err := f.conn.Channel()
	if err != nil {
		return nil, err
	}
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return nil, err
	}
	// see https://www.rabbitmq.com/docs/firehose: publish.EXCHANGE
	if err := ch.QueueBind(q.Name, "publish.#", "amq.rabbitmq.trace", false, nil); err != nil {
		return nil, err
	}
	return ch.Consume(q.Name, "", true, true, false, false, nil)
}

func (f *firehose) add(m amqp091.Delivery) {
	at := time.Now()
	keys, _ := m.Headers["routing_keys"].([]any)
	if len(keys) == 0 {
		return
	}
	key, _ := keys[0].(string)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.raw = append(f.raw, traced{at, key, m.Body})
}

// take returns and forgets what came until now.
func (f *firehose) take() []traced {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.raw
	f.raw = nil
	return out
}

func (f *firehose) close(ctx context.Context, set settings) error {
	err := trace(context.WithoutCancel(ctx), set, "trace_off")
	_ = f.conn.Close()
	<-f.done
	return err
}

func trace(ctx context.Context, set settings, verb string) error {
	out, err := exec.CommandContext(ctx, "bash", "-c", ". "+set.state+`/rabbitmq.env
exec setpriv --reuid rabbitmq --regid rabbitmq --clear-groups "$(ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin | tail -1)/rabbitmqctl" `+verb).CombinedOutput()
	if err != nil {
		return fmt.Errorf("rabbitmqctl %s: %w: %s", verb, err, out)
	}
	return nil
}

// message is what the split needs of one oslo.messaging message
// (oslo_messaging/_drivers/common.py and amqpdriver.py).
type message struct {
	at        time.Time
	key       string
	method    string // "" for replies and notifications
	msgID     string
	reply     bool   // the last message of a reply
	request   string // request id of the context
	object    string // objmethod of an object_action
	instances []string
	active    bool // a save of vm_state=active
	plugged   []string
}

// wireObject is a versioned object (oslo_versionedobjects, obj_to_primitive).
type wireObject struct {
	Data    map[string]json.RawMessage `json:"nova_object.data"`
	Changes []string                   `json:"nova_object.changes"`
}

func (o wireObject) text(field string) string {
	var s string
	_ = json.Unmarshal(o.Data[field], &s) // a field of another type is no text
	return s
}

// decode reads a traced message; ok is false when it is none of oslo.messaging's.
func decode(t traced) (m message, ok bool) {
	var outer struct {
		Message string `json:"oslo.message"`
	}
	if json.Unmarshal(t.body, &outer) != nil || outer.Message == "" {
		return m, false
	}
	var in struct {
		Method  string                     `json:"method"`
		MsgID   string                     `json:"_msg_id"`
		Ending  bool                       `json:"ending"`
		Request string                     `json:"_context_request_id"`
		Args    map[string]json.RawMessage `json:"args"`
	}
	if json.Unmarshal([]byte(outer.Message), &in) != nil {
		return m, false
	}
	m = message{at: t.at, key: t.key, method: in.Method, msgID: in.MsgID, reply: in.Method == "" && in.Ending, request: in.Request}
	switch in.Method {
	case "build_and_run_instance":
		var inst wireObject
		_ = json.Unmarshal(in.Args["instance"], &inst)
		m.instances = []string{inst.text("uuid")}
	case "object_action":
		m.readAction(in.Args)
	case "external_instance_event":
		m.readEvents(in.Args["events"])
	}
	return m, true
}

func (m *message) readAction(args map[string]json.RawMessage) {
	var inst wireObject
	_ = json.Unmarshal(args["objmethod"], &m.object)
	_ = json.Unmarshal(args["objinst"], &inst)
	m.instances = []string{inst.text("uuid")}
	for _, c := range inst.Changes {
		if c == "vm_state" && m.object == "save" && inst.text("vm_state") == "active" {
			m.active = true
		}
	}
}

func (m *message) readEvents(raw json.RawMessage) {
	var events []wireObject
	_ = json.Unmarshal(raw, &events)
	for _, e := range events {
		m.instances = append(m.instances, e.text("instance_uuid"))
		if e.text("name") == "network-vif-plugged" && e.text("tag") != "" {
			m.plugged = append(m.plugged, e.text("tag"))
		}
	}
}

// what names the call for people.
func (m message) what() string {
	if m.object != "" {
		return m.method + " " + m.object
	}
	return m.method
}

// toHost reports whether the message is a cast to the compute service of host.
func (m message) toHost(host string) bool {
	return strings.HasPrefix(m.key, "compute.") && strings.TrimPrefix(m.key, "compute.") == host
}
