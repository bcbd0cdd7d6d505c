package conductor

import (
	"context"
	"slices"

	"github.com/gantry-project/gantry/driver/objects"
)

func (c *Conductor) getInfoCache(ctx context.Context, in call) (any, error) {
	id := in.text(0, "instance_uuid")
	row, err := c.o.Store.Instance(ctx, id)
	if err != nil {
		return nil, or(err, noCache(id))
	}
	return row.InfoCache().Object, nil
}

func (c *Conductor) saveInfoCache(ctx context.Context, in call) (*objects.Object, any, error) {
	id := in.obj.String("instance_uuid")
	if slices.Contains(in.obj.Changes(), "network_info") {
		text := in.obj.String("network_info")
		if text == "" {
			text = "[]"
		}
		if _, err := objects.ParseNetworkInfo(text); err != nil {
			return nil, nil, builtin("ValueError", "%v", err)
		}
		if err := c.o.Store.SaveInfoCache(ctx, id, text); err != nil {
			return nil, nil, or(err, noCache(id))
		}
	}
	row, err := c.o.Store.Instance(ctx, id)
	if err != nil {
		return nil, nil, or(err, noCache(id))
	}
	return row.InfoCache().Object, nil, nil
}

func (c *Conductor) refreshInfoCache(ctx context.Context, in call) (*objects.Object, any, error) {
	id := in.obj.String("instance_uuid")
	row, err := c.o.Store.Instance(ctx, id)
	if err != nil {
		return nil, nil, or(err, noCache(id))
	}
	after := objects.New("InstanceInfoCache")
	for _, f := range in.obj.Fields() {
		after.SetClean(f, row.InfoCache().Get(f))
	}
	return after, nil, nil
}
