package notification

import (
	"maps"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// data are the fields of InstancePayload 1.8.
func (s Subject) data(rc messaging.RequestContext) map[string]any {
	inst := s.Instance
	data := fields(inst, same(
		"uuid", "user_id", "reservation_id", "display_name", "display_description", "host", "node", "os_type", "architecture",
		"availability_zone", "key_name", "kernel_id", "ramdisk_id", "created_at", "launched_at", "terminated_at", "deleted_at",
		"updated_at", "task_state", "progress",
	))
	maps.Copy(data, fields(inst, map[string]string{
		"tenant_id": "project_id", "host_name": "hostname", "image_uuid": "image_ref", "state": "vm_state",
	}))
	data["power_state"] = powerState(inst)
	data["metadata"] = inst.Strings("metadata")
	data["locked"] = inst.Bool("locked")
	data["auto_disk_config"] = "MANUAL"
	if inst.Bool("auto_disk_config") {
		data["auto_disk_config"] = "AUTO"
	}
	data["flavor"] = flavor(inst.Object("flavor"))
	data["ip_addresses"] = addresses(inst)
	data["block_devices"] = nil
	if s.BlockDevices {
		data["block_devices"] = []any{}
	}
	data["request_id"] = nil
	if rc.ProjectID() != "" && rc.UserID() != "" { // that of a periodic task says nothing
		data["request_id"] = orNull(rc.RequestID())
	}
	data["action_initiator_user"], data["action_initiator_project"] = orNull(rc.UserID()), orNull(rc.ProjectID())
	data["locked_reason"] = nil
	if why, ok := inst.Strings("system_metadata")["locked_reason"]; ok {
		data["locked_reason"] = why
	}
	return data
}

// creation adds what InstanceCreatePayload has more.
func (s Subject) creation(data map[string]any) {
	keys := []any{}
	for _, k := range s.Instance.Objects("keypairs") {
		keys = append(keys, object("KeypairPayload", "1.0", fields(k, same("user_id", "name", "public_key", "fingerprint", "type"))))
	}
	tags := []string{}
	for _, t := range s.Instance.Objects("tags") {
		tags = append(tags, t.String("tag"))
	}
	data["keypairs"], data["tags"], data["instance_name"] = keys, tags, orNull(s.Name)
	data["trusted_image_certificates"] = s.certificates()
}

func (s Subject) certificates() any {
	if certs := s.Instance.Object("trusted_certs"); certs != nil {
		return certs.StringList("ids")
	}
	return nil
}

// powerState is the word for the number of power_state (InstancePowerState of
// nova/objects/fields.py, by index).
func powerState(inst *objects.Object) any {
	if inst.IsNull("power_state") {
		return nil
	}
	words := [...]string{"pending", "running", "_unused", "paused", "shutdown", "_unused", "crashed", "suspended"}
	if n := inst.Int("power_state"); n >= 0 && n < int64(len(words)) {
		return words[n]
	}
	return words[0]
}

// flavor is FlavorPayload 1.4, null for none. The flavor of an instance does
// not say whose it is.
func flavor(f *objects.Object) any {
	if f == nil {
		return nil
	}
	data := fields(f, same(
		"flavorid", "memory_mb", "vcpus", "root_gb", "ephemeral_gb", "name", "swap", "rxtx_factor", "vcpu_weight", "disabled",
		"is_public", "description",
	))
	data["extra_specs"], data["projects"] = f.Strings("extra_specs"), nil
	if f.Has("projects") {
		data["projects"] = f.StringList("projects")
	}
	return object("FlavorPayload", "1.4", data)
}

// addresses are the IpPayload 1.0 of the instance's network info; none while
// there is none, or none that can be read.
func addresses(inst *objects.Object) []any {
	out := []any{}
	cache := inst.Object("info_cache")
	if cache == nil {
		return out
	}
	vifs, err := objects.ParseNetworkInfo(cache.String("network_info"))
	if err != nil {
		return out
	}
	for _, v := range vifs {
		for _, subnet := range v.Network.Subnets {
			for _, ip := range subnet.IPs {
				out = append(out, object("IpPayload", "1.0", map[string]any{
					"label": v.Network.Label, "mac": v.Address, "meta": orEmpty(v.Meta), "port_uuid": orNull(v.ID),
					"version": ip.Version, "address": ip.Address, "device_name": orNull(v.DevName),
				}))
			}
		}
	}
	return out
}
