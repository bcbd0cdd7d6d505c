package conductor

import (
	"context"
	"fmt"
	"slices"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// nodeLink is how an object of Nova 2023.2 and newer names a compute node
// twice: by host and node, and by the id of its row. A save of the one without
// the other is refused (ObjectActionError), or leaves a link to another host.
//
// Source: Instance.save and Migration.create of nova/objects.
type nodeLink struct{ since, host, node, id string }

// The objects that have one, by the version that brought it.
func instanceLink() nodeLink { return nodeLink{"2.8", "host", "node", "compute_id"} }

func migrationLink() nodeLink {
	return nodeLink{"1.8", "dest_compute", "dest_node", "dest_compute_id"}
}

// follow puts the node's row id into send where send changes the node and is
// of a version that has the field. A node that conductor does not know has
// none. Other objects cost nothing, a link one call.
func (l nodeLink) follow(ctx context.Context, c *Client, rc messaging.RequestContext, whole, send *objects.Object) error {
	if !send.Since(l.since) || !slices.Contains(send.Changes(), l.node) {
		return nil
	}
	if whole.IsNull(l.node) || whole.IsNull(l.host) {
		send.Set(l.id, nil)
		return nil
	}
	node, err := c.GetComputeNode(ctx, rc, whole.String(l.host), whole.String(l.node))
	if messaging.IsRemote(err, "ComputeHostNotFound") {
		send.Set(l.id, nil)
		return nil
	}
	if err != nil {
		return fmt.Errorf("link to the node: %w", err)
	}
	send.Set(l.id, node.Int("id"))
	return nil
}
