package conductor

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func (c *Conductor) getBlockDevices(ctx context.Context, in call) (any, error) {
	id := in.text(0, "instance_uuid")
	rows, err := c.o.Store.BlockDevices(ctx, id)
	if err != nil {
		return nil, err
	}
	return list("BlockDeviceMappingList", rows[id]), nil
}

func (c *Conductor) getBlockDevicesOf(ctx context.Context, in call) (any, error) {
	ids := texts(in.arg(0, "instance_uuids"))
	rows, err := c.o.Store.BlockDevices(ctx, ids...)
	if err != nil {
		return nil, err
	}
	var all []*objects.Object
	for _, id := range ids {
		all = append(all, rows[id]...)
	}
	return list("BlockDeviceMappingList", all), nil
}

func (c *Conductor) createBlockDevice(ctx context.Context, in call) (*objects.Object, any, error) {
	if in.obj.Has("id") {
		return nil, nil, actionFailed("create", "already created")
	}
	o, err := c.o.Store.CreateBlockDevice(ctx, in.obj)
	return o, nil, err
}

func (c *Conductor) saveBlockDevice(ctx context.Context, in call) (*objects.Object, any, error) {
	if slices.Contains(in.obj.Changes(), "instance") {
		return nil, nil, actionFailed("save", "instance changed")
	}
	o, err := c.o.Store.SaveBlockDevice(ctx, in.obj.Int("id"), in.saved())
	if err != nil {
		return nil, nil, or(err, messaging.NovaError("BDMNotFound", 404, "No Block Device Mapping with id %d.", in.obj.Int("id")))
	}
	return o, nil, nil
}

// saved are the changes without the id, which is in the row already.
func (in call) saved() map[string]any {
	fields := in.changes()
	delete(fields, "id")
	return fields
}

func (c *Conductor) destroyBlockDevice(ctx context.Context, in call) (*objects.Object, any, error) {
	return nil, nil, c.o.Store.DestroyBlockDevice(ctx, in.obj.Int("id"))
}

// shown is an interface as Nova's object has it: without the port's id that
// makes the address unique in the table.
func shown(row *objects.Object) *objects.Object {
	out := row.Clone()
	mac, _, _ := strings.Cut(row.String("address"), "/")
	out.SetClean("address", mac)
	return out
}

func (c *Conductor) createInterface(ctx context.Context, in call) (*objects.Object, any, error) {
	if in.obj.Has("id") {
		return nil, nil, actionFailed("create", "already created")
	}
	o, err := c.o.Store.CreateInterface(ctx, in.obj)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil, nil, messaging.NovaError("VirtualInterfaceCreateException", 500, "Virtual Interface creation failed")
	}
	if err != nil {
		return nil, nil, err
	}
	return shown(o), nil, nil
}

func (c *Conductor) saveInterface(ctx context.Context, in call) (*objects.Object, any, error) {
	o, err := c.o.Store.SaveInterface(ctx, in.obj.Int("id"), in.saved())
	if err != nil {
		return nil, nil, or(err, messaging.NovaError("VirtualInterfaceNotFound", 404, "Virtual interface %d could not be found.", in.obj.Int("id")))
	}
	return shown(o), nil, nil
}

func (c *Conductor) destroyInterface(ctx context.Context, in call) (*objects.Object, any, error) {
	return nil, nil, c.o.Store.DestroyInterface(ctx, in.obj.Int("id"))
}

func (c *Conductor) getInterface(ctx context.Context, in call) (any, error) {
	o, err := c.o.Store.Interface(ctx, in.text(0, "uuid"))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil //nolint:nilnil // Nova answers so
	}
	if err != nil {
		return nil, err
	}
	return shown(o), nil
}

func (c *Conductor) getInterfaces(ctx context.Context, in call) (any, error) {
	rows, err := c.o.Store.Interfaces(ctx, in.text(0, "instance_uuid"))
	if err != nil {
		return nil, err
	}
	for i := range rows {
		rows[i] = shown(rows[i])
	}
	return list("VirtualInterfaceList", rows), nil
}

func (c *Conductor) deleteInterfaces(ctx context.Context, in call) (any, error) {
	return nil, c.o.Store.DestroyInterfaces(ctx, in.text(0, "instance_uuid"))
}
