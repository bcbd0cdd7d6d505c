// Package notification renders what Nova's versioned notifications carry:
// payload objects of nova/notifications/objects in the versions of release 26
// (Zed), each with name, namespace, version and data as
// oslo.versionedobjects writes them, and never a list of changes.
//
// It says what a payload looks like and not when one is sent; that is
// driver/compute, and the queue is driver/messaging.
package notification

import (
	"encoding/json"
	"strings"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// Name is the event type of a versioned notification: OBJECT.ACTION.PHASE.
type Name struct {
	// Action is one of NotificationAction (nova/objects/fields.py).
	Action string
	// Phase is start, end or error.
	Phase string
}

// String is the event type of an event of an instance.
func (n Name) String() string { return "instance." + n.Action + "." + n.Phase }

// Exception is the event type of a failed operation of the service, which
// carries a Fault alone.
const Exception = "compute.exception"

// NameOf translates the event of an unversioned notification without its
// "compute.instance.". It reports false for one that has no versioned sister.
func NameOf(event string) (Name, bool) {
	i := strings.LastIndexByte(event, '.')
	if i < 0 {
		return Name{}, false
	}
	n := Name{Action: event[:i], Phase: event[i+1:]}
	switch n.Action {
	case "resize.prep", "resize.confirm", "resize.revert":
		n.Action = strings.Replace(n.Action, ".", "_", 1)
	case "finish_resize":
		n.Action = "resize_finish"
	case "create_ip", "delete_ip":
		return Name{}, false
	}
	return n, true
}

// Fault is why an operation failed, as far as a tenant may know it.
type Fault struct {
	// Module and Class name the exception, Message is its text.
	Module, Class, Message string
	// Method is the operation's name on the wire.
	Method string
}

// Payload is ExceptionPayload 1.1; null without a fault. There is no Python
// traceback, and what stands for it tells nothing of the host.
func (f *Fault) Payload() map[string]any {
	if f == nil {
		return nil
	}
	return object("ExceptionPayload", "1.1", map[string]any{
		"module_name": f.Module, "function_name": f.Method, "exception": f.Class, "exception_message": f.Message,
		"traceback": f.Class + ": " + f.Message,
	})
}

// Subject is the instance that an event is of.
type Subject struct {
	// Instance has at least flavor, info_cache, metadata and system_metadata;
	// for an event of a creation keypairs, tags and trusted_certs too.
	Instance *objects.Object
	// Name is Nova's internal name of it, instance-0000002a.
	Name string
	// BlockDevices tells [notifications] bdms_in_notifications. The list holds
	// volumes, which no instance has here.
	BlockDevices bool
}

// More is what some events tell beside the instance; each field is of one event.
type More struct {
	// Fault is why the operation failed.
	Fault *Fault
	// NewFlavor is that of resize_prep.
	NewFlavor *objects.Object
	// RescueImage is the id of the image of rescue, empty for the instance's own.
	RescueImage string
	// SnapshotImage is the id of the image that snapshot makes.
	SnapshotImage string
}

// Payload is what the notification n of the instance carries.
func Payload(rc messaging.RequestContext, n Name, s Subject, m More) map[string]any {
	data := s.data(rc)
	data["fault"] = m.Fault.Payload()
	switch n.Action {
	case "create":
		s.creation(data)
		return object("InstanceCreatePayload", "1.12", data)
	case "rebuild":
		data["trusted_image_certificates"] = s.certificates()
		return object("InstanceActionRebuildPayload", "1.9", data)
	case "resize_prep":
		data["new_flavor"] = flavor(m.NewFlavor)
		return object("InstanceActionResizePrepPayload", "1.3", data)
	case "rescue":
		data["rescue_image_ref"] = orNull(m.RescueImage)
		return object("InstanceActionRescuePayload", "1.3", data)
	case "snapshot":
		data["snapshot_image_id"] = m.SnapshotImage
		return object("InstanceActionSnapshotPayload", "1.9", data)
	}
	return object("InstanceActionPayload", "1.8", data)
}

// object is the primitive of a versioned object.
func object(name, version string, data map[string]any) map[string]any {
	return map[string]any{
		"nova_object.name": name, "nova_object.namespace": "nova", "nova_object.version": version, "nova_object.data": data,
	}
}

// fields copies fields of an object under the names that they have in a payload.
func fields(o *objects.Object, names map[string]string) map[string]any {
	out := make(map[string]any, len(names))
	for to, from := range names {
		out[to] = o.Get(from)
	}
	return out
}

// same names each field as in the object.
func same(names ...string) map[string]string {
	out := make(map[string]string, len(names))
	for _, n := range names {
		out[n] = n
	}
	return out
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// orEmpty is a dictionary of strings; Nova has null for no kind of it.
func orEmpty(raw json.RawMessage) any {
	out := map[string]any{}
	_ = json.Unmarshal(raw, &out) // what is no dictionary has no entries
	return out
}
