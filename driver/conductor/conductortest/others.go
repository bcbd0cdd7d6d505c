package conductortest

import (
	"encoding/json"
	"slices"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// AddBlockDevice stores a disk of an instance and returns a copy of the row.
func (c *Conductor) AddBlockDevice(bdm *objects.Object) *objects.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store(&c.bdms, bdm)
}

// AddMigration stores a move and returns a copy of the row.
func (c *Conductor) AddMigration(m *objects.Object) *objects.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store(&c.migrations, m)
}

// Migrations returns copies of all moves, in order.
func (c *Conductor) Migrations() []*objects.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	return clones(c.migrations)
}

// AddGroup stores a server group and returns a copy of the row.
func (c *Conductor) AddGroup(g *objects.Object) *objects.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store(&c.groups, g)
}

// Ports returns the ids of the instance's recorded ports in their order.
func (c *Conductor) Ports(instance string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, v := range where(c.vifs, "instance_uuid", instance) {
		out = append(out, v.String("uuid"))
	}
	return out
}

func (c *Conductor) store(rows *[]*objects.Object, o *objects.Object) *objects.Object {
	row := o.Clone()
	row.SetClean("id", c.id())
	if row.String("uuid") == "" {
		row.SetClean("uuid", uuid.NewString())
	}
	row.ResetChanges()
	*rows = append(*rows, row)
	return row.Clone()
}

func (c *Conductor) getBlockDevices(in invocation) (any, error) {
	return list("BlockDeviceMappingList", clones(where(c.bdms, "instance_uuid", in.text(0, "instance_uuid")))), nil
}

func (c *Conductor) saveBlockDevice(in invocation) (any, error) {
	return nil, save(c.bdms, in.obj, messaging.NovaError("BDMNotFound", 404, "No Block Device Mapping with id %d.", in.obj.Int("id")))
}

func (c *Conductor) createVIF(in invocation) (any, error) {
	if len(where(c.vifs, "address", in.obj.String("address"))) > 0 {
		return nil, messaging.NovaError("VirtualInterfaceCreateException", 500, "Virtual Interface creation failed")
	}
	in.obj.SetClean("id", c.id())
	in.obj.ResetChanges()
	c.vifs = append(c.vifs, in.obj.Clone())
	return nil, nil
}

func (c *Conductor) getVIFs(in invocation) (any, error) {
	return list("VirtualInterfaceList", clones(where(c.vifs, "instance_uuid", in.text(0, "instance_uuid")))), nil
}

func (c *Conductor) deleteVIFs(in invocation) (any, error) {
	id := in.text(0, "instance_uuid")
	c.vifs = slices.DeleteFunc(c.vifs, func(v *objects.Object) bool { return v.String("instance_uuid") == id })
	return nil, nil
}

func (c *Conductor) getVIF(in invocation) (any, error) {
	if rows := where(c.vifs, "uuid", in.text(0, "uuid")); len(rows) > 0 {
		return rows[0].Clone(), nil
	}
	return nil, nil //nolint:nilnil // Nova answers so
}

func (c *Conductor) destroyVIF(in invocation) (any, error) {
	c.vifs = slices.DeleteFunc(c.vifs, func(v *objects.Object) bool { return v.Int("id") == in.obj.Int("id") })
	return nil, nil
}

func (c *Conductor) migrationsByFilters(in invocation) (any, error) {
	filters := map[string]any{}
	if len(in.args) > 0 {
		filters, _ = in.args[0].(map[string]any)
	}
	var rows []*objects.Object
	for _, m := range c.migrations {
		if matches(m, filters) {
			rows = append(rows, m)
		}
	}
	return list("MigrationList", clones(rows)), nil
}

// ended are the states of a migration that takes no resources any more.
var ended = [...]string{"confirmed", "reverted", "failed", "completed", "cancelled", "done"}

func (c *Conductor) migrationsInProgress(in invocation) (any, error) {
	host, node := in.text(0, "host"), in.text(1, "node")
	var rows []*objects.Object
	for _, m := range c.migrations {
		here := m.String("source_compute") == host && m.String("source_node") == node ||
			m.String("dest_compute") == host && m.String("dest_node") == node
		if here && !slices.Contains(ended[:], m.String("status")) {
			rows = append(rows, m)
		}
	}
	return list("MigrationList", clones(rows)), nil
}

func (c *Conductor) saveMigration(in invocation) (any, error) {
	return nil, save(c.migrations, in.obj, messaging.NovaError("MigrationNotFound", 404, "Migration %d could not be found.", in.obj.Int("id")))
}

func (c *Conductor) authorize(in invocation) (any, error) {
	if len(in.args) != 1 {
		return nil, valueError("authorize takes a time to live")
	}
	if n, ok := in.args[0].(json.Number); !ok || n == "0" {
		return nil, valueError("time to live %v", in.args[0])
	}
	token := uuid.NewString()
	in.obj.SetClean("id", c.id())
	in.obj.SetClean("token", token)
	in.obj.ResetChanges()
	c.tokens = append(c.tokens, in.obj.Clone())
	return token, nil
}

func (c *Conductor) cleanTokens(in invocation) (any, error) {
	id := in.text(0, "instance_uuid")
	c.tokens = slices.DeleteFunc(c.tokens, func(t *objects.Object) bool { return t.String("instance_uuid") == id })
	return nil, nil
}

func (c *Conductor) cleanExpiredTokens(invocation) (any, error) { return nil, nil }

func (c *Conductor) getGroup(in invocation) (any, error) {
	id := in.text(0, "instance_uuid")
	for _, g := range c.groups {
		if slices.Contains(g.StringList("members"), id) {
			return g.Clone(), nil
		}
	}
	return nil, noGroup(id)
}

func (c *Conductor) getGroupByHint(in invocation) (any, error) {
	hint := in.text(0, "hint")
	for _, g := range c.groups {
		if g.String("uuid") == hint || g.String("name") == hint {
			return g.Clone(), nil
		}
	}
	return nil, noGroup(hint)
}

func noGroup(id string) error {
	return messaging.NovaError("InstanceGroupNotFound", 404, "Instance group %s could not be found.", id)
}
