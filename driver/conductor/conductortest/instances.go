package conductortest

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// joined are the fields of an instance that are no columns of its row: they
// are read when asked for.
var joined = [...]string{
	"metadata", "system_metadata", "info_cache", "security_groups", "fault", "services", "tags", "pci_devices",
	"flavor", "old_flavor", "new_flavor", "numa_topology", "pci_requests", "device_metadata", "vcpu_model", "ec2_ids",
	"migration_context", "keypairs", "trusted_certs", "resources",
}

// neverSaved are ignored by Instance.save.
var neverSaved = [...]string{"pci_devices", "tags", "services", "ec2_ids", "fault"}

func isJoined(field string) bool { return slices.Contains(joined[:], field) }

// AddInstance stores a copy of inst as a row and returns a copy of that, every
// field set and nothing marked. A missing uuid is made up.
func (c *Conductor) AddInstance(inst *objects.Object) *objects.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	row := inst.Clone()
	row.SetClean("id", c.id())
	if row.String("uuid") == "" {
		row.SetClean("uuid", uuid.NewString())
	}
	row.SetClean("created_at", time.Now())
	s, _ := objects.Lookup("Instance")
	for _, f := range s.Fields {
		if !row.Has(f.Name) {
			row.SetClean(f.Name, empty(f))
		}
	}
	if cache := row.Object("info_cache"); cache != nil {
		c.networks[row.String("uuid")] = cache.String("network_info")
	} else {
		c.networks[row.String("uuid")] = "[]"
	}
	row.ResetChanges()
	c.instances = append(c.instances, row)
	return c.view(row, nil, true)
}

func empty(f objects.Field) any {
	switch {
	case f.Type == "b":
		return false
	case f.Type == "M[s]" || f.Type == "M[s?]":
		return map[string]any{}
	case f.Name == "security_groups" || f.Name == "tags" || f.Name == "services" || f.Name == "keypairs":
		return list(f.Object(), nil)
	}
	return nil
}

// Instance returns a copy of the whole row, deleted or not; nil if absent.
func (c *Conductor) Instance(uuid string) *objects.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	if row := c.row(uuid); row != nil {
		return c.view(row, nil, true)
	}
	return nil
}

// Update changes a row as the API would, past every check.
func (c *Conductor) Update(uuid string, change func(row objects.Instance)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if row := c.row(uuid); row != nil {
		change(objects.Instance{Object: row})
		row.ResetChanges()
	}
}

// NetworkInfo returns the text of the instance's info cache.
func (c *Conductor) NetworkInfo(uuid string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.networks[uuid]
}

func (c *Conductor) row(uuid string) *objects.Object {
	for _, row := range c.instances {
		if row.String("uuid") == uuid {
			return row
		}
	}
	return nil
}

// live returns a row that the context may see.
func (c *Conductor) live(rc messaging.RequestContext, uuid string) (*objects.Object, error) {
	row := c.row(uuid)
	if row == nil || !visible(rc, row) {
		return nil, messaging.NovaError("InstanceNotFound", 404, "Instance %s could not be found.", uuid)
	}
	return row, nil
}

func visible(rc messaging.RequestContext, row *objects.Object) bool {
	switch rc.String("read_deleted") {
	case "yes":
		return true
	case "only":
		return row.Bool("deleted")
	}
	return !row.Bool("deleted")
}

// view copies the columns of a row and the joined fields asked for, or all.
func (c *Conductor) view(row *objects.Object, attrs []string, all bool) *objects.Object {
	if slices.Contains(attrs, "flavor") {
		attrs = append(slices.Clone(attrs), "old_flavor", "new_flavor")
	}
	out := objects.New("Instance")
	source := row.Clone()
	for _, name := range source.Fields() {
		if !isJoined(name) || all || slices.Contains(attrs, name) {
			out.SetClean(name, c.column(source, name))
		}
	}
	return out
}

// column is a field's value; two are kept outside of the row.
func (c *Conductor) column(row *objects.Object, name string) any {
	id := row.String("uuid")
	switch name {
	case "info_cache":
		cache := objects.New("InstanceInfoCache")
		cache.SetClean("instance_uuid", id)
		cache.SetClean("network_info", c.networks[id])
		return cache
	case "fault":
		if faults := where(c.faults, "instance_uuid", id); len(faults) > 0 {
			return faults[len(faults)-1].Clone()
		}
		return nil
	}
	return row.Get(name)
}

func (c *Conductor) getInstance(in invocation) (any, error) {
	row, err := c.live(in.rc, in.text(0, "uuid"))
	if err != nil {
		return nil, err
	}
	attrs, given := in.attrs()
	if !given {
		attrs = []string{"info_cache", "security_groups"}
	}
	if slices.Contains(attrs, "fault") {
		return nil, &messaging.RemoteError{Class: "AttributeError", Module: "builtins", Message: "type object 'Instance' has no attribute 'fault'"}
	}
	return c.view(row, attrs, false), nil
}

func (c *Conductor) byHost(in invocation) (any, error) {
	return c.listed(in, where(c.instances, "host", in.text(0, "host")))
}

func (c *Conductor) byHostAndNode(in invocation) (any, error) {
	return c.listed(in, where(c.instances, "host", in.text(0, "host"), "node", in.text(1, "node")))
}

func (c *Conductor) byFilters(in invocation) (any, error) {
	if len(in.args) == 0 {
		return nil, valueError("no filters")
	}
	filters, ok := in.args[0].(map[string]any)
	if !ok {
		return nil, valueError("filters are %T", in.args[0])
	}
	var rows []*objects.Object
	for _, row := range c.instances {
		if matches(row, filters) {
			rows = append(rows, row)
		}
	}
	return c.listed(in, rows)
}

// matches compares a row with filters: a list means any of its elements.
func matches(row *objects.Object, filters map[string]any) bool {
	for name, want := range filters {
		if name == "soft_deleted" {
			if soft := row.String("vm_state") == "soft-delete"; want == false && soft {
				return false
			}
			continue
		}
		choice, isList := want.([]any)
		if !isList {
			choice = []any{want}
		}
		if !slices.ContainsFunc(choice, func(v any) bool { return same(v, row.Get(name)) }) {
			return false
		}
	}
	return true
}

func (c *Conductor) listed(in invocation, rows []*objects.Object) (any, error) {
	attrs, _ := in.attrs()
	out := []*objects.Object{}
	for _, row := range rows {
		if visible(in.rc, row) {
			out = append(out, c.view(row, attrs, false))
		}
	}
	return list("InstanceList", out), nil
}

func (c *Conductor) saveInstance(in invocation) (any, error) {
	row, err := c.live(in.rc, in.obj.String("uuid"))
	if err != nil {
		return nil, err
	}
	changes := in.obj.Changes()
	if in.obj.Since("2.8") && slices.Contains(changes, "node") && !slices.Contains(changes, "compute_id") {
		return nil, messaging.NovaError("ObjectActionError", 500, "Object action save failed because: node is being updated but compute_id is not")
	}
	trio := slices.ContainsFunc(changes, func(f string) bool { return f == "flavor" || f == "old_flavor" || f == "new_flavor" })
	if trio && (!in.obj.Has("flavor") || !in.obj.Has("old_flavor") || !in.obj.Has("new_flavor")) {
		return nil, valueError("a flavor is saved without the other two")
	}
	plain := slices.ContainsFunc(changes, func(f string) bool { return !isJoined(f) || f == "metadata" || f == "system_metadata" })
	if plain {
		if err := compare(row, in.kwargs); err != nil {
			return nil, err
		}
	}
	for _, f := range changes {
		switch {
		case slices.Contains(neverSaved[:], f):
		case f == "info_cache":
			c.networks[row.String("uuid")] = in.obj.Object(f).String("network_info")
		default:
			row.SetClean(f, in.obj.Get(f))
		}
	}
	if !plain {
		return nil, nil
	}
	row.SetClean("updated_at", time.Now())
	attrs := []string{"system_metadata"}
	for _, f := range in.obj.Fields() {
		if isJoined(f) && f != "pci_devices" {
			attrs = append(attrs, f)
		}
	}
	fill(in.obj, c.view(row, attrs, false))
	in.obj.ResetChanges()
	return nil, nil
}

// compare is the check of expected states.
func compare(row *objects.Object, kwargs map[string]any) error {
	for _, f := range []string{"task_state", "vm_state"} {
		want, given := kwargs["expected_"+f]
		if !given || want == nil {
			continue
		}
		choice, isList := want.([]any)
		if !isList {
			choice = []any{want}
		}
		if slices.ContainsFunc(choice, func(v any) bool { return same(v, row.Get(f)) }) {
			continue
		}
		class := "UnexpectedVMStateError"
		if f == "task_state" {
			class = "UnexpectedTaskStateError"
			if row.String(f) == "deleting" {
				class = "UnexpectedDeletingTaskStateError"
			}
		}
		return messaging.NovaError(class, 500, "Conflict updating instance %s. Expected: {'%s': %v}. Actual: {'%s': %q}",
			row.String("uuid"), f, choice, f, row.String(f))
	}
	return nil
}

// fill brings every field of from into o.
func fill(o, from *objects.Object) {
	for _, f := range from.Fields() {
		o.SetClean(f, from.Get(f))
	}
}

func (c *Conductor) refreshInstance(in invocation) (any, error) {
	row, err := c.live(in.rc, in.obj.String("uuid"))
	if err != nil {
		return nil, err
	}
	fill(in.obj, c.view(row, in.obj.Fields(), false))
	in.obj.ResetChanges()
	return nil, nil
}

func (c *Conductor) destroyInstance(in invocation) (any, error) {
	if !in.obj.Has("id") || !in.obj.Has("uuid") {
		return nil, messaging.NovaError("ObjectActionError", 500, "Object action destroy failed because: already destroyed")
	}
	row, err := c.live(in.rc, in.obj.String("uuid"))
	if err != nil {
		return nil, err
	}
	if in.obj.String("host") == "" && row.String("host") != "" {
		return nil, messaging.NovaError("ObjectActionError", 500, "Object action destroy failed because: host changed")
	}
	row.SetClean("deleted", true)
	row.SetClean("deleted_at", time.Now())
	id := row.String("uuid")
	c.bdms = slices.DeleteFunc(c.bdms, func(o *objects.Object) bool { return o.String("instance_uuid") == id })
	delete(c.networks, id)
	fill(in.obj, c.view(row, nil, false))
	in.obj.Unset("id")
	return nil, nil
}

func (c *Conductor) getInfoCache(in invocation) (any, error) {
	id := in.text(0, "instance_uuid")
	text, ok := c.networks[id]
	if !ok {
		return nil, noInfoCache(id)
	}
	cache := objects.New("InstanceInfoCache")
	cache.SetClean("instance_uuid", id)
	cache.SetClean("network_info", text)
	return cache, nil
}

func (c *Conductor) saveInfoCache(in invocation) (any, error) {
	id := in.obj.String("instance_uuid")
	if _, ok := c.networks[id]; !ok {
		return nil, noInfoCache(id)
	}
	if slices.Contains(in.obj.Changes(), "network_info") {
		if _, err := objects.ParseNetworkInfo(in.obj.String("network_info")); err != nil {
			return nil, valueError("%v", err)
		}
		c.networks[id] = in.obj.String("network_info")
	}
	in.obj.ResetChanges()
	return nil, nil
}

func (c *Conductor) refreshInfoCache(in invocation) (any, error) {
	id := in.obj.String("instance_uuid")
	if _, ok := c.networks[id]; !ok {
		return nil, noInfoCache(id)
	}
	in.obj.SetClean("network_info", c.networks[id])
	return nil, nil
}

func noInfoCache(id string) error {
	return messaging.NovaError("InstanceInfoCacheNotFound", 404, "Info cache for instance %s could not be found.", id)
}
