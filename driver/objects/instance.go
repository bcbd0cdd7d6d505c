package objects

import (
	"fmt"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Instance is one server. Follows nova/objects/instance.py, Instance 2.7.
//
// Which fields are set depends on the message that it came with (metadata and
// system_metadata always; flavor and info_cache often not): ask Has before
// taking an empty value for the truth, and load what is missing.
type Instance struct{ *Object }

// NewInstance returns an empty instance.
func NewInstance() Instance { return Instance{New("Instance")} }

// AsInstance views o as an instance.
func AsInstance(o *Object) (Instance, error) { return Instance{o}, is(o, "Instance") }

// Wire returns the object.
func (i Instance) Wire() *Object { return i.Object }

// UnmarshalJSON reads an Instance primitive.
func (i *Instance) UnmarshalJSON(raw []byte) error { return read(raw, "Instance", &i.Object) }

// ID is the row id, from which Nova makes the internal name.
func (i Instance) ID() int64 { return i.Int("id") }

// UUID identifies the instance everywhere.
func (i Instance) UUID() string { return i.String("uuid") }

// ProjectID is the owner.
func (i Instance) ProjectID() string { return i.String("project_id") }

// UserID is who created it.
func (i Instance) UserID() string { return i.String("user_id") }

// ImageRef is the Glance image's id, "" when booted from a volume.
func (i Instance) ImageRef() string { return i.String("image_ref") }

// Host is the compute service that owns the instance, "" when none does.
func (i Instance) Host() string { return i.String("host") }

// Node is the hypervisor host name, "" when none.
func (i Instance) Node() string { return i.String("node") }

// LaunchedOn is the first host.
func (i Instance) LaunchedOn() string { return i.String("launched_on") }

// AvailabilityZone is the zone's name, "" when null.
func (i Instance) AvailabilityZone() string { return i.String("availability_zone") }

// VMState is Nova's vm_state, for example "active".
func (i Instance) VMState() string { return i.String("vm_state") }

// TaskState is Nova's task_state; "" is null, no task.
func (i Instance) TaskState() string { return i.String("task_state") }

// PowerState is the numeric power state, 0 when null.
func (i Instance) PowerState() int { return int(i.Int("power_state")) }

// MemoryMB, VCPUs, RootGB and EphemeralGB are copies of the flavor's sizes in
// MiB, CPUs, GiB and GiB.
func (i Instance) MemoryMB() int64 { return i.Int("memory_mb") }

// VCPUs is the number of virtual CPUs.
func (i Instance) VCPUs() int64 { return i.Int("vcpus") }

// RootGB is the size of the root disk in GiB.
func (i Instance) RootGB() int64 { return i.Int("root_gb") }

// EphemeralGB is the size of the extra disk in GiB.
func (i Instance) EphemeralGB() int64 { return i.Int("ephemeral_gb") }

// DisplayName is the name that the user chose.
func (i Instance) DisplayName() string { return i.String("display_name") }

// Hostname is the guest's host name, made from the display name by the API.
func (i Instance) Hostname() string { return i.String("hostname") }

// KeyName is the name of the key pair, "" when none.
func (i Instance) KeyName() string { return i.String("key_name") }

// KeyData is the public key in OpenSSH form, "" when none.
func (i Instance) KeyData() string { return i.String("key_data") }

// UserData is base64 text, "" when none.
func (i Instance) UserData() string { return i.String("user_data") }

// ConfigDrive is "True" or "".
func (i Instance) ConfigDrive() string { return i.String("config_drive") }

// RootDeviceName is for example "/dev/vda", "" when not chosen yet.
func (i Instance) RootDeviceName() string { return i.String("root_device_name") }

// OSType is the guest's operating system as the image names it, "" when null.
func (i Instance) OSType() string { return i.String("os_type") }

// ReservationID groups instances of one request.
func (i Instance) ReservationID() string { return i.String("reservation_id") }

// LaunchedAt is the time of the last successful boot, zero when none.
func (i Instance) LaunchedAt() time.Time { return i.Time("launched_at") }

// CreatedAt is when the row was made.
func (i Instance) CreatedAt() time.Time { return i.Time("created_at") }

// UpdatedAt is the row's last change, zero when none.
func (i Instance) UpdatedAt() time.Time { return i.Time("updated_at") }

// Deleted says that the row is deleted.
func (i Instance) Deleted() bool { return i.Bool("deleted") }

// Cleaned says that nothing of a deleted instance is left on the host.
func (i Instance) Cleaned() bool { return i.Bool("cleaned") }

// Metadata is a copy of the user's keys and values.
func (i Instance) Metadata() map[string]string { return i.Strings("metadata") }

// SystemMetadata is a copy of Nova's own keys and values.
func (i Instance) SystemMetadata() map[string]string { return i.Strings("system_metadata") }

// Flavor is the present size, an absent view when not loaded.
func (i Instance) Flavor() Flavor { return Flavor{i.Object.Object("flavor")} }

// OldFlavor is the size before a resize, an absent view when none.
func (i Instance) OldFlavor() Flavor { return Flavor{i.Object.Object("old_flavor")} }

// NewFlavor is the size after a resize, an absent view when none.
func (i Instance) NewFlavor() Flavor { return Flavor{i.Object.Object("new_flavor")} }

// InfoCache is the cached network, an absent view when null or not loaded.
func (i Instance) InfoCache() InstanceInfoCache {
	return InstanceInfoCache{i.Object.Object("info_cache")}
}

// NetworkInfo parses the cached network, nil when there is none.
func (i Instance) NetworkInfo() (NetworkInfo, error) { return i.InfoCache().NetworkInfo() }

// KeyPairs are the key pairs, nil when not loaded.
func (i Instance) KeyPairs() []KeyPair { return views(i.Objects("keypairs"), keyPair) }

// SetHost sets host, node and launched_on, as a claim does.
func (i Instance) SetHost(host, node string) {
	i.Set("host", host)
	i.Set("node", node)
	i.Set("launched_on", host)
}

// ClearHost makes the instance belong to no host: host, node, launched_on and
// availability_zone become null.
func (i Instance) ClearHost() {
	for _, f := range []string{"host", "node", "launched_on", "availability_zone"} {
		i.Set(f, nil)
	}
}

// SetVMState sets vm_state.
func (i Instance) SetVMState(state string) { i.Set("vm_state", state) }

// SetTaskState sets task_state; "" is null.
func (i Instance) SetTaskState(state string) { i.Set("task_state", orNull(state)) }

// SetPowerState sets the numeric power state.
func (i Instance) SetPowerState(state int) { i.Set("power_state", state) }

// SetLaunchedAt sets launched_at.
func (i Instance) SetLaunchedAt(t time.Time) { i.Set("launched_at", t) }

// SetTerminatedAt sets terminated_at.
func (i Instance) SetTerminatedAt(t time.Time) { i.Set("terminated_at", t) }

// SetRootDeviceName sets root_device_name.
func (i Instance) SetRootDeviceName(name string) { i.Set("root_device_name", name) }

// PutSystemMetadata sets one key of system_metadata. Saving replaces the whole
// map, so it must have been loaded: errdefs.ErrConflict if it was not.
func (i Instance) PutSystemMetadata(key, value string) error {
	return i.editSystemMetadata(func(m map[string]any) { m[key] = value })
}

// DropSystemMetadata removes one key of system_metadata under the same rule.
func (i Instance) DropSystemMetadata(key string) error {
	return i.editSystemMetadata(func(m map[string]any) { delete(m, key) })
}

func (i Instance) editSystemMetadata(edit func(map[string]any)) error {
	m, ok := i.Get("system_metadata").(map[string]any)
	if !ok {
		return fmt.Errorf("system_metadata of instance %s is not loaded: %w", i.UUID(), errdefs.ErrConflict)
	}
	m = cloneMap(m) // keeps values that are null
	edit(m)
	i.Set("system_metadata", m)
	return nil
}

// InstanceList is a list of instances. Follows nova/objects/instance.py,
// InstanceList 2.6.
type InstanceList struct{ *Object }

// NewInstanceList returns a list of the given instances.
func NewInstanceList(instances ...*Object) InstanceList {
	return InstanceList{listOf("InstanceList", instances)}
}

// Wire returns the object.
func (l InstanceList) Wire() *Object { return l.Object }

// UnmarshalJSON reads an InstanceList primitive.
func (l *InstanceList) UnmarshalJSON(raw []byte) error { return read(raw, "InstanceList", &l.Object) }

// All returns the instances in order.
func (l InstanceList) All() []Instance {
	return views(l.Objects("objects"), func(o *Object) Instance { return Instance{o} })
}

// views wraps each element.
func views[V any](in []*Object, wrap func(*Object) V) []V {
	if in == nil {
		return nil
	}
	out := make([]V, len(in))
	for i, o := range in {
		out[i] = wrap(o)
	}
	return out
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
