package conductor

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// MinimumServiceVersion is Service.get_minimum_version: the lowest level that
// a service of that binary reports in the cell, 0 without records. Conductor
// caches it.
func (c *Client) MinimumServiceVersion(ctx context.Context, rc messaging.RequestContext, binary string) (int, error) {
	var version int
	if err := c.ClassAction(ctx, rc, "Service", "get_minimum_version", []any{binary}, nil, &version); err != nil {
		return 0, err
	}
	return version, nil
}

// GetService is Service.get_by_host_and_binary; nil when there is none.
func (c *Client) GetService(ctx context.Context, rc messaging.RequestContext, host, binary string) (*objects.Object, error) {
	var s objects.Service
	if err := c.ClassAction(ctx, rc, "Service", "get_by_host_and_binary", []any{host, binary}, nil, &s); err != nil {
		return nil, fmt.Errorf("get service %s of %s: %w", binary, host, err)
	}
	return s.Object, nil
}

// GetComputeService is Service.get_by_compute_host. Remote ComputeHostNotFound
// if absent.
func (c *Client) GetComputeService(ctx context.Context, rc messaging.RequestContext, host string) (*objects.Object, error) {
	var s objects.Service
	if err := c.ClassAction(ctx, rc, "Service", "get_by_compute_host", []any{host}, nil, &s); err != nil {
		return nil, fmt.Errorf("get compute service of %s: %w", host, err)
	}
	return s.Object, nil
}

// CreateService is Service.create. On nil svc holds what the row holds. Remote
// ServiceTopicExists or ServiceBinaryExists: another process was faster.
func (c *Client) CreateService(ctx context.Context, rc messaging.RequestContext, svc *objects.Object) error {
	return c.do(ctx, rc, svc, "create")
}

// SaveService is Service.save of the changed fields. The whole record goes
// along, version among it, because conductor compares that. On nil the updates
// are merged into svc (disabled, forced_down and last_seen_up come this way).
// Remote ServiceNotFound: an operator has deleted the record.
func (c *Client) SaveService(ctx context.Context, rc messaging.RequestContext, svc *objects.Object) error {
	return c.do(ctx, rc, svc, "save")
}

// GetComputeNode is ComputeNode.get_by_host_and_nodename. Remote
// ComputeHostNotFound if absent.
func (c *Client) GetComputeNode(ctx context.Context, rc messaging.RequestContext, host, node string) (*objects.Object, error) {
	var n objects.ComputeNode
	if err := c.ClassAction(ctx, rc, "ComputeNode", "get_by_host_and_nodename", []any{host, node}, nil, &n); err != nil {
		return nil, fmt.Errorf("get compute node %s of %s: %w", node, host, err)
	}
	return n.Object, nil
}

// ComputeNodesByHost is ComputeNodeList.get_all_by_host. Remote
// ComputeHostNotFound when the host has none.
func (c *Client) ComputeNodesByHost(ctx context.Context, rc messaging.RequestContext, host string) ([]*objects.Object, error) {
	var l objects.ComputeNodeList
	if err := c.ClassAction(ctx, rc, "ComputeNodeList", "get_all_by_host", []any{host}, nil, &l); err != nil {
		return nil, fmt.Errorf("get compute nodes of %s: %w", host, err)
	}
	return l.Objects("objects"), nil
}

// CreateComputeNode is ComputeNode.create. On nil node holds what the row
// holds; a save with usage must follow (objects.ComputeNode.SetUsage).
func (c *Client) CreateComputeNode(ctx context.Context, rc messaging.RequestContext, node *objects.Object) error {
	return c.do(ctx, rc, node, "create")
}

// SaveComputeNode is ComputeNode.save of the changed fields. Without a mark
// nothing is sent.
func (c *Client) SaveComputeNode(ctx context.Context, rc messaging.RequestContext, node *objects.Object) error {
	if len(node.Changes()) == 0 {
		return nil
	}
	return c.do(ctx, rc, node, "save")
}

// DestroyComputeNode is ComputeNode.destroy.
func (c *Client) DestroyComputeNode(ctx context.Context, rc messaging.RequestContext, node *objects.Object) error {
	return c.do(ctx, rc, node, "destroy")
}

// do runs a method without arguments whose result is of no interest.
func (c *Client) do(ctx context.Context, rc messaging.RequestContext, obj *objects.Object, method string) error {
	_, err := c.ObjectAction(ctx, rc, obj, method, nil, nil)
	return err
}
