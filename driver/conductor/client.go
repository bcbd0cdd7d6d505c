// Package conductor is the RPC client of nova-conductor and, for the three
// messages that it gets from a compute host, of nova-scheduler.
//
// Client has one method for each remote call that the compute service makes;
// ClassAction, ObjectAction and Backport are the calls underneath. All class
// methods are asked for at the versions of the Zed manifest, which every
// conductor from Zed on can answer. Consumers declare the slice of Client that
// they use; conductortest has an in-memory conductor for their tests.
//
// Errors of the conductor arrive as *messaging.RemoteError in the chain; match
// them with messaging.IsRemote. Nothing is retried here: after
// messaging.ErrTimeout nobody knows whether a call has run.
//
// Source: nova/conductor/rpcapi.py (ConductorAPI 3.0, ComputeTaskAPI),
// nova/baserpc.py, nova/scheduler/rpcapi.py, nova/objects/*.py.
package conductor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const topic = "conductor"

// Client calls any conductor of the cell. Safe for concurrent use.
type Client struct {
	caller messaging.Caller
	host   string
}

// New returns a client for the compute service of the given host, whose name
// goes into events and faults.
func New(caller messaging.Caller, host string) *Client {
	return &Client{caller: caller, host: host}
}

// objectTarget is the object interface: null namespace, 3.0 in every release.
func objectTarget() messaging.Target { return messaging.Target{Topic: topic, Version: "3.0"} }

// Ping returns nil when a conductor answers.
func (c *Client) Ping(ctx context.Context, rc messaging.RequestContext) error {
	t := messaging.Target{Topic: topic, Namespace: "baseapi", Version: "1.0"}
	if err := c.caller.Call(ctx, rc, t, "ping", map[string]any{"arg": "gantry"}, nil); err != nil {
		return fmt.Errorf("ping conductor: %w", err)
	}
	return nil
}

// ClassAction runs a class method of an object: args are its positional and
// kwargs its keyword arguments without the context. The result is decoded into
// out, a pointer to a view or to any JSON type, or dropped when out is nil; a
// null result leaves a view absent. A result of another major version is
// converted by conductor first.
func (c *Client) ClassAction(ctx context.Context, rc messaging.RequestContext, object, method string, args []any, kwargs map[string]any, out any) error {
	manifest := objects.Manifest(object)
	var raw json.RawMessage
	err := c.caller.Call(ctx, rc, objectTarget(), "object_class_action_versions", map[string]any{
		"objname": object, "objmethod": method, "object_versions": manifest,
		"args": positional(args), "kwargs": keyword(kwargs),
	}, &raw)
	if err != nil {
		return fmt.Errorf("%s.%s: %w", object, method, err)
	}
	if out == nil {
		return nil
	}
	err = json.Unmarshal(raw, out)
	if ve, ok := errors.AsType[*objects.VersionError](err); ok && ve.Want != "" {
		var older *objects.Object
		if older, err = c.Backport(ctx, rc, ve.Object); err == nil {
			err = remarshal(older, out)
		}
	}
	if err != nil {
		return fmt.Errorf("result of %s.%s: %w", object, method, err)
	}
	return nil
}

// ObjectAction runs a method of obj and brings the answer's updates into obj,
// whose marks are then those that the answer names, usually none. It returns
// the method's result. On error obj is unchanged.
func (c *Client) ObjectAction(ctx context.Context, rc messaging.RequestContext, obj *objects.Object, method string, args []any, kwargs map[string]any) (json.RawMessage, error) {
	return c.objectAction(ctx, rc, obj, obj, method, args, kwargs)
}

// objectAction sends one object and merges the answer into another one, of
// which the first is a part.
func (c *Client) objectAction(ctx context.Context, rc messaging.RequestContext, send, merge *objects.Object, method string, args []any, kwargs map[string]any) (json.RawMessage, error) {
	var answer [2]json.RawMessage
	err := c.caller.Call(ctx, rc, objectTarget(), "object_action", map[string]any{
		"objinst": send, "objmethod": method, "args": positional(args), "kwargs": keyword(kwargs),
	}, &answer)
	if err != nil {
		return nil, fmt.Errorf("%s.%s: %w", send.Name, method, err)
	}
	if err := mergeUpdates(merge, answer[0]); err != nil {
		return nil, fmt.Errorf("updates of %s.%s: %w", send.Name, method, err)
	}
	return answer[1], nil
}

// mergeUpdates brings the updates of an object_action into o.
func mergeUpdates(o *objects.Object, raw json.RawMessage) error {
	v, err := objects.Decode(raw)
	if err != nil {
		return err
	}
	updates, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("expected a map and got %.80q: %w", raw, errdefs.ErrInvalid)
	}
	o.ResetChanges()
	for field, value := range updates {
		if field != whatChanged {
			o.SetClean(field, value)
		}
	}
	changed, _ := updates[whatChanged].([]any)
	for _, field := range changed {
		if name, ok := field.(string); ok {
			o.Mark(name)
		}
	}
	return nil
}

// whatChanged is the one key of the updates that is no field.
const whatChanged = "obj_what_changed"

// Backport has conductor convert an object of a newer major version to the
// one of the Zed manifest.
func (c *Client) Backport(ctx context.Context, rc messaging.RequestContext, obj *objects.Object) (*objects.Object, error) {
	if _, known := objects.Lookup(obj.Name); !known {
		return nil, fmt.Errorf("backport: %w", &objects.VersionError{Object: obj})
	}
	var out objects.Object
	err := c.caller.Call(ctx, rc, objectTarget(), "object_backport_versions", map[string]any{
		"objinst": obj, "object_versions": objects.Manifest(obj.Name),
	}, &out)
	if err != nil {
		return nil, fmt.Errorf("backport %s %s: %w", obj.Name, obj.Version, err)
	}
	if err := objects.Check(&out); err != nil {
		return nil, fmt.Errorf("backport %s %s: %w", obj.Name, obj.Version, err)
	}
	return &out, nil
}

func remarshal(in, out any) error {
	raw, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

// positional and keyword make sure that nothing is [] and {} and not null.
func positional(args []any) []any {
	if args == nil {
		return []any{}
	}
	return args
}

func keyword(kwargs map[string]any) map[string]any {
	if kwargs == nil {
		return map[string]any{}
	}
	return kwargs
}
