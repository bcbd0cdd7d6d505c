package daemon

import (
	"context"
	"errors"
	"slices"

	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/neutron"
	"github.com/gantry-project/gantry/driver/objects"
)

// Cached implements compute.Ports.
func (p ports) Cached(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) (objects.NetworkInfo, error) {
	info, err := p.conductor.GetInfoCache(ctx, rc, inst.String("uuid"))
	if messaging.IsRemote(err, "InstanceInfoCacheNotFound") {
		return nil, nil
	}
	return info, err
}

// Attach implements compute.Ports.
func (p ports) Attach(ctx context.Context, rc messaging.RequestContext, req compute.AttachRequest) (objects.NetworkInfo, error) {
	inst := objects.Instance{Object: req.Instance}
	known, err := p.Cached(ctx, rc, req.Instance)
	if err != nil {
		return nil, err
	}
	ask := neutron.AttachRequest{Known: known, AllocateRequest: neutron.AllocateRequest{
		InstanceUUID: inst.UUID(), ProjectID: inst.ProjectID(), AvailabilityZone: inst.String("availability_zone"),
		Hostname: inst.Hostname(), Host: p.host, Admin: slices.Contains(rc.Roles(), "admin"), Auth: userAuth(rc),
	}}
	if req.NetworkID != "" || req.PortID != "" {
		ask.Networks = []neutron.NetworkRequest{{NetworkID: req.NetworkID, PortID: req.PortID, Address: req.Address, Tag: req.Tag}}
	}
	got, err := p.neutron.Attach(ctx, ask)
	if err != nil {
		return nil, novaError(err)
	}
	// a row of an earlier life of the user's port would be in the way
	err = p.conductor.DeleteVIF(ctx, rc, got.Port.ID)
	if err == nil {
		err = p.conductor.CreateVIF(ctx, rc, objects.NewVirtualInterface(inst.UUID(), got.Port.ID, got.Port.MAC, req.Tag).Object)
	}
	if err == nil && req.Tag != "" {
		err = p.describeDevices(ctx, rc, req.Instance)
	}
	if err == nil {
		err = p.conductor.SaveInfoCache(ctx, rc, inst.UUID(), got.Info)
	}
	if err != nil {
		return nil, errors.Join(err, p.Detach(context.WithoutCancel(ctx), rc, req.Instance, got.Info, got.Port.ID))
	}
	// in the order of Known and with the new one last, as the contract wants it
	i := slices.IndexFunc(got.Info, func(v objects.VIF) bool { return v.ID == got.Port.ID })
	vif := got.Info[i]
	return append(slices.Delete(got.Info, i, i+1), vif), nil
}

// Detach implements compute.Ports.
func (p ports) Detach(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, known objects.NetworkInfo, port string) error {
	uuid := inst.String("uuid")
	theirs := slices.ContainsFunc(known, func(v objects.VIF) bool { return v.ID == port && v.PreserveOnDelete })
	if err := p.neutron.Detach(ctx, neutron.DetachRequest{InstanceUUID: uuid, PortID: port, Preserve: theirs, RequestID: requestID(rc)}); err != nil {
		return novaError(err)
	}
	rows, err := p.conductor.VIFs(ctx, rc, uuid)
	if err != nil {
		return err
	}
	err = p.conductor.DeleteVIF(ctx, rc, port)
	if slices.ContainsFunc(rows, func(r *objects.Object) bool { return r.String("uuid") == port && r.String("tag") != "" }) {
		err = errors.Join(err, p.describeDevices(ctx, rc, inst))
	}
	rest := slices.DeleteFunc(slices.Clone(known), func(v objects.VIF) bool { return v.ID == port })
	return errors.Join(err, p.conductor.SaveInfoCache(ctx, rc, uuid, rest))
}

// AddAddress implements compute.Ports.
func (p ports) AddAddress(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, network string) (objects.NetworkInfo, error) {
	return p.readdress(ctx, rc, inst, p.neutron.AddAddress, neutron.AddressRequest{NetworkID: network})
}

// RemoveAddress implements compute.Ports.
func (p ports) RemoveAddress(ctx context.Context, rc messaging.RequestContext, inst *objects.Object, address string) (objects.NetworkInfo, error) {
	return p.readdress(ctx, rc, inst, p.neutron.RemoveAddress, neutron.AddressRequest{Address: address})
}

func (p ports) readdress(ctx context.Context, rc messaging.RequestContext, inst *objects.Object,
	ask func(context.Context, neutron.AddressRequest) (objects.NetworkInfo, error), req neutron.AddressRequest,
) (objects.NetworkInfo, error) {
	known, err := p.Cached(ctx, rc, inst)
	if err != nil {
		return nil, err
	}
	uuid := inst.String("uuid")
	req.Auth = userAuth(rc)
	req.InfoRequest = neutron.InfoRequest{InstanceUUID: uuid, Known: known, RequestID: requestID(rc)}
	info, err := ask(ctx, req)
	if err != nil {
		return nil, novaError(err)
	}
	return info, p.conductor.SaveInfoCache(ctx, rc, uuid, info)
}

// novaError adds the exception that the client of Neutron names: who called
// tells by its class what went wrong.
func novaError(err error) error {
	e, ok := errors.AsType[*neutron.Error](err)
	if !ok {
		return err
	}
	return errors.Join(err, messaging.NovaError(string(e.Name), e.Code, "%s", e.Text()))
}
