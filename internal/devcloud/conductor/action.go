package conductor

import (
	"context"
	"errors"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// wanted is the result of a method that may be asked for none (want_result).
func (in call) wanted(i int, unless bool, o *objects.Object) any {
	want, given := in.arg(i, "want_result").(bool)
	if !given {
		want = unless
	}
	if !want || o == nil {
		return nil
	}
	return o
}

func (c *Conductor) actionStart(ctx context.Context, in call) (any, error) {
	if in.rc.RequestID() == "" {
		return nil, builtin("ValueError", "an action needs a request id")
	}
	a, err := c.o.Store.StartAction(ctx, in.text(0, "instance_uuid"), cell.Actor{
		Action: in.text(1, "action_name"), RequestID: in.rc.RequestID(), UserID: in.rc.UserID(), ProjectID: in.rc.ProjectID(),
	})
	return in.wanted(2, true, a), err
}

func (c *Conductor) actionFinish(ctx context.Context, in call) (any, error) {
	a, err := c.o.Store.FinishAction(ctx, in.text(0, "instance_uuid"), in.rc.RequestID())
	if err != nil {
		return nil, or(err, in.noAction())
	}
	return in.wanted(1, true, a), nil
}

func (c *Conductor) getAction(ctx context.Context, in call) (any, error) {
	a, _, err := c.o.Store.Action(ctx, in.text(0, "instance_uuid"), in.text(1, "request_id"))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil //nolint:nilnil // Nova answers so
	}
	return a, err
}

func (in call) noAction() *messaging.RemoteError {
	return messaging.NovaError("InstanceActionNotFound", 500, "Action for request_id %s on instance %s not found", in.rc.RequestID(), in.text(0, "instance_uuid"))
}

func (in call) event() cell.Event {
	return cell.Event{
		Instance: in.text(0, "instance_uuid"), RequestID: in.rc.RequestID(), Latest: in.rc.ProjectID() == "",
		Name: in.text(1, "event_name"),
	}
}

func (c *Conductor) eventStart(ctx context.Context, in call) (any, error) {
	e := in.event()
	e.Host = in.text(3, "host")
	o, err := c.o.Store.StartEvent(ctx, e)
	if err != nil {
		return nil, or(err, in.noAction())
	}
	return in.wanted(2, true, o), nil
}

// eventFinish is event_finish_with_failure: exc_tb makes it a failure.
func (c *Conductor) eventFinish(ctx context.Context, in call) (any, error) {
	trace, failed := in.kwargs["exc_tb"].(string)
	text, _ := in.kwargs["exc_val"].(string)
	e := in.event()
	o, err := c.o.Store.FinishEvent(ctx, e, cell.EventResult{Failed: failed, Details: clip(text), Traceback: trace})
	if errors.Is(err, cell.ErrNoEvent) {
		return nil, messaging.NovaError("InstanceActionEventNotFound", 500, "Event %s not found for action id of request %s", e.Name, e.RequestID)
	}
	if err != nil {
		return nil, or(err, in.noAction())
	}
	return in.wanted(4, false, o), nil
}

// maxMessage is how long a fault's message and an event's details are, in bytes.
const maxMessage = 255

// clip is s cut to maxMessage.
func clip(s string) string { return objects.NewInstanceFault("", "", 0, s, "").Message() }

func (c *Conductor) createFault(ctx context.Context, in call) (*objects.Object, any, error) {
	if in.obj.Has("id") {
		return nil, nil, actionFailed("create", "already created")
	}
	f := objects.InstanceFault{Object: in.obj}
	if len(f.Message()) > maxMessage {
		return nil, nil, &messaging.RemoteError{Class: "DBDataError", Module: "oslo_db.exception", Message: "Data too long for column 'message'"}
	}
	f, err := c.o.Store.AddFault(ctx, f)
	if err != nil {
		return nil, nil, or(err, noInstance(in.obj.String("instance_uuid")))
	}
	return f.Object, nil, nil
}
