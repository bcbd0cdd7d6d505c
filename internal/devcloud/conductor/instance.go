package conductor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// joined are the fields of an instance that are only read when asked for
// (nova/objects/instance.py, INSTANCE_OPTIONAL_ATTRS).
var joined = [...]string{
	"metadata", "system_metadata", "info_cache", "security_groups", "fault", "services", "tags", "pci_devices",
	"flavor", "old_flavor", "new_flavor", "numa_topology", "pci_requests", "device_metadata", "vcpu_model", "ec2_ids",
	"migration_context", "keypairs", "trusted_certs", "resources",
}

// neverSaved are not written through an instance.
var neverSaved = [...]string{"pci_devices", "tags", "services", "ec2_ids", "fault", "security_groups", "id", "uuid"}

// extras are fields whose change is none of the row: no time of change and no
// comparison of states.
var extras = [...]string{
	"flavor", "old_flavor", "new_flavor", "numa_topology", "pci_requests", "device_metadata", "vcpu_model",
	"migration_context", "keypairs", "trusted_certs", "resources", "info_cache",
}

// view is what of an instance's row goes out: its columns and the joined
// fields asked for. Nested objects are those of the row.
func view(row objects.Instance, attrs []string) *objects.Object {
	if slices.Contains(attrs, "flavor") {
		attrs = append(slices.Clone(attrs), "old_flavor", "new_flavor")
	}
	out := objects.New("Instance")
	for _, name := range row.Fields() {
		if !slices.Contains(joined[:], name) || slices.Contains(attrs, name) {
			out.SetClean(name, row.Get(name))
		}
	}
	for _, name := range attrs {
		switch name {
		case "pci_devices":
			out.SetClean(name, list("PciDeviceList", nil))
		case "services":
			out.SetClean(name, list("ServiceList", nil))
		case "ec2_ids":
			ids := objects.New("EC2Ids")
			ids.SetClean("instance_id", fmt.Sprintf("i-%08x", row.ID()))
			for _, f := range []string{"ami_id", "kernel_id", "ramdisk_id"} {
				ids.SetClean(f, nil)
			}
			out.SetClean(name, ids)
		}
	}
	return out
}

// attrs returns expected_attrs, and whether it was given.
func (in call) attrs(i int) ([]string, bool) {
	l, ok := in.arg(i, "expected_attrs").([]any)
	out := make([]string, 0, len(l))
	for _, v := range l {
		if s, isText := v.(string); isText {
			out = append(out, s)
		}
	}
	return out, ok
}

// readsDeleted reports whether the caller sees deleted rows.
func (in call) readsDeleted() bool {
	v := in.rc.String("read_deleted")
	return v == "yes" || v == "only"
}

// visible returns an instance that the caller may see: not deleted unless it
// reads deleted ones, and of its project unless it is an admin.
func (c *Conductor) visible(ctx context.Context, in call, id string) (objects.Instance, error) {
	get := c.o.Store.Instance
	if in.readsDeleted() {
		get = c.o.Store.AnyInstance
	}
	row, err := get(ctx, id)
	if err != nil {
		return row, or(err, noInstance(id))
	}
	if in.rc.String("read_deleted") == "only" && !row.Deleted() || !in.admin() && row.ProjectID() != in.rc.ProjectID() {
		return row, noInstance(id)
	}
	return row, nil
}

func (c *Conductor) getInstance(ctx context.Context, in call) (any, error) {
	row, err := c.visible(ctx, in, in.text(0, "uuid"))
	if err != nil {
		return nil, err
	}
	attrs, given := in.attrs(1)
	if !given {
		attrs = []string{"info_cache", "security_groups"}
	}
	if slices.Contains(attrs, "fault") {
		return nil, builtin("AttributeError", "type object 'Instance' has no attribute 'fault'")
	}
	return view(row, attrs), nil
}

// instances answers a list.
func (c *Conductor) instances(ctx context.Context, q cell.InstanceQuery, attrs []string) (*objects.Object, error) {
	q.Sort = []cell.SortKey{{Field: "id"}}
	rows, err := c.o.Store.ListInstances(ctx, q)
	if err != nil {
		return nil, badFilter(err)
	}
	out := make([]*objects.Object, len(rows))
	for i, row := range rows {
		out[i] = view(row, attrs)
	}
	return list("InstanceList", out), nil
}

// badFilter is a filter that cannot be read.
func badFilter(err error) error {
	if errors.Is(err, errdefs.ErrInvalid) {
		return builtin("ValueError", "%v", err)
	}
	return err
}

func (c *Conductor) instancesByHost(ctx context.Context, in call) (any, error) {
	attrs, _ := in.attrs(1)
	return c.instances(ctx, cell.InstanceQuery{Deleted: cell.LiveAndSoft, Match: map[string][]any{"host": {in.text(0, "host")}}}, attrs)
}

func (c *Conductor) instancesByNode(ctx context.Context, in call) (any, error) {
	attrs, _ := in.attrs(2)
	match := map[string][]any{"host": {in.text(0, "host")}, "node": {in.text(1, "node")}}
	return c.instances(ctx, cell.InstanceQuery{Deleted: cell.LiveAndSoft, Match: match}, attrs)
}

func (c *Conductor) uuidsByHost(ctx context.Context, in call) (any, error) {
	rows, err := c.o.Store.ListInstances(ctx, cell.InstanceQuery{
		Deleted: cell.LiveAndSoft, Match: map[string][]any{"host": {in.text(0, "host")}}, Sort: []cell.SortKey{{Field: "id"}},
	})
	out := make([]string, len(rows))
	for i, row := range rows {
		out[i] = row.UUID()
	}
	return out, err
}

func (c *Conductor) hungInRebooting(ctx context.Context, in call) (any, error) {
	window := time.Duration(in.number(0, "reboot_window")) * time.Second
	attrs, _ := in.attrs(1)
	return c.instances(ctx, cell.InstanceQuery{
		Match: map[string][]any{"task_state": {"rebooting"}}, ChangedBefore: time.Now().Add(-window),
	}, attrs)
}

func (c *Conductor) saveInstance(ctx context.Context, in call) (*objects.Object, any, error) {
	row, err := c.visible(ctx, in, in.obj.String("uuid"))
	if err != nil {
		return nil, nil, err
	}
	changes := in.changes()
	for _, f := range neverSaved {
		delete(changes, f)
	}
	cache, _ := changes["info_cache"].(*objects.Object)
	delete(changes, "info_cache")
	isPlain := false
	for f := range changes {
		isPlain = isPlain || !slices.Contains(extras[:], f)
	}
	if cache != nil && slices.Contains(cache.Changes(), "network_info") {
		if err := c.o.Store.SaveInfoCache(ctx, row.UUID(), cache.String("network_info")); err != nil {
			return nil, nil, or(err, noInstance(row.UUID()))
		}
	}
	if len(changes) == 0 {
		return nil, nil, nil
	}
	var expect cell.Expect
	if isPlain {
		expect = cell.Expect{VMState: states(in.kwargs["expected_vm_state"]), TaskState: states(in.kwargs["expected_task_state"])}
	}
	update := c.o.Store.UpdateInstance
	if row.Deleted() { // the caller reads deleted ones
		update = c.o.Store.UpdateAnyInstance
	}
	row, err = update(ctx, row.UUID(), expect, func(i objects.Instance) error {
		for f, v := range changes {
			i.SetClean(f, v)
		}
		return nil
	})
	if err != nil {
		return nil, nil, or(err, noInstance(in.obj.String("uuid")))
	}
	return view(row, append(in.joined("pci_devices"), "system_metadata")), nil, nil
}

// joined are the joined fields that were sent, but for one.
func (in call) joined(but string) []string {
	var out []string
	for _, f := range in.obj.Fields() {
		if slices.Contains(joined[:], f) && f != but {
			out = append(out, f)
		}
	}
	return out
}

// states is an expectation: null is none, a single value a list of it.
func states(v any) []string {
	switch t := v.(type) {
	case string:
		return []string{t}
	case []any:
		out := make([]string, len(t))
		for i := range t {
			out[i], _ = t[i].(string) // null is ""
		}
		return out
	}
	return nil
}

func (c *Conductor) refreshInstance(ctx context.Context, in call) (*objects.Object, any, error) {
	row, err := c.visible(ctx, in, in.obj.String("uuid"))
	if err != nil {
		return nil, nil, err
	}
	return view(row, in.joined("")), nil, nil
}

func (c *Conductor) dropMigrationContext(ctx context.Context, in call) (*objects.Object, any, error) {
	id := in.obj.String("uuid")
	row, err := c.visible(ctx, in, id)
	if err != nil {
		return nil, nil, err
	}
	if row.IsNull("migration_context") {
		return nil, nil, nil
	}
	if _, err := c.o.Store.SetInstance(ctx, id, cell.Expect{}, map[string]any{"migration_context": nil}); err != nil {
		return nil, nil, or(err, noInstance(id))
	}
	after := objects.New("Instance")
	after.SetClean("migration_context", nil)
	return after, nil, nil
}

func (c *Conductor) destroyInstance(ctx context.Context, in call) (*objects.Object, any, error) {
	switch {
	case !in.obj.Has("id"):
		return nil, nil, actionFailed("destroy", "already destroyed")
	case !in.obj.Has("uuid"):
		return nil, nil, actionFailed("destroy", "no uuid")
	}
	row, err := c.visible(ctx, in, in.obj.String("uuid"))
	if err != nil {
		return nil, nil, err
	}
	check := cell.AnyHost
	if in.obj.String("host") == "" {
		check = cell.NoHost
	}
	row, err = c.o.Store.DestroyInstance(ctx, row.UUID(), check)
	if errors.Is(err, errdefs.ErrConflict) {
		return nil, nil, actionFailed("destroy", "host changed")
	}
	if err != nil {
		return nil, nil, or(err, noInstance(in.obj.String("uuid")))
	}
	after := view(row, nil)
	after.Unset("id")
	return after, nil, nil
}

// extra answers with one field of an instance; null when it has none.
func extra(field string) classMethod {
	return func(c *Conductor, ctx context.Context, in call) (any, error) {
		row, err := c.o.Store.AnyInstance(ctx, in.text(0, "instance_uuid"))
		if err != nil {
			return nil, or(err, noInstance(in.text(0, "instance_uuid")))
		}
		o := row.Object.Object(field)
		if o == nil {
			return nil, nil //nolint:nilnil // Nova answers so
		}
		return o, nil
	}
}

// nothing answers with an empty list.
func nothing(name string) classMethod {
	return func(*Conductor, context.Context, call) (any, error) { return list(name, nil), nil }
}

func noCache(id string) *messaging.RemoteError {
	return messaging.NovaError("InstanceInfoCacheNotFound", 404, "Info cache for instance %s could not be found.", id)
}
