package compute

import (
	"context"
	"maps"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/notification"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/logging"
)

// notify tells of an event of an instance in the formats that are asked for:
// unversioned as compute.instance.<event>, with more in its payload, and
// versioned as instance.ACTION.PHASE.
func (m *Manager) notify(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, p messaging.Priority, event string, more map[string]any) {
	m.notifyWith(ctx, rc, inst, p, event, more, notification.More{})
}

// notifyFailure tells of an operation that ended with an error.
func (m *Manager) notifyFailure(ctx context.Context, o *op, event string, err error) {
	m.notifyWith(ctx, o.rc, o.inst, messaging.PriorityError, event, map[string]any{"message": tenantText(err)}, notification.More{Fault: fault(o.name, err)})
}

// notifyWith is notify with what the event has more as a versioned one.
func (m *Manager) notifyWith(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, p messaging.Priority, event string, more map[string]any, v notification.More) {
	if enabled(m.dep.Notifier) {
		m.lendFlavor(ctx, rc, inst)
		payload := instancePayload(inst)
		maps.Copy(payload, more)
		m.tell(ctx, m.dep.Notifier, rc, p, "compute.instance."+event, payload)
	}
	if name, ok := notification.NameOf(event); ok {
		m.notifyVersioned(ctx, rc, inst, p, name, v)
	}
}

// notifyVersioned tells of an event in its versioned form alone, which is all
// that some have.
func (m *Manager) notifyVersioned(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, p messaging.Priority, name notification.Name, v notification.More) {
	if !enabled(m.dep.Versioned) {
		return
	}
	s := notification.Subject{
		Instance: m.subject(ctx, rc, inst, name), Name: instanceName(m.opt.InstanceNameTemplate, inst), BlockDevices: m.opt.BlockDevicesInNotifications,
	}
	m.tell(ctx, m.dep.Versioned, rc, p, name.String(), notification.Payload(rc, name, s, v))
}

// lendFlavor gives an instance that came without its flavor the stored one.
func (m *Manager) lendFlavor(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) {
	if inst.Has("flavor") {
		return
	}
	if row, err := m.dep.Conductor.GetInstance(ctx, rc, inst.String("uuid"), "flavor"); err == nil {
		inst.SetClean("flavor", row.Object("flavor"))
	}
}

// subject is the instance with all that a versioned payload names. The network
// is always the stored one, which may be newer than what came with the message.
func (m *Manager) subject(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, name notification.Name) *objects.Object {
	lent := []string{"info_cache"}
	wanted := []string{"flavor", "metadata", "system_metadata"}
	if name.Action == "create" {
		wanted = append(wanted, "keypairs", "tags", "trusted_certs")
	}
	if name.Action == "rebuild" {
		wanted = append(wanted, "trusted_certs")
	}
	for _, field := range wanted {
		if !inst.Has(field) {
			lent = append(lent, field)
		}
	}
	row, err := m.dep.Conductor.GetInstance(ctx, rc, inst.String("uuid"), lent...)
	if err != nil {
		return inst // deleted, or a conductor that is away: what is known is told
	}
	out := inst.Clone()
	for _, field := range lent {
		if row.Has(field) {
			out.SetClean(field, row.Get(field))
		}
	}
	return out
}

func enabled(n Notifier) bool { return n != nil && n.Enabled() }

// tellTime is how long an operation waits for the broker to take a notification.
const tellTime = 10 * time.Second

func (m *Manager) tell(ctx context.Context, n Notifier, rc messaging.RequestContext, p messaging.Priority, event string, payload map[string]any) {
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	if err := n.Notify(ctx, rc, p, event, payload); err != nil {
		m.log.Warn().Err(err).Str(logging.Step, event).Msg("notification lost")
	}
}

// notifyException tells of an operation that failed (nova/exception_wrapper.py).
func (m *Manager) notifyException(ctx context.Context, o *op, err error) {
	if enabled(m.dep.Notifier) {
		args := map[string]any{}
		if o.inst != nil {
			args["instance_uuid"] = o.uuid()
		}
		m.tell(ctx, m.dep.Notifier, o.rc, messaging.PriorityError, o.name, map[string]any{"exception": tenantText(err), "args": args})
	}
	if enabled(m.dep.Versioned) {
		m.tell(ctx, m.dep.Versioned, o.rc, messaging.PriorityError, notification.Exception, fault(o.name, err).Payload())
	}
}

// fault is what a notification may tell of an error.
func fault(method string, err error) *notification.Fault {
	e := translate(err)
	return &notification.Fault{Module: e.Module, Class: e.Class, Message: tenantText(err), Method: method}
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
