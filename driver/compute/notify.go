package compute

import (
	"context"
	"maps"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/logging"
)

// notify sends the unversioned notification compute.instance.<event>. An
// instance that came without its flavor gets it first, as Nova's payload names it.
func (m *Manager) notify(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, p messaging.Priority, event string, more map[string]any) {
	if !m.notifies() {
		return
	}
	if !inst.Has("flavor") {
		if row, err := m.dep.Conductor.GetInstance(ctx, rc, inst.String("uuid"), "flavor"); err == nil {
			inst.SetClean("flavor", row.Object("flavor"))
		}
	}
	payload := instancePayload(inst)
	maps.Copy(payload, more)
	m.tell(ctx, rc, p, "compute.instance."+event, payload)
}

func (m *Manager) notifies() bool { return m.dep.Notifier != nil && m.dep.Notifier.Enabled() }

// tellTime is how long an operation waits for the broker to take a notification.
const tellTime = 10 * time.Second

func (m *Manager) tell(ctx context.Context, rc messaging.RequestContext, p messaging.Priority, event string, payload map[string]any) {
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	if err := m.dep.Notifier.Notify(ctx, rc, p, event, payload); err != nil {
		m.log.Warn().Err(err).Str(logging.Step, event).Msg("notification lost")
	}
}

// notifyException tells of an operation that failed (nova/exception_wrapper.py).
func (m *Manager) notifyException(ctx context.Context, o *op, err error) {
	if !m.notifies() {
		return
	}
	args := map[string]any{}
	if o.inst != nil {
		args["instance_uuid"] = o.uuid()
	}
	m.tell(ctx, o.rc, messaging.PriorityError, o.name, map[string]any{"exception": tenantText(err), "args": args})
}

// instancePayload is info_from_instance of nova/notifications/base.py.
func instancePayload(inst *objects.Object) map[string]any {
	flavor := inst.Object("flavor")
	text := func(field string) any { return inst.Get(field) }
	when := func(field string) string {
		if t := inst.Time(field); !t.IsZero() {
			return t.Format("2006-01-02T15:04:05.000000")
		}
		return ""
	}
	created := ""
	if t := inst.Time("created_at"); !t.IsZero() {
		created = t.Format(time.DateTime) + "+00:00"
	}
	image := map[string]any{}
	const prefix = "image_"
	for k, v := range inst.Strings("system_metadata") {
		if len(k) > len(prefix) && k[:len(prefix)] == prefix {
			image[k[len(prefix):]] = v
		}
	}
	return map[string]any{
		"tenant_id": text("project_id"), "user_id": text("user_id"), "instance_id": text("uuid"),
		"display_name": text("display_name"), "reservation_id": text("reservation_id"), "hostname": text("hostname"),
		"instance_type": flavor.Get("name"), "instance_type_id": text("instance_type_id"), "instance_flavor_id": flavor.Get("flavorid"),
		"architecture": text("architecture"), "memory_mb": text("memory_mb"), "vcpus": text("vcpus"),
		"disk_gb": inst.Int("root_gb") + inst.Int("ephemeral_gb"), "root_gb": text("root_gb"), "ephemeral_gb": text("ephemeral_gb"),
		"host": text("host"), "node": text("node"), "availability_zone": text("availability_zone"), "cell_name": inst.String("cell_name"),
		"created_at": created, "terminated_at": when("terminated_at"), "deleted_at": when("deleted_at"), "launched_at": when("launched_at"),
		"image_ref_url": inst.String("image_ref"), "os_type": text("os_type"), "kernel_id": text("kernel_id"), "ramdisk_id": text("ramdisk_id"),
		"state": text("vm_state"), "state_description": inst.String("task_state"), "progress": inst.Int("progress"),
		"access_ip_v4": text("access_ip_v4"), "access_ip_v6": text("access_ip_v6"),
		"metadata": inst.Strings("metadata"), "image_meta": image,
	}
}

// fixedIPs are the addresses in a create.end notification.
func fixedIPs(vifs objects.NetworkInfo) []map[string]any {
	out := []map[string]any{}
	for _, v := range vifs {
		for _, s := range v.Network.Subnets {
			for _, ip := range s.IPs {
				out = append(out, map[string]any{
					"address": ip.Address, "type": ip.Type, "version": ip.Version, "meta": map[string]any{},
					"floating_ips": []any{}, "label": v.Network.Label, "vif_mac": v.Address,
				})
			}
		}
	}
	return out
}
