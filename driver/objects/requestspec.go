package objects

import "strconv"

// RequestSpec is what the scheduler was asked. It travels with a build and
// goes back to conductor unchanged on a reschedule. Follows
// nova/objects/request_spec.py, RequestSpec 1.14.
type RequestSpec struct{ *Object }

// Wire returns the object.
func (r RequestSpec) Wire() *Object { return r.Object }

// UnmarshalJSON reads a RequestSpec primitive.
func (r *RequestSpec) UnmarshalJSON(raw []byte) error { return read(raw, "RequestSpec", &r.Object) }

// InstanceUUID is the instance that the request is for.
func (r RequestSpec) InstanceUUID() string { return r.String("instance_uuid") }

// GroupHints are the values of scheduler_hints.group: names or ids of the
// server group, usually one or none.
func (r RequestSpec) GroupHints() []string {
	hints, _ := r.Get("scheduler_hints").(map[string]any)
	list, _ := hints["group"].([]any)
	out := make([]string, 0, len(list))
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// VolumeBacked says that the root disk is a volume.
func (r RequestSpec) VolumeBacked() bool { return r.Bool("is_bfv") }

// Selection is a host that the scheduler chose. Follows
// nova/objects/selection.py, Selection 1.1.
type Selection struct{ *Object }

// Wire returns the object.
func (s Selection) Wire() *Object { return s.Object }

// UnmarshalJSON reads a Selection primitive.
func (s *Selection) UnmarshalJSON(raw []byte) error { return read(raw, "Selection", &s.Object) }

// ServiceHost is the compute service's host.
func (s Selection) ServiceHost() string { return s.String("service_host") }

// Node is the hypervisor host name.
func (s Selection) Node() string { return s.String("nodename") }

// InstanceGroup is a server group. Follows nova/objects/instance_group.py,
// InstanceGroup 1.11.
type InstanceGroup struct{ *Object }

// Wire returns the object.
func (g InstanceGroup) Wire() *Object { return g.Object }

// UnmarshalJSON reads an InstanceGroup primitive.
func (g *InstanceGroup) UnmarshalJSON(raw []byte) error { return read(raw, "InstanceGroup", &g.Object) }

// UUID identifies the group.
func (g InstanceGroup) UUID() string { return g.String("uuid") }

// Policy is affinity, anti-affinity or their soft- forms.
func (g InstanceGroup) Policy() string { return g.String("policy") }

// Members are the UUIDs of the group's instances.
func (g InstanceGroup) Members() []string { return g.StringList("members") }

// Hosts are the hosts of its instances as conductor last knew them.
func (g InstanceGroup) Hosts() []string { return g.StringList("hosts") }

// MaxServerPerHost is the anti-affinity rule of that name, 1 unless set.
func (g InstanceGroup) MaxServerPerHost() int {
	n, err := strconv.Atoi(g.Strings("_rules")["max_server_per_host"])
	if err != nil || n < 1 {
		return 1
	}
	return n
}
