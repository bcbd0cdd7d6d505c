package cell

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/objects"
)

var (
	services = table{name: "services", object: "Service", columns: []string{"uuid", "host", "binary"}, without: []string{"compute_node", "availability_zone"}}
	nodes    = table{name: "compute_nodes", object: "ComputeNode", columns: []string{"uuid", "host", "hypervisor_hostname"}}
)

// ServiceDownTime is how long after its last report a service is up
// (service_down_time).
const ServiceDownTime = 60 * time.Second

// Up reports whether a service lives at that time: it has reported lately and
// nobody has forced it down.
func Up(service objects.Service, now time.Time) bool {
	if service.ForcedDown() {
		return false
	}
	last := service.LastSeenUp()
	if last.IsZero() {
		last = service.Time("created_at")
	}
	silent := now.Sub(last)
	return max(silent, -silent) <= ServiceDownTime
}

// ServiceQuery selects services; empty fields are any.
type ServiceQuery struct{ Host, Binary, UUID string }

// Services returns services in the order of their ids.
func (s *Store) Services(ctx context.Context, q ServiceQuery) ([]objects.Service, error) {
	b := &builder{}
	for column, v := range map[string]string{"host": q.Host, `"binary"`: q.Binary, "uuid": q.UUID} {
		if v != "" {
			b.add(column+" = ?", v)
		}
	}
	rows, err := s.list(ctx, services, b.where()+" ORDER BY id", b.args...)
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	out := make([]objects.Service, len(rows))
	for i, o := range rows {
		out[i] = objects.Service{Object: o}
	}
	return out, nil
}

// CreateService stores a service; a host has one of each binary, a second is
// errdefs.ErrAlreadyExists. A missing uuid is made.
func (s *Store) CreateService(ctx context.Context, service objects.Service) (objects.Service, error) {
	o := service.Clone()
	if o.String("uuid") == "" {
		o.SetClean("uuid", uuid.NewString())
	}
	o, err := s.insert(ctx, services, o)
	if err != nil {
		return objects.Service{}, fmt.Errorf("create service %s of %s: %w", service.Binary(), service.Host(), err)
	}
	return objects.Service{Object: o}, nil
}

// SaveService sets fields of the service with that row id. A report_count that
// grows is a sign of life: last_seen_up becomes now.
func (s *Store) SaveService(ctx context.Context, id int64, fields map[string]any) (objects.Service, error) {
	o, err := s.change(ctx, services, func(o *objects.Object) error {
		before := o.Int("report_count")
		if err := setting(fields)(o); err != nil {
			return err
		}
		if o.Int("report_count") > before {
			o.SetClean("last_seen_up", time.Now())
		}
		return nil
	}, "WHERE id = ?", id)
	if err != nil {
		return objects.Service{}, fmt.Errorf("save service %d: %w", id, err)
	}
	return objects.Service{Object: o}, nil
}

// DestroyService removes a service; none is success.
func (s *Store) DestroyService(ctx context.Context, id int64) error {
	return s.remove(ctx, services, "id = ?", id)
}

// NodeQuery selects compute nodes; empty fields are any.
type NodeQuery struct{ Host, Node, UUID string }

// ComputeNodes returns compute nodes in the order of their ids.
func (s *Store) ComputeNodes(ctx context.Context, q NodeQuery) ([]objects.ComputeNode, error) {
	b := &builder{}
	for column, v := range map[string]string{"host": q.Host, "hypervisor_hostname": q.Node, "uuid": q.UUID} {
		if v != "" {
			b.add(column+" = ?", v)
		}
	}
	rows, err := s.list(ctx, nodes, b.where()+" ORDER BY id", b.args...)
	if err != nil {
		return nil, fmt.Errorf("list compute nodes: %w", err)
	}
	out := make([]objects.ComputeNode, len(rows))
	for i, o := range rows {
		out[i] = objects.ComputeNode{Object: o}
	}
	return out, nil
}

// ratios are what a node's ratios are when it has none of its own
// (initial_*_allocation_ratio).
var ratios = map[string]float64{"cpu_allocation_ratio": 16, "ram_allocation_ratio": 1.5, "disk_allocation_ratio": 1}

// CreateComputeNode stores a compute node; a host has one of each name, a
// second is errdefs.ErrAlreadyExists. A missing uuid is made.
func (s *Store) CreateComputeNode(ctx context.Context, node objects.ComputeNode) (objects.ComputeNode, error) {
	o := node.Clone()
	if o.String("uuid") == "" {
		o.SetClean("uuid", uuid.NewString())
	}
	for field, v := range ratios {
		if o.Float(field) == 0 {
			o.SetClean(field, v)
		}
	}
	o, err := s.insert(ctx, nodes, o)
	if err != nil {
		return objects.ComputeNode{}, fmt.Errorf("create compute node %s of %s: %w", node.Node(), node.Host(), err)
	}
	return objects.ComputeNode{Object: o}, nil
}

// SaveComputeNode sets fields of the compute node with that row id.
func (s *Store) SaveComputeNode(ctx context.Context, id int64, fields map[string]any) (objects.ComputeNode, error) {
	o, err := s.change(ctx, nodes, setting(fields), "WHERE id = ?", id)
	if err != nil {
		return objects.ComputeNode{}, fmt.Errorf("save compute node %d: %w", id, err)
	}
	return objects.ComputeNode{Object: o}, nil
}

// DestroyComputeNode removes a compute node; none is success.
func (s *Store) DestroyComputeNode(ctx context.Context, id int64) error {
	return s.remove(ctx, nodes, "id = ?", id)
}
