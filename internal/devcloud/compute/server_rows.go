package compute

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// rowsFor makes n new instances of an order with what belongs to them.
func (s *Service) rowsFor(r *rest.Request, o *order, n int) []cell.NewInstance {
	out := make([]cell.NewInstance, n)
	flavor := o.flavor.object()
	for index := range out {
		i := o.instance(r, flavor, index)
		if o.most > 1 {
			i.Set("display_name", fmt.Sprintf("%s-%d", o.name, index+1))
		}
		if o.hostname == "" {
			host := hostname(o.name)
			switch {
			case host == "":
				host = "Server-" + i.UUID()
			case o.most > 1:
				host = fmt.Sprintf("%s-%d", host, index+1)
			}
			i.Set("hostname", host)
		}
		out[index] = cell.NewInstance{Instance: i, Spec: o.spec(r, flavor, n), BlockDevices: o.devices()}
	}
	return out
}

// instance is the row of a server that is to be built (nova/compute/api.py,
// _validate_and_build_base_options and _populate_instance_for_create).
func (o *order) instance(r *rest.Request, flavor *objects.Object, index int) objects.Instance {
	i := objects.NewInstance()
	f, prop := o.flavor, o.image.Properties
	system := o.image.systemMetadata(o.flavor)
	system["owner_user_name"], system["owner_project_name"] = r.Caller.UserName, r.Caller.ProjectName
	for field, v := range map[string]any{
		"uuid": uuid.NewString(), "user_id": r.Caller.UserID, "project_id": r.Caller.ProjectID, "reservation_id": o.reservation,
		"image_ref": o.image.ID, "kernel_id": prop["kernel_id"], "ramdisk_id": prop["ramdisk_id"],
		"power_state": 0, "vm_state": vmBuilding, "task_state": taskScheduling, "progress": 0, "launch_index": index,
		"display_name": o.name, "display_description": anyOf(o.description), "hostname": o.hostname, "config_drive": o.configDrive,
		"memory_mb": f.MemoryMB, "vcpus": f.VCPUs, "root_gb": f.RootGB, "ephemeral_gb": f.EphemeralGB, "instance_type_id": f.ID,
		"flavor": flavor, "old_flavor": nil, "new_flavor": nil, "user_data": anyOf(o.userData),
		"metadata": o.metadata, "system_metadata": system, "locked": false, "access_ip_v4": o.accessV4, "access_ip_v6": o.accessV6,
		"availability_zone": orNil(o.place.zone), "auto_disk_config": o.autoDisk, "root_device_name": orNil(prop["root_device_name"]),
		"os_type": orNil(prop["os_type"]), "architecture": orNil(prop["architecture"]), "vm_mode": orNil(prop["vm_mode"]),
		"shutdown_terminate": false, "disable_terminate": false, "cleaned": false, "hidden": false,
		"key_name": nil, "key_data": nil, "keypairs": keyList(o.key), "tags": tagList(o.tags),
	} {
		i.Set(field, v)
	}
	for _, t := range i.Objects("tags") {
		t.Set("resource_id", i.UUID())
	}
	if o.key != nil {
		i.Set("key_name", o.key.name)
		i.Set("key_data", o.key.key)
	}
	return i
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// object is the flavor as instances and request specs have it.
func (f *Flavor) object() *objects.Object {
	o := objects.New("Flavor")
	for field, v := range map[string]any{
		"id": f.ID, "name": f.Name, "memory_mb": f.MemoryMB, "vcpus": f.VCPUs, "root_gb": f.RootGB, "ephemeral_gb": f.EphemeralGB,
		"flavorid": f.FlavorID, "swap": f.SwapMB, "rxtx_factor": f.RXTXFactor, "vcpu_weight": 0, "disabled": f.Disabled,
		"is_public": f.Public, "extra_specs": f.ExtraSpecs, "description": anyOf(f.Description),
		"created_at": f.CreatedAt, "updated_at": nil, "deleted_at": nil, "deleted": false,
	} {
		o.SetClean(field, v)
	}
	if f.UpdatedAt != nil {
		o.SetClean("updated_at", *f.UpdatedAt)
	}
	return o
}

func keyList(k *keyPair) *objects.Object {
	l, all := objects.New("KeyPairList"), []*objects.Object{}
	if k != nil {
		o := objects.New("KeyPair")
		for field, v := range map[string]any{
			"id": k.id, "name": k.name, "user_id": k.user, "fingerprint": k.fingerprint, "public_key": k.key, "type": "ssh",
			"created_at": k.created, "updated_at": nil, "deleted_at": nil, "deleted": false,
		} {
			o.SetClean(field, v)
		}
		all = append(all, o)
	}
	l.SetClean("objects", all)
	return l
}

func tagList(tags []string) *objects.Object {
	l, all := objects.New("TagList"), []*objects.Object{}
	for _, t := range tags {
		o := objects.New("Tag")
		o.SetClean("tag", t)
		all = append(all, o)
	}
	l.SetClean("objects", all)
	return l
}

// spec is what the scheduler is asked.
func (o *order) spec(r *rest.Request, flavor *objects.Object, n int) objects.RequestSpec {
	spec := objects.New("RequestSpec")
	groups, names := objects.New("SecurityGroupList"), []*objects.Object{}
	for _, name := range o.secgroups {
		g := objects.New("SecurityGroup")
		g.SetClean("name", name)
		names = append(names, g)
	}
	groups.SetClean("objects", names)
	networks := o.networks
	if networks == nil {
		networks = objects.New("NetworkRequestList")
		networks.SetClean("objects", []*objects.Object{})
	}
	for field, v := range map[string]any{
		"project_id": r.Caller.ProjectID, "user_id": r.Caller.UserID, "availability_zone": orNil(o.place.zone), "flavor": flavor,
		"image": o.image.meta(), "num_instances": n, "ignore_hosts": nil, "force_hosts": listOf(o.place.forcedHost),
		"force_nodes": listOf(o.place.forcedNode), "requested_destination": o.place.destination(), "retry": nil, "limits": nil,
		"numa_topology": nil, "pci_requests": nil, "instance_group": nil, "scheduler_hints": o.hints, "security_groups": groups,
		"requested_networks": networks, "is_bfv": false, "requested_resources": []any{},
	} {
		spec.SetClean(field, v)
	}
	return objects.RequestSpec{Object: spec}
}

func listOf(s string) any {
	if s == "" {
		return nil
	}
	return []string{s}
}

func (p placement) destination() *objects.Object {
	if p.wantedHost == "" && p.wantedNode == "" {
		return nil
	}
	o := objects.New("Destination")
	o.SetClean("host", p.wantedHost)
	o.SetClean("node", orNil(p.wantedNode))
	return o
}

// meta is the image as a versioned object, with the properties that placement
// is asked with.
func (i Image) meta() *objects.Object {
	o, props := objects.New("ImageMeta"), objects.New("ImageMetaProps")
	for k, v := range i.Properties {
		if s, ok := objects.Lookup("ImageMetaProps"); ok {
			if f, ok := s.Field(k); ok && strings.HasPrefix(f.Type, "e:") || ok && f.Type == "s" {
				props.SetClean(k, v)
			}
		}
	}
	var traits []string
	for k, v := range i.Properties {
		if name, ok := strings.CutPrefix(k, "trait:"); ok && v == "required" {
			traits = append(traits, name)
		}
	}
	if len(traits) > 0 {
		props.SetClean("traits_required", traits)
	}
	for field, v := range map[string]any{
		"id": i.ID, "name": i.Name, "status": i.Status, "owner": i.Owner, "size": i.Size, "min_ram": i.MinRAM, "min_disk": i.MinDisk,
		"checksum": orNil(i.Checksum), "container_format": i.ContainerFormat, "disk_format": i.DiskFormat,
		"created_at": i.CreatedAt, "updated_at": i.UpdatedAt, "properties": props,
	} {
		o.SetClean(field, v)
	}
	return o
}

// devices are the disks of a server: of the image and those of the flavor.
func (o *order) devices() []*objects.Object {
	disk := func(fields map[string]any) *objects.Object {
		d := objects.New("BlockDeviceMapping")
		for field, v := range map[string]any{
			"destination_type": "local", "device_type": "disk", "delete_on_termination": true, "no_device": false, "boot_index": -1,
			"guest_format": nil, "volume_size": nil, "encrypted": false,
		} {
			d.SetClean(field, v)
		}
		for field, v := range fields {
			d.SetClean(field, v)
		}
		return d
	}
	all := []*objects.Object{disk(map[string]any{"source_type": "image", "image_id": o.image.ID, "boot_index": 0})}
	if o.flavor.EphemeralGB > 0 {
		all = append(all, disk(map[string]any{"source_type": "blank", "volume_size": o.flavor.EphemeralGB}))
	}
	if o.flavor.SwapMB > 0 {
		all = append(all, disk(map[string]any{"source_type": "blank", "guest_format": "swap", "volume_size": o.flavor.SwapMB}))
	}
	return all
}
