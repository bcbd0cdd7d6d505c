package conductor

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// EventStart is InstanceActionEvent.event_start for this host. Conductor finds
// the action by rc's request id; in a context without a project it takes the
// instance's latest. Remote InstanceActionNotFound if there is none.
func (c *Client) EventStart(ctx context.Context, rc messaging.RequestContext, uuid, event string) error {
	err := c.ClassAction(ctx, rc, "InstanceActionEvent", "event_start", []any{uuid, event},
		map[string]any{"want_result": false, "host": c.host}, nil)
	if err != nil {
		return fmt.Errorf("start event %s of %s: %w", event, uuid, err)
	}
	return nil
}

// EventFinish is InstanceActionEvent.event_finish_with_failure. With an empty
// failure the event is a success. Otherwise failure is the text that the user
// reads and trace, for administrators, marks the error; an empty one is
// replaced by failure.
func (c *Client) EventFinish(ctx context.Context, rc messaging.RequestContext, uuid, event, failure, trace string) error {
	kwargs := map[string]any{"exc_val": nil, "exc_tb": nil, "want_result": false}
	if failure != "" {
		if trace == "" {
			trace = failure
		}
		kwargs["exc_val"], kwargs["exc_tb"] = failure, trace
	}
	err := c.ClassAction(ctx, rc, "InstanceActionEvent", "event_finish_with_failure", []any{uuid, event}, kwargs, nil)
	if err != nil {
		return fmt.Errorf("finish event %s of %s: %w", event, uuid, err)
	}
	return nil
}

// ActionStart is InstanceAction.action_start, for work that nobody asked for
// through the API.
func (c *Client) ActionStart(ctx context.Context, rc messaging.RequestContext, uuid, action string) error {
	err := c.ClassAction(ctx, rc, "InstanceAction", "action_start", []any{uuid, action},
		map[string]any{"want_result": false}, nil)
	if err != nil {
		return fmt.Errorf("start action %s of %s: %w", action, uuid, err)
	}
	return nil
}

// CreateFault is InstanceFault.create for this host. message is cut to 255
// bytes; details are shown to administrators only.
func (c *Client) CreateFault(ctx context.Context, rc messaging.RequestContext, uuid string, code int, message, details string) error {
	fault := objects.NewInstanceFault(uuid, c.host, code, message, details)
	if err := c.do(ctx, rc, fault.Object, "create"); err != nil {
		return fmt.Errorf("create fault of %s: %w", uuid, err)
	}
	return nil
}
