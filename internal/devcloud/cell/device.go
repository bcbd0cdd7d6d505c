package cell

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

var (
	blockDevices = table{name: "block_devices", object: "BlockDeviceMapping", columns: []string{"uuid", "instance_uuid", "volume_id"}, without: []string{"instance"}}
	interfaces   = table{name: "virtual_interfaces", object: "VirtualInterface", columns: []string{"uuid", "address", "instance_uuid"}, without: []string{"network_id"}}
)

// BlockDevices returns the BlockDeviceMapping objects of instances, by
// instance, in the order in which they were made.
func (s *Store) BlockDevices(ctx context.Context, instances ...string) (map[string][]*objects.Object, error) {
	rows, err := s.list(ctx, blockDevices, "WHERE instance_uuid IN (SELECT value FROM json_each(?)) ORDER BY id", array(instances))
	if err != nil {
		return nil, fmt.Errorf("list block devices: %w", err)
	}
	out := map[string][]*objects.Object{}
	for _, o := range rows {
		id := o.String("instance_uuid")
		out[id] = append(out[id], o)
	}
	return out, nil
}

// CreateBlockDevice stores a disk; a missing uuid is made.
func (s *Store) CreateBlockDevice(ctx context.Context, bdm *objects.Object) (*objects.Object, error) {
	bdm = bdm.Clone()
	if err := s.db.Write(ctx, func(tx *sql.Tx) error { return insertBlockDevice(ctx, tx, bdm) }); err != nil {
		return nil, fmt.Errorf("create block device of %s: %w", bdm.String("instance_uuid"), err)
	}
	return bdm, nil
}

func insertBlockDevice(ctx context.Context, tx *sql.Tx, bdm *objects.Object) error {
	if bdm.String("uuid") == "" {
		bdm.SetClean("uuid", uuid.NewString())
	}
	return blockDevices.insert(ctx, tx, bdm)
}

// SaveBlockDevice sets fields of the disk with that row id.
func (s *Store) SaveBlockDevice(ctx context.Context, id int64, fields map[string]any) (*objects.Object, error) {
	o, err := s.change(ctx, blockDevices, setting(fields), "WHERE id = ?", id)
	if err != nil {
		return nil, fmt.Errorf("save block device %d: %w", id, err)
	}
	return o, nil
}

// DestroyBlockDevice removes a disk; none is success.
func (s *Store) DestroyBlockDevice(ctx context.Context, id int64) error {
	return s.remove(ctx, blockDevices, "id = ?", id)
}

// Interfaces returns the VirtualInterface objects of an instance in the order
// of its interfaces.
func (s *Store) Interfaces(ctx context.Context, instance string) ([]*objects.Object, error) {
	return s.list(ctx, interfaces, "WHERE instance_uuid = ? ORDER BY id", instance)
}

// Interface returns the record of a port.
func (s *Store) Interface(ctx context.Context, port string) (*objects.Object, error) {
	o, err := s.one(ctx, interfaces, "WHERE uuid = ?", port)
	if err != nil {
		return nil, fmt.Errorf("get interface %s: %w", port, err)
	}
	return o, nil
}

// CreateInterface stores a port of an instance. An address that is there
// already is errdefs.ErrAlreadyExists.
func (s *Store) CreateInterface(ctx context.Context, vif *objects.Object) (*objects.Object, error) {
	if vif.String("uuid") == "" {
		vif = vif.Clone()
		vif.SetClean("uuid", uuid.NewString())
	}
	o, err := s.insert(ctx, interfaces, vif)
	if err != nil {
		return nil, fmt.Errorf("create interface %s: %w", vif.String("uuid"), err)
	}
	return o, nil
}

// SaveInterface sets fields of the interface with that row id.
func (s *Store) SaveInterface(ctx context.Context, id int64, fields map[string]any) (*objects.Object, error) {
	o, err := s.change(ctx, interfaces, setting(fields), "WHERE id = ?", id)
	if err != nil {
		return nil, fmt.Errorf("save interface %d: %w", id, err)
	}
	return o, nil
}

// DestroyInterface removes the record of one port; none is success.
func (s *Store) DestroyInterface(ctx context.Context, id int64) error {
	return s.remove(ctx, interfaces, "id = ?", id)
}

// DestroyInterfaces removes the records of all ports of an instance.
func (s *Store) DestroyInterfaces(ctx context.Context, instance string) error {
	return s.remove(ctx, interfaces, "instance_uuid = ?", instance)
}

// setting returns a change that sets fields, but not the id.
func setting(fields map[string]any) func(*objects.Object) error {
	return func(o *objects.Object) error {
		if _, ok := fields["id"]; ok {
			return fmt.Errorf("an id does not change: %w", errdefs.ErrInvalid)
		}
		apply(o, fields)
		return nil
	}
}
