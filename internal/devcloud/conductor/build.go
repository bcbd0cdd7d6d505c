package conductor

import (
	"context"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// BuildRequest is a request for servers that was accepted: their instances are
// in the cell, in building and scheduling, with a request spec each (of one
// flavor and image, the first is asked of the scheduler), their disks and the
// action "create" of rc's request id.
type BuildRequest struct {
	Instances []objects.Instance
	// Image is Glance's image as a dictionary, its own properties under
	// "properties"; empty for none.
	Image map[string]any
	// AdminPassword is shown to the tenant once.
	AdminPassword string
	// Files are pairs of a path and its content in base64.
	Files [][2]string
	// Networks is a NetworkRequestList; nil for none.
	Networks *objects.Object
	// SecurityGroups are names or ids.
	SecurityGroups []string
}

// Build schedules the instances, allocates their resources and tells the chosen
// hosts to build them. It returns when the work is taken; the rest happens in
// the background. Where no host is found, the instances become ERROR with a
// fault and an event that say so. A crash in the middle is repaired by Recover.
func (c *Conductor) Build(ctx context.Context, rc messaging.RequestContext, r BuildRequest) error {
	return c.begin(ctx, func(ctx context.Context) { c.build(ctx, rc, r) })
}

// DeleteUnhosted ends an instance that no compute host has or whose host is
// down: its allocation, ports and row go. The row must be in task state
// deleting. An instance that has got a host meanwhile is errdefs.ErrConflict.
func (c *Conductor) DeleteUnhosted(ctx context.Context, rc messaging.RequestContext, instance string) error {
	return c.deleteLocally(ctx, rc, instance)
}
