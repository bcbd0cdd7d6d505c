package conductortest

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// AddService stores a service record, for example of a nova-conductor whose
// version is to be found.
func (c *Conductor) AddService(host, binary string, version int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := objects.NewService(host, binary, binary, version).Object
	c.storeService(s)
}

// Service returns a copy of a record, nil if absent.
func (c *Conductor) Service(host, binary string) *objects.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	return first(where(c.services, "host", host, "binary", binary))
}

// UpdateService changes a record as the API would.
func (c *Conductor) UpdateService(host, binary string, change func(objects.Service)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range where(c.services, "host", host, "binary", binary) {
		change(objects.Service{Object: s})
		s.ResetChanges()
	}
}

// DeleteService removes a record as the API would.
func (c *Conductor) DeleteService(host, binary string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.services = slices.DeleteFunc(c.services, func(s *objects.Object) bool {
		return s.String("host") == host && s.String("binary") == binary
	})
}

// Node returns a copy of a compute node's row, nil if absent.
func (c *Conductor) Node(host, node string) *objects.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	return first(where(c.nodes, "host", host, "hypervisor_hostname", node))
}

func first(rows []*objects.Object) *objects.Object {
	if len(rows) == 0 {
		return nil
	}
	return rows[0].Clone()
}

func (c *Conductor) storeService(s *objects.Object) {
	s.SetClean("id", c.id())
	s.SetClean("uuid", uuid.NewString())
	for _, f := range []string{"disabled", "forced_down", "deleted"} {
		if !s.Has(f) {
			s.SetClean(f, false)
		}
	}
	for _, f := range []string{"disabled_reason", "last_seen_up", "updated_at", "deleted_at"} {
		if !s.Has(f) {
			s.SetClean(f, nil)
		}
	}
	s.SetClean("created_at", time.Now())
	s.ResetChanges()
	c.services = append(c.services, s.Clone())
}

func (c *Conductor) minimumVersion(in invocation) (any, error) {
	lowest := int64(0)
	for _, s := range where(c.services, "binary", in.text(0, "binary")) {
		if v := s.Int("version"); !s.Bool("forced_down") && (lowest == 0 || v < lowest) {
			lowest = v
		}
	}
	return lowest, nil
}

func (c *Conductor) getService(in invocation) (any, error) {
	return orNil(first(where(c.services, "host", in.text(0, "host"), "binary", in.text(1, "binary")))), nil
}

// orNil keeps a nil object from becoming a non-nil any.
func orNil(o *objects.Object) any {
	if o == nil {
		return nil
	}
	return o
}

func (c *Conductor) getComputeService(in invocation) (any, error) {
	s := first(where(c.services, "host", in.text(0, "host"), "binary", "nova-compute"))
	if s == nil {
		return nil, noHost(in.text(0, "host"))
	}
	return s, nil
}

func (c *Conductor) createService(in invocation) (any, error) {
	host, binary := in.obj.String("host"), in.obj.String("binary")
	if len(where(c.services, "host", host, "binary", binary)) > 0 {
		return nil, messaging.NovaError("ServiceBinaryExists", 500, "Service with host %s binary %s exists.", host, binary)
	}
	c.storeService(in.obj)
	return nil, nil
}

// saveService counts a heartbeat only when report_count grows.
func (c *Conductor) saveService(in invocation) (any, error) {
	for _, row := range c.services {
		if row.Int("id") != in.obj.Int("id") {
			continue
		}
		before := row.Int("report_count")
		for _, f := range in.obj.Changes() {
			row.SetClean(f, in.obj.Get(f))
		}
		if row.Int("report_count") > before {
			row.SetClean("last_seen_up", time.Now())
		}
		row.SetClean("updated_at", time.Now())
		fill(in.obj, row.Clone())
		in.obj.ResetChanges()
		return nil, nil
	}
	return nil, messaging.NovaError("ServiceNotFound", 404, "Service %d could not be found.", in.obj.Int("id"))
}

func noHost(host string) error {
	return messaging.NovaError("ComputeHostNotFound", 404, "Compute host %s could not be found.", host)
}

func (c *Conductor) getNode(in invocation) (any, error) {
	n := first(where(c.nodes, "host", in.text(0, "host"), "hypervisor_hostname", in.text(1, "nodename")))
	if n == nil {
		return nil, noHost(in.text(0, "host"))
	}
	return n, nil
}

func (c *Conductor) getNodes(in invocation) (any, error) {
	rows := where(c.nodes, "host", in.text(0, "host"))
	if len(rows) == 0 {
		return nil, noHost(in.text(0, "host"))
	}
	return list("ComputeNodeList", clones(rows)), nil
}

// notNull are the columns of compute_nodes that a create must give.
var notNull = [...]string{
	"vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used",
	"hypervisor_type", "hypervisor_version", "cpu_info",
}

func (c *Conductor) createNode(in invocation) (any, error) {
	for _, f := range notNull {
		if in.obj.IsNull(f) {
			return nil, &messaging.RemoteError{Class: "DBError", Module: "oslo_db.exception", Message: "Column '" + f + "' cannot be null"}
		}
	}
	host, node := in.obj.String("host"), in.obj.String("hypervisor_hostname")
	if len(where(c.nodes, "host", host, "hypervisor_hostname", node)) > 0 {
		return nil, messaging.NovaError("DuplicateRecord", 500, "compute node %s of %s exists", node, host)
	}
	in.obj.SetClean("id", c.id())
	if in.obj.String("uuid") == "" {
		in.obj.SetClean("uuid", uuid.NewString())
	}
	for f, v := range map[string]any{
		"mapped": 0, "cpu_allocation_ratio": 16.0, "ram_allocation_ratio": 1.5, "disk_allocation_ratio": 1.0,
		"free_ram_mb": nil, "free_disk_gb": nil, "running_vms": nil, "current_workload": nil, "deleted": false,
	} {
		if !in.obj.Has(f) {
			in.obj.SetClean(f, v)
		}
	}
	in.obj.ResetChanges()
	c.nodes = append(c.nodes, in.obj.Clone())
	return nil, nil
}

func (c *Conductor) saveNode(in invocation) (any, error) {
	if slices.Contains(in.obj.Changes(), "mapped") {
		return nil, valueError("mapped belongs to the control plane")
	}
	return nil, save(c.nodes, in.obj, noHost(in.obj.String("host")))
}

// save writes the marked fields into the row of the same id.
func save(rows []*objects.Object, obj *objects.Object, absent error) error {
	for _, row := range rows {
		if row.Int("id") != obj.Int("id") {
			continue
		}
		for _, f := range obj.Changes() {
			row.SetClean(f, obj.Get(f))
		}
		row.SetClean("updated_at", time.Now())
		fill(obj, row.Clone())
		obj.ResetChanges()
		return nil
	}
	return absent
}

func (c *Conductor) destroyNode(in invocation) (any, error) {
	c.nodes = slices.DeleteFunc(c.nodes, func(n *objects.Object) bool { return n.Int("id") == in.obj.Int("id") })
	return nil, nil
}
