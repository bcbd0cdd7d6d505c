package conductor

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// minimumVersion is the lowest level of a binary's services that are not forced
// down; 0 without any.
func (c *Conductor) minimumVersion(ctx context.Context, in call) (any, error) {
	all, err := c.o.Store.Services(ctx, cell.ServiceQuery{Binary: in.text(0, "binary")})
	if err != nil {
		return nil, err
	}
	lowest := 0
	for _, s := range all {
		if v := s.ServiceVersion(); !s.ForcedDown() && (lowest == 0 || v < lowest) {
			lowest = v
		}
	}
	return lowest, nil
}

// service is the one of a host; absent is errdefs.ErrNotFound.
func (c *Conductor) service(ctx context.Context, host, binary string) (objects.Service, error) {
	all, err := c.o.Store.Services(ctx, cell.ServiceQuery{Host: host, Binary: binary})
	if err == nil && (len(all) == 0 || host == "" || binary == "") {
		err = errdefs.ErrNotFound
	}
	if err != nil {
		return objects.Service{}, err
	}
	return all[0], nil
}

func (c *Conductor) getService(ctx context.Context, in call) (any, error) {
	s, err := c.service(ctx, in.text(0, "host"), in.text(1, "binary"))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil //nolint:nilnil // Nova answers so
	}
	return s.Object, err
}

func (c *Conductor) getComputeService(ctx context.Context, in call) (any, error) {
	s, err := c.service(ctx, in.text(0, "host"), "nova-compute")
	if err != nil {
		return nil, or(err, noHost(in.text(0, "host")))
	}
	return s.Object, nil
}

// tooOld refuses a service that is older than the others of its binary.
func (c *Conductor) tooOld(ctx context.Context, in call) error {
	if !in.obj.Has("version") {
		return nil
	}
	lowest, err := c.minimumVersion(ctx, call{args: []any{in.obj.String("binary")}})
	if err != nil {
		return err
	}
	if least, mine := lowest.(int), in.obj.Int("version"); mine < int64(least) {
		return messaging.NovaError("ServiceTooOld", 500,
			"This service is older (v%d) than the minimum (v%d) version of the rest of the deployment. Unable to continue.", mine, least)
	}
	return nil
}

func (c *Conductor) createService(ctx context.Context, in call) (*objects.Object, any, error) {
	if in.obj.Has("id") {
		return nil, nil, actionFailed("create", "already created")
	}
	host, binary := in.obj.String("host"), in.obj.String("binary")
	if host == "" || binary == "" {
		return nil, nil, builtin("ValueError", "a service needs a host and a binary")
	}
	if err := c.tooOld(ctx, in); err != nil {
		return nil, nil, err
	}
	s, err := c.o.Store.CreateService(ctx, objects.Service{Object: in.obj})
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil, nil, messaging.NovaError("ServiceBinaryExists", 500, "Service with host %s binary %s exists.", host, binary)
	}
	return s.Object, nil, err
}

func noService(id int64) *messaging.RemoteError {
	return messaging.NovaError("ServiceNotFound", 404, "Service %d could not be found.", id)
}

func (c *Conductor) saveService(ctx context.Context, in call) (*objects.Object, any, error) {
	if err := c.tooOld(ctx, in); err != nil {
		return nil, nil, err
	}
	s, err := c.o.Store.SaveService(ctx, in.obj.Int("id"), in.saved())
	if err != nil {
		return nil, nil, or(err, noService(in.obj.Int("id")))
	}
	return s.Object, nil, nil
}

func (c *Conductor) destroyService(ctx context.Context, in call) (*objects.Object, any, error) {
	return nil, nil, c.o.Store.DestroyService(ctx, in.obj.Int("id"))
}

func (c *Conductor) getNode(ctx context.Context, in call) (any, error) {
	host, node := in.text(0, "host"), in.text(1, "nodename")
	all, err := c.o.Store.ComputeNodes(ctx, cell.NodeQuery{Host: host, Node: node})
	if err != nil {
		return nil, err
	}
	if len(all) == 0 || host == "" || node == "" {
		return nil, noHost(host)
	}
	return all[0].Object, nil
}

func (c *Conductor) getNodeByUUID(ctx context.Context, in call) (any, error) {
	id := in.text(0, "compute_uuid")
	all, err := c.o.Store.ComputeNodes(ctx, cell.NodeQuery{UUID: id})
	if err != nil {
		return nil, err
	}
	if len(all) == 0 || id == "" {
		return nil, noHost(id)
	}
	return all[0].Object, nil
}

func (c *Conductor) nodesByHost(ctx context.Context, in call) (any, error) {
	host := in.text(0, "host")
	all, err := c.o.Store.ComputeNodes(ctx, cell.NodeQuery{Host: host})
	if err != nil {
		return nil, err
	}
	if len(all) == 0 || host == "" {
		return nil, noHost(host)
	}
	return list("ComputeNodeList", plain(all)), nil
}

func (c *Conductor) nodesByUUIDs(ctx context.Context, in call) (any, error) {
	all, err := c.o.Store.ComputeNodes(ctx, cell.NodeQuery{})
	if err != nil {
		return nil, err
	}
	want := texts(in.arg(0, "compute_uuids"))
	var out []*objects.Object
	for _, n := range all {
		if slices.Contains(want, n.UUID()) {
			out = append(out, n.Object)
		}
	}
	return list("ComputeNodeList", out), nil
}

// notNull are the columns of compute_nodes that a create must give.
var notNull = [...]string{
	"vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used",
	"hypervisor_type", "hypervisor_version", "cpu_info", "host", "hypervisor_hostname",
}

func (c *Conductor) createNode(ctx context.Context, in call) (*objects.Object, any, error) {
	if in.obj.Has("id") {
		return nil, nil, actionFailed("create", "already created")
	}
	for _, f := range notNull {
		if in.obj.IsNull(f) {
			return nil, nil, &messaging.RemoteError{Class: "DBError", Module: "oslo_db.exception", Message: "Column '" + f + "' cannot be null"}
		}
	}
	if id := in.obj.String("uuid"); id != "" && uuid.Validate(id) != nil {
		return nil, nil, builtin("ValueError", "uuid %q", id)
	}
	n, err := c.o.Store.CreateComputeNode(ctx, objects.ComputeNode{Object: in.obj})
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil, nil, messaging.NovaError("DuplicateRecord", 500, "compute node %s of %s exists", in.obj.String("hypervisor_hostname"), in.obj.String("host"))
	}
	return n.Object, nil, err
}

func (c *Conductor) saveNode(ctx context.Context, in call) (*objects.Object, any, error) {
	fields := in.saved()
	for _, f := range notNull {
		if v, given := fields[f]; given && v == nil {
			return nil, nil, &messaging.RemoteError{Class: "DBError", Module: "oslo_db.exception", Message: "Column '" + f + "' cannot be null"}
		}
	}
	n, err := c.o.Store.SaveComputeNode(ctx, in.obj.Int("id"), fields)
	if err != nil {
		return nil, nil, or(err, noHost(in.obj.String("host")))
	}
	return n.Object, nil, nil
}

func (c *Conductor) destroyNode(ctx context.Context, in call) (*objects.Object, any, error) {
	return nil, nil, c.o.Store.DestroyComputeNode(ctx, in.obj.Int("id"))
}
