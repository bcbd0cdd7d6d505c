// Package conductortest is an in-memory nova-conductor for tests: a small real
// one, that keeps instances, services, compute nodes, actions, faults, block
// devices and ports and enforces Nova's rules on them, the compare-and-swap of
// task states above all. It is served as messaging endpoints, so that what is
// tested runs over the true wire, or called through Caller without a transport.
//
// It also refuses what the real one would let pass and a test must not: fields
// that Nova does not declare and incomplete manifests. Each call is recorded.
//
// Source: nova/conductor/manager.py, nova/db/main/api.py, nova/objects/*.py.
package conductortest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// Conductor is the database and its methods. Safe for concurrent use; what goes
// in and comes out is copied.
type Conductor struct {
	mu         sync.Mutex
	lastID     int64
	instances  []*objects.Object // whole rows, deleted ones too
	networks   map[string]string // info caches by instance
	services   []*objects.Object
	nodes      []*objects.Object
	actions    []*objects.Object
	events     []*objects.Object
	faults     []*objects.Object
	vifs       []*objects.Object
	bdms       []*objects.Object
	migrations []*objects.Object
	groups     []*objects.Object
	tokens     []*objects.Object
	calls      []Call
	failures   map[string][]error
}

// New returns an empty conductor.
func New() *Conductor {
	return &Conductor{networks: map[string]string{}, failures: map[string][]error{}}
}

// Call is one recorded message.
type Call struct {
	// Method is "Object.method" for the object interface, otherwise the name
	// of the RPC method.
	Method string
	// Changes are the marked fields of the object that was sent, sorted.
	Changes []string
	// Object is a copy of the object that was sent, nil for class methods.
	Object *objects.Object
	// Args and Kwargs are the method's; of other messages all are in Kwargs.
	Args    []any
	Kwargs  map[string]any
	Context messaging.RequestContext
}

// String is the short form for comparing sequences:
// "Instance.save{task_state,vm_state}", "InstanceActionEvent.event_start(compute_stop_instance)".
func (c Call) String() string {
	s := c.Method
	if strings.Contains(c.Method, ".event_") && len(c.Args) == 2 {
		s += fmt.Sprintf("(%v)", c.Args[1])
	}
	if len(c.Changes) > 0 {
		s += "{" + strings.Join(c.Changes, ",") + "}"
	}
	return s
}

// Calls returns what was received so far, in order. ping is left out.
func (c *Conductor) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// ResetCalls forgets the recorded messages.
func (c *Conductor) ResetCalls() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = nil
}

// FailNext makes the next call of the method ("Instance.save") fail with err
// before it does anything; several wait in line. A nil error lets one call pass.
func (c *Conductor) FailNext(method string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures[method] = append(c.failures[method], err)
}

// record notes a call and returns the failure that waits for it.
func (c *Conductor) record(call Call) error {
	c.calls = append(c.calls, call)
	waiting := c.failures[call.Method]
	if len(waiting) == 0 {
		return nil
	}
	c.failures[call.Method] = waiting[1:]
	return waiting[0]
}

// Endpoints are to be served on topic "conductor".
func (c *Conductor) Endpoints() []messaging.Endpoint {
	return []messaging.Endpoint{
		{Version: "3.0", Methods: map[string]messaging.Handler{
			"object_class_action_versions": c.classAction,
			"object_action":                c.objectAction,
			"object_backport_versions":     c.backport,
		}},
		{Namespace: "baseapi", Version: "1.1", Methods: map[string]messaging.Handler{
			"ping": func(_ context.Context, req *messaging.Request) (any, error) {
				var arg any
				err := req.Arg("arg", &arg)
				return map[string]any{"service": "conductor", "arg": arg}, err
			},
		}},
		{Namespace: "compute_task", Version: "1.24", Methods: map[string]messaging.Handler{
			"build_instances": c.note("build_instances"),
			"migrate_server":  c.note("migrate_server"),
		}},
	}
}

// SchedulerEndpoints are to be served on topic "scheduler"; they only record.
func (c *Conductor) SchedulerEndpoints() []messaging.Endpoint {
	methods := map[string]messaging.Handler{}
	for _, m := range []string{"update_instance_info", "delete_instance_info", "sync_instance_info"} {
		methods[m] = c.note(m)
	}
	return []messaging.Endpoint{{Version: "4.5", Methods: methods}}
}

// note returns a handler that records its arguments.
func (c *Conductor) note(method string) messaging.Handler {
	return func(_ context.Context, req *messaging.Request) (any, error) {
		kwargs := map[string]any{}
		for name, raw := range req.Args {
			v, err := objects.Decode(raw)
			if err != nil {
				return nil, err
			}
			kwargs[name] = v
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, c.record(Call{Method: method, Kwargs: kwargs, Context: req.Context})
	}
}

// Caller calls the endpoints directly. Arguments and results pass through
// JSON, errors through messaging.RemoteErrorOf, as they would over a transport.
func (c *Conductor) Caller() messaging.Caller {
	return caller{"conductor": c.Endpoints(), "scheduler": c.SchedulerEndpoints()}
}

type caller map[string][]messaging.Endpoint

func (c caller) Call(ctx context.Context, rc messaging.RequestContext, t messaging.Target, method string, args map[string]any, result any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	req := &messaging.Request{
		Method: method, Namespace: t.Namespace, Version: t.Version, Context: rc,
		Args: map[string]json.RawMessage{}, IsCall: true, Received: time.Now(),
	}
	for name, v := range args {
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		req.Args[name] = raw
	}
	for _, e := range c[t.Topic] {
		if e.Namespace != t.Namespace || e.Methods[method] == nil {
			continue
		}
		v, err := e.Methods[method](ctx, req)
		if err != nil {
			return messaging.RemoteErrorOf(err)
		}
		raw, err := json.Marshal(v)
		if err != nil || result == nil {
			return err
		}
		return json.Unmarshal(raw, result)
	}
	return messaging.RemoteErrorOf(fmt.Errorf("no method %s", method))
}

func (c caller) Cast(ctx context.Context, rc messaging.RequestContext, t messaging.Target, method string, args map[string]any) error {
	return c.Call(ctx, rc, t, method, args, nil)
}

// id returns the next row id.
func (c *Conductor) id() int64 {
	c.lastID++
	return c.lastID
}

// valueError is Python's ValueError, for calls that are wrong in themselves.
func valueError(format string, args ...any) error {
	return &messaging.RemoteError{Class: "ValueError", Module: "builtins", Message: fmt.Sprintf(format, args...)}
}

func clones(in []*objects.Object) []*objects.Object {
	out := make([]*objects.Object, len(in))
	for i := range in {
		out[i] = in[i].Clone()
	}
	return out
}

// where returns the rows in which every given field has the given text.
func where(rows []*objects.Object, fieldAndText ...string) []*objects.Object {
	var out []*objects.Object
	for _, row := range rows {
		ok := true
		for i := 0; i < len(fieldAndText); i += 2 {
			ok = ok && row.String(fieldAndText[i]) == fieldAndText[i+1]
		}
		if ok {
			out = append(out, row)
		}
	}
	return out
}

func list(name string, elements []*objects.Object) *objects.Object {
	o := objects.New(name)
	o.SetClean("objects", elements)
	return o
}
