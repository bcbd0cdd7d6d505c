package cell

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
)

var (
	actions = table{name: "actions", object: "InstanceAction", columns: []string{"instance_uuid", "request_id", "updated_at"}}
	events  = table{name: "events", object: "InstanceActionEvent", columns: []string{"action_id", "event"}}
)

// Actor is an action on an instance and who asked for it.
type Actor struct {
	// Action is Nova's word: create, delete, stop …
	Action                       string
	RequestID, UserID, ProjectID string
}

// StartAction records an action as the API does before it acts.
func (s *Store) StartAction(ctx context.Context, instance string, a Actor) (o *objects.Object, err error) {
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		o, err = startAction(ctx, tx, instance, a)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start action %s of %s: %w", a.Action, instance, err)
	}
	return o, nil
}

func startAction(ctx context.Context, tx *sql.Tx, instance string, a Actor) (*objects.Object, error) {
	o := objects.New("InstanceAction")
	for field, v := range map[string]string{
		"instance_uuid": instance, "action": a.Action, "request_id": a.RequestID, "user_id": a.UserID, "project_id": a.ProjectID,
	} {
		if v != "" {
			o.SetClean(field, v)
		}
	}
	now := time.Now()
	o.SetClean("start_time", now)
	o.SetClean("updated_at", now)
	return o, actions.insert(ctx, tx, o)
}

// ActionQuery selects actions of an instance; the zero value selects all.
type ActionQuery struct {
	// ChangedSince and ChangedBefore are inclusive; zero is no limit.
	ChangedSince, ChangedBefore time.Time
	// Marker is the request id of the action before the page; an unknown one
	// is errdefs.ErrNotFound.
	Marker string
	// Limit is the most that is returned; 0 is no limit.
	Limit int
}

// Actions returns InstanceAction objects of an instance, newest first. Those
// of a deleted instance stay.
func (s *Store) Actions(ctx context.Context, instance string, q ActionQuery) (out []*objects.Object, err error) {
	b := &builder{}
	b.add("instance_uuid = ?", instance)
	if !q.ChangedSince.IsZero() {
		b.add("updated_at >= ?", stamp(q.ChangedSince))
	}
	if !q.ChangedBefore.IsZero() {
		b.add("updated_at <= ?", stamp(q.ChangedBefore))
	}
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		if q.Marker != "" {
			m, err := actionOf(ctx, tx, instance, q.Marker)
			if err != nil {
				return fmt.Errorf("marker %s: %w", q.Marker, err)
			}
			b.add("id < ?", m.Int("id"))
		}
		tail := b.where() + " ORDER BY id DESC"
		if q.Limit > 0 {
			tail += fmt.Sprintf(" LIMIT %d", q.Limit)
		}
		out, err = actions.list(ctx, tx, tail, b.args...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list actions of %s: %w", instance, err)
	}
	return out, nil
}

// Action returns the InstanceAction of a request with its InstanceActionEvent
// objects, newest first.
func (s *Store) Action(ctx context.Context, instance, requestID string) (action *objects.Object, of []*objects.Object, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		if action, err = actionOf(ctx, tx, instance, requestID); err != nil {
			return err
		}
		of, err = events.list(ctx, tx, "WHERE action_id = ? ORDER BY id DESC", action.Int("id"))
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("get action %s of %s: %w", requestID, instance, err)
	}
	return action, of, nil
}

func actionOf(ctx context.Context, tx *sql.Tx, instance, requestID string) (*objects.Object, error) {
	return actions.one(ctx, tx, "WHERE instance_uuid = ? AND request_id = ? ORDER BY id DESC", instance, requestID)
}

// Event is a step of an action.
type Event struct {
	Instance, RequestID string
	// Latest takes the instance's latest action when none has the request id,
	// for work that a service does by itself.
	Latest bool
	// Name is for example "compute_stop_instance".
	Name string
	// Host does it; empty is null.
	Host string
}

// eventAction finds the action of an event; own says that it is the event's
// own and not only the latest.
func eventAction(ctx context.Context, tx *sql.Tx, e Event) (a *objects.Object, own bool, err error) {
	a, err = actionOf(ctx, tx, e.Instance, e.RequestID)
	if err == nil || !e.Latest || !errors.Is(err, sql.ErrNoRows) {
		return a, true, err
	}
	a, err = actions.one(ctx, tx, "WHERE instance_uuid = ? ORDER BY id DESC", e.Instance)
	return a, false, err
}

// StartEvent records the start of a step. Without an action it is
// errdefs.ErrNotFound.
func (s *Store) StartEvent(ctx context.Context, e Event) (o *objects.Object, err error) {
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		a, own, err := eventAction(ctx, tx, e)
		if err != nil {
			return err
		}
		o = objects.New("InstanceActionEvent")
		o.SetClean("action_id", a.Int("id"))
		o.SetClean("event", e.Name)
		o.SetClean("start_time", time.Now())
		if e.Host != "" {
			o.SetClean("host", e.Host)
		}
		if err := events.insert(ctx, tx, o); err != nil || !own {
			return err
		}
		a.SetClean("updated_at", o.Get("start_time"))
		return actions.update(ctx, tx, a)
	})
	if err != nil {
		return nil, fmt.Errorf("start event %s of %s: %w", e.Name, e.Instance, err)
	}
	return o, nil
}

// EventResult is how a step ended.
type EventResult struct {
	// Failed makes it an Error and the action's message "Error".
	Failed bool
	// Details are for the tenant, Traceback is for administrators; both only
	// of a failure, empty is null.
	Details, Traceback string
}

// ErrNoEvent says that an action is there but has no such event.
var ErrNoEvent = errors.New("no such event")

// FinishEvent records the end of a step. Without an action it is
// errdefs.ErrNotFound, without the event in it ErrNoEvent.
func (s *Store) FinishEvent(ctx context.Context, e Event, r EventResult) (o *objects.Object, err error) {
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		a, own, err := eventAction(ctx, tx, e)
		if err != nil {
			return err
		}
		o, err = events.one(ctx, tx, "WHERE action_id = ? AND event = ? ORDER BY id", a.Int("id"), e.Name)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w for action %d", ErrNoEvent, a.Int("id"))
		}
		if err != nil {
			return err
		}
		now := time.Now()
		apply(o, map[string]any{"finish_time": now, "updated_at": now, "result": "Success"})
		if r.Failed {
			apply(o, map[string]any{"result": "Error", "details": orNull(r.Details), "traceback": orNull(r.Traceback)})
			a.SetClean("message", "Error")
		}
		if own {
			a.SetClean("updated_at", now)
		}
		if err := events.update(ctx, tx, o); err != nil {
			return err
		}
		return actions.update(ctx, tx, a)
	})
	if err != nil {
		return nil, fmt.Errorf("finish event %s of %s: %w", e.Name, e.Instance, err)
	}
	return o, nil
}

// FinishAction sets an action's finish_time.
func (s *Store) FinishAction(ctx context.Context, instance, requestID string) (*objects.Object, error) {
	o, err := s.change(ctx, actions, func(a *objects.Object) error {
		a.SetClean("finish_time", time.Now())
		return nil
	}, "WHERE instance_uuid = ? AND request_id = ? ORDER BY id DESC", instance, requestID)
	if err != nil {
		return nil, fmt.Errorf("finish action %s of %s: %w", requestID, instance, err)
	}
	return o, nil
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
