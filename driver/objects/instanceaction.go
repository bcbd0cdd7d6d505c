package objects

import "time"

// InstanceAction is one request of a user for an instance. Follows
// nova/objects/instance_action.py, InstanceAction 1.2.
type InstanceAction struct{ *Object }

// Wire returns the object.
func (a InstanceAction) Wire() *Object { return a.Object }

// UnmarshalJSON reads an InstanceAction primitive.
func (a *InstanceAction) UnmarshalJSON(raw []byte) error {
	return read(raw, "InstanceAction", &a.Object)
}

// Action is for example "create".
func (a InstanceAction) Action() string { return a.String("action") }

// RequestID is the request that asked for it.
func (a InstanceAction) RequestID() string { return a.String("request_id") }

// InstanceActionEvent is one step of an action. Follows
// nova/objects/instance_action.py, InstanceActionEvent 1.4.
type InstanceActionEvent struct{ *Object }

// Wire returns the object.
func (e InstanceActionEvent) Wire() *Object { return e.Object }

// UnmarshalJSON reads an InstanceActionEvent primitive.
func (e *InstanceActionEvent) UnmarshalJSON(raw []byte) error {
	return read(raw, "InstanceActionEvent", &e.Object)
}

// Event is for example "compute_stop_instance".
func (e InstanceActionEvent) Event() string { return e.String("event") }

// Result is Success, Error or "" while it runs.
func (e InstanceActionEvent) Result() string { return e.String("result") }

// FinishTime is zero while it runs.
func (e InstanceActionEvent) FinishTime() time.Time { return e.Time("finish_time") }
