package compute

import (
	"context"
	"fmt"
	"strings"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// rebuild writes what is wanted into the row and has the host do it.
func (s *Service) rebuild(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
	if i.Host() == "" {
		return nil, conflict("Instance %s is not ready", i.UUID())
	}
	f := i.Flavor()
	o := &order{
		metadata: d.Dict("metadata").Strings(), files: files(d), password: d.String("adminPass"),
		flavor: &Flavor{MemoryMB: int(f.Int("memory_mb")), RootGB: int(f.Int("root_gb"))},
	}
	if !d.Has("adminPass") {
		o.password = password()
	}
	if len(d.List("trusted_image_certificates")) > 0 {
		return nil, badRequest("trusted_image_certificates are not supported by this cloud.")
	}
	if err := s.imageOf(ctx, r, d.String("imageRef"), o); err != nil {
		return nil, err
	}
	if err := s.checkAmounts(ctx, r, o); err != nil {
		return nil, err
	}
	change, err := s.rebuilt(ctx, r, i, d, o)
	if err != nil {
		return nil, err
	}
	before := i
	if i, err = s.begin(ctx, i, "rebuild", []string{""}, change); err != nil {
		return nil, err
	}
	err = s.tell(ctx, r, i, "rebuild", "rebuild_instance", map[string]any{
		"new_pass": o.password, "injected_files": o.files, "image_ref": o.image.ID, "orig_image_ref": before.String("image_ref"),
		"orig_sys_metadata": before.SystemMetadata(), "bdms": nil, "recreate": false, "on_shared_storage": false,
		"preserve_ephemeral": d.Bool("preserve_ephemeral", false), "migration": nil, "scheduled_node": i.Node(), "limits": nil,
		"request_spec": nil, "accel_uuids": []string{},
	})
	if err != nil {
		_, undo := s.o.Cell.SetInstance(context.WithoutCancel(ctx), i.UUID(), cell.Expect{TaskState: []string{"rebuilding"}}, map[string]any{
			"task_state": nil, "image_ref": before.String("image_ref"), "system_metadata": before.SystemMetadata(),
		})
		return nil, fmt.Errorf("rebuild %s: %w (row: %w)", i.UUID(), err, undo)
	}
	v, err := s.shown(ctx, r, i, false)
	if err != nil {
		return nil, err
	}
	v.AdminPass = o.password
	return rest.Accepted(map[string]any{"server": v})
}

// rebuilt is what a rebuild changes in the row (nova/compute/api.py, rebuild):
// the image, with all that the server remembers of it, and what was asked for.
func (s *Service) rebuilt(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict, o *order) (map[string]any, error) {
	system := o.image.systemMetadata(o.flavor)
	for k, v := range i.SystemMetadata() {
		if !strings.HasPrefix(k, "image_") {
			system[k] = v
		}
	}
	prop := o.image.Properties
	change := map[string]any{
		"task_state": "rebuilding", "progress": 0, "image_ref": o.image.ID, "kernel_id": prop["kernel_id"], "ramdisk_id": prop["ramdisk_id"],
		"os_type": orNil(prop["os_type"]), "architecture": orNil(prop["architecture"]), "vm_mode": orNil(prop["vm_mode"]), "system_metadata": system,
	}
	for _, f := range []struct{ name, field string }{
		{"hostname", "hostname"}, {"accessIPv4", "access_ip_v4"}, {"accessIPv6", "access_ip_v6"},
	} {
		if d.Has(f.name) {
			change[f.field] = d.String(f.name)
		}
	}
	if d.Has("name") {
		change["display_name"] = strings.TrimSpace(d.String("name"))
	}
	if d.Has("description") {
		change["display_description"] = anyOf(d.Optional("description"))
	}
	if d.Has("OS-DCF:diskConfig") {
		change["auto_disk_config"] = d.String("OS-DCF:diskConfig") == "AUTO"
	}
	if d.Has("metadata") {
		change["metadata"] = o.metadata
	}
	if d.Has("user_data") {
		change["user_data"] = anyOf(d.Optional("user_data"))
	}
	if !d.Has("key_name") {
		return change, nil
	}
	change["key_name"], change["key_data"], change["keypairs"] = nil, nil, keyList(nil)
	if name := d.String("key_name"); name != "" {
		key, err := s.keypair(ctx, i.UserID(), name)
		if err != nil {
			return nil, orderError(err, badRequest("Invalid key_name provided."))
		}
		change["key_name"], change["key_data"], change["keypairs"] = key.name, key.key, keyList(key)
	}
	return change, nil
}
