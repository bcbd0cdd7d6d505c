package conductortest

import (
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// AddAction stores an action as the API does before it casts.
func (c *Conductor) AddAction(instance, action, requestID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addAction(instance, action, requestID)
}

func (c *Conductor) addAction(instance, action, requestID string) {
	a := objects.New("InstanceAction")
	a.SetClean("id", c.id())
	a.SetClean("instance_uuid", instance)
	a.SetClean("action", action)
	a.SetClean("request_id", requestID)
	a.SetClean("start_time", time.Now())
	c.actions = append(c.actions, a)
}

// Actions returns the names of the instance's actions, in order.
func (c *Conductor) Actions(instance string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, a := range where(c.actions, "instance_uuid", instance) {
		out = append(out, a.String("action"))
	}
	return out
}

// Event is an event of an action as the API shows it.
type Event struct {
	Action, Name, Host string
	// Result is Success, Error or "" while it is open.
	Result string
	// Details and Traceback are of an Error.
	Details, Traceback string
}

// Events returns the instance's events in the order of their start.
func (c *Conductor) Events(instance string) []Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Event
	for _, e := range c.events {
		for _, a := range where(c.actions, "instance_uuid", instance) {
			if a.Int("id") == e.Int("action_id") {
				out = append(out, Event{
					Action: a.String("action"), Name: e.String("event"), Host: e.String("host"),
					Result: e.String("result"), Details: e.String("details"), Traceback: e.String("traceback"),
				})
			}
		}
	}
	return out
}

// Faults returns the instance's faults, oldest first.
func (c *Conductor) Faults(instance string) []objects.InstanceFault {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []objects.InstanceFault
	for _, f := range where(c.faults, "instance_uuid", instance) {
		out = append(out, objects.InstanceFault{Object: f.Clone()})
	}
	return out
}

func (c *Conductor) actionStart(in invocation) (any, error) {
	if in.rc.RequestID() == "" {
		return nil, valueError("an action needs a request id")
	}
	c.addAction(in.text(0, "instance_uuid"), in.text(1, "action_name"), in.rc.RequestID())
	return nil, nil
}

// actionOf finds the action of an event: by request id, or the latest one when
// the context has no project.
func (c *Conductor) actionOf(in invocation) (*objects.Object, error) {
	id := in.text(0, "instance_uuid")
	all := where(c.actions, "instance_uuid", id)
	if own := where(all, "request_id", in.rc.RequestID()); len(own) > 0 {
		return own[0], nil
	}
	if in.rc.ProjectID() == "" && len(all) > 0 {
		return all[len(all)-1], nil
	}
	return nil, messaging.NovaError("InstanceActionNotFound", 500, "Action for request_id %s on instance %s not found", in.rc.RequestID(), id)
}

func (c *Conductor) eventStart(in invocation) (any, error) {
	a, err := c.actionOf(in)
	if err != nil {
		return nil, err
	}
	e := objects.New("InstanceActionEvent")
	e.SetClean("id", c.id())
	e.SetClean("action_id", a.Int("id"))
	e.SetClean("event", in.text(1, "event_name"))
	e.SetClean("host", in.kwargs["host"])
	e.SetClean("start_time", time.Now())
	c.events = append(c.events, e)
	return nil, nil
}

func (c *Conductor) eventFinish(in invocation) (any, error) {
	a, err := c.actionOf(in)
	if err != nil {
		return nil, err
	}
	name := in.text(1, "event_name")
	for _, e := range c.events {
		if e.Int("action_id") != a.Int("id") || e.String("event") != name {
			continue
		}
		e.SetClean("result", "Success")
		if in.kwargs["exc_tb"] != nil {
			e.SetClean("result", "Error")
			e.SetClean("traceback", in.kwargs["exc_tb"])
			e.SetClean("details", in.kwargs["exc_val"])
			a.SetClean("message", "Error")
		}
		e.SetClean("finish_time", time.Now())
		return nil, nil
	}
	return nil, messaging.NovaError("InstanceActionEventNotFound", 500, "Event %s not found for action id %d", name, a.Int("id"))
}

func (c *Conductor) createFault(in invocation) (any, error) {
	if c.row(in.obj.String("instance_uuid")) == nil {
		return nil, messaging.NovaError("InstanceNotFound", 404, "Instance %s could not be found.", in.obj.String("instance_uuid"))
	}
	if len(in.obj.String("message")) > 255 {
		return nil, valueError("Data too long for column 'message'")
	}
	in.obj.SetClean("id", c.id())
	in.obj.ResetChanges()
	c.faults = append(c.faults, in.obj.Clone())
	return nil, nil
}
