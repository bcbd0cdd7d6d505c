package objects

// InstanceExternalEvent is a word from Neutron or Cinder. Follows
// nova/objects/external_event.py, InstanceExternalEvent 1.5.
type InstanceExternalEvent struct{ *Object }

// Wire returns the object.
func (e InstanceExternalEvent) Wire() *Object { return e.Object }

// UnmarshalJSON reads an InstanceExternalEvent primitive.
func (e *InstanceExternalEvent) UnmarshalJSON(raw []byte) error {
	return read(raw, "InstanceExternalEvent", &e.Object)
}

// InstanceUUID is the instance that it is about.
func (e InstanceExternalEvent) InstanceUUID() string { return e.String("instance_uuid") }

// EventName is for example "network-vif-plugged".
func (e InstanceExternalEvent) EventName() string { return e.String("name") }

// Status is failed, completed or in-progress.
func (e InstanceExternalEvent) Status() string { return e.String("status") }

// Tag is the port's or volume's id, "" when none.
func (e InstanceExternalEvent) Tag() string { return e.String("tag") }
