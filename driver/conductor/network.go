package conductor

import (
	"context"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// SaveInfoCache is InstanceInfoCache.save of network_info: what the API shows
// as addresses from now on.
func (c *Client) SaveInfoCache(ctx context.Context, rc messaging.RequestContext, uuid string, info objects.NetworkInfo) error {
	cache := objects.NewInstanceInfoCache(uuid, info)
	if err := c.do(ctx, rc, cache.Object, "save"); err != nil {
		return fmt.Errorf("save network of %s: %w", uuid, err)
	}
	return nil
}

// GetInfoCache is InstanceInfoCache.get_by_instance_uuid. Remote
// InstanceInfoCacheNotFound if the instance has none.
func (c *Client) GetInfoCache(ctx context.Context, rc messaging.RequestContext, uuid string) (objects.NetworkInfo, error) {
	var cache objects.InstanceInfoCache
	err := c.ClassAction(ctx, rc, "InstanceInfoCache", "get_by_instance_uuid", []any{uuid}, nil, &cache)
	if err != nil {
		return nil, fmt.Errorf("get network of %s: %w", uuid, err)
	}
	return cache.NetworkInfo()
}

// CreateVIF is VirtualInterface.create; see objects.NewVirtualInterface.
func (c *Client) CreateVIF(ctx context.Context, rc messaging.RequestContext, vif *objects.Object) error {
	if err := c.do(ctx, rc, vif, "create"); err != nil {
		return fmt.Errorf("record port %s: %w", vif.String("uuid"), err)
	}
	return nil
}

// VIFs is VirtualInterfaceList.get_by_instance_uuid, in the order of the
// instance's interfaces.
func (c *Client) VIFs(ctx context.Context, rc messaging.RequestContext, uuid string) ([]*objects.Object, error) {
	var list objects.VirtualInterfaceList
	err := c.ClassAction(ctx, rc, "VirtualInterfaceList", "get_by_instance_uuid", []any{uuid}, nil, &list)
	if err != nil {
		return nil, fmt.Errorf("get port records of %s: %w", uuid, err)
	}
	return list.Objects("objects"), nil
}

// DeleteVIFs is VirtualInterface.delete_by_instance_uuid. None there is success.
func (c *Client) DeleteVIFs(ctx context.Context, rc messaging.RequestContext, uuid string) error {
	err := c.ClassAction(ctx, rc, "VirtualInterface", "delete_by_instance_uuid", []any{uuid}, nil, nil)
	if err != nil {
		return fmt.Errorf("delete port records of %s: %w", uuid, err)
	}
	return nil
}

// DeleteVIF is VirtualInterface.get_by_uuid and destroy: the row of one port. None
// there is success.
func (c *Client) DeleteVIF(ctx context.Context, rc messaging.RequestContext, port string) error {
	var vif *objects.Object
	err := c.ClassAction(ctx, rc, "VirtualInterface", "get_by_uuid", []any{port}, nil, &vif)
	if err == nil && vif != nil {
		err = c.do(ctx, rc, vif, "destroy")
	}
	if err != nil && !messaging.IsRemote(err, "VirtualInterfaceNotFound") {
		return fmt.Errorf("delete record of port %s: %w", port, err)
	}
	return nil
}
