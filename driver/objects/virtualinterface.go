package objects

// VirtualInterface records a port of an instance; its rows fix the order of
// interfaces. Follows nova/objects/virtual_interface.py, VirtualInterface 1.3.
type VirtualInterface struct{ *Object }

// NewVirtualInterface returns a record to create. The stored address carries
// the port's id so that equal MACs on different networks do not collide.
func NewVirtualInterface(instance, port, mac, tag string) VirtualInterface {
	v := VirtualInterface{New("VirtualInterface")}
	v.Set("address", mac+"/"+port)
	v.Set("instance_uuid", instance)
	v.Set("uuid", port)
	v.Set("tag", orNull(tag))
	return v
}

// Wire returns the object.
func (v VirtualInterface) Wire() *Object { return v.Object }

// UnmarshalJSON reads a VirtualInterface primitive.
func (v *VirtualInterface) UnmarshalJSON(raw []byte) error {
	return read(raw, "VirtualInterface", &v.Object)
}

// PortID is Neutron's port.
func (v VirtualInterface) PortID() string { return v.String("uuid") }

// Tag is the device tag, "" when none.
func (v VirtualInterface) Tag() string { return v.String("tag") }

// VirtualInterfaceList is the ports of an instance in the order of their
// interfaces. Follows nova/objects/virtual_interface.py, VirtualInterfaceList 1.0.
type VirtualInterfaceList struct{ *Object }

// Wire returns the object.
func (l VirtualInterfaceList) Wire() *Object { return l.Object }

// UnmarshalJSON reads a VirtualInterfaceList primitive.
func (l *VirtualInterfaceList) UnmarshalJSON(raw []byte) error {
	return read(raw, "VirtualInterfaceList", &l.Object)
}

// All returns the records in order.
func (l VirtualInterfaceList) All() []VirtualInterface {
	return views(l.Objects("objects"), func(o *Object) VirtualInterface { return VirtualInterface{o} })
}
