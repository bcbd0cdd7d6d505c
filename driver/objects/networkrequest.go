package objects

// NetworkRequest is one network or port that the user asked for. Follows
// nova/objects/network_request.py, NetworkRequest 1.3.
type NetworkRequest struct{ *Object }

// Wire returns the object.
func (n NetworkRequest) Wire() *Object { return n.Object }

// UnmarshalJSON reads a NetworkRequest primitive.
func (n *NetworkRequest) UnmarshalJSON(raw []byte) error {
	return read(raw, "NetworkRequest", &n.Object)
}

// NetworkID is a network's id, or "auto" or "none"; "" when null.
func (n NetworkRequest) NetworkID() string { return n.String("network_id") }

// Address is the fixed address asked for, "" when null.
func (n NetworkRequest) Address() string { return n.String("address") }

// PortID is the existing port to use, "" when null.
func (n NetworkRequest) PortID() string { return n.String("port_id") }

// Tag is the device tag, "" when null.
func (n NetworkRequest) Tag() string { return n.String("tag") }

// NetworkRequestList is what the user asked for. Follows
// nova/objects/network_request.py, NetworkRequestList 1.1.
type NetworkRequestList struct{ *Object }

// Wire returns the object.
func (l NetworkRequestList) Wire() *Object { return l.Object }

// UnmarshalJSON reads a NetworkRequestList primitive.
func (l *NetworkRequestList) UnmarshalJSON(raw []byte) error {
	return read(raw, "NetworkRequestList", &l.Object)
}

// All returns the requests in order.
func (l NetworkRequestList) All() []NetworkRequest {
	return views(l.Objects("objects"), func(o *Object) NetworkRequest { return NetworkRequest{o} })
}

// NoAllocate says that the user asked for no network at all.
func (l NetworkRequestList) NoAllocate() bool {
	all := l.All()
	return len(all) == 1 && all[0].NetworkID() == "none"
}

// AutoAllocate says that the user asked for the automatic topology.
func (l NetworkRequestList) AutoAllocate() bool {
	all := l.All()
	return len(all) == 1 && all[0].NetworkID() == "auto"
}
