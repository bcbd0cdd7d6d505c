package network

import "context"

// Event is one of Nova's server external events
// (nova/objects/external_event.py).
type Event struct {
	// Name is "network-vif-plugged", "network-vif-unplugged",
	// "network-vif-deleted" or "network-changed".
	Name string
	// ServerID is the instance.
	ServerID string
	// Tag is the port, empty for an event of all its ports.
	Tag string
	// Status is "completed" or "failed".
	Status string
}

// The events that are sent.
const (
	VIFPlugged     = "network-vif-plugged"
	VIFUnplugged   = "network-vif-unplugged"
	VIFDeleted     = "network-vif-deleted"
	NetworkChanged = "network-changed"
)

// Events takes the events that Nova waits for. Events of servers that it does
// not know are nothing to it. An error with errdefs.ErrUnavailable is tried
// again a few times.
type Events interface {
	ServerExternalEvents(ctx context.Context, events []Event) error
}
