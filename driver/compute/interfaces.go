package compute

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/notification"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// attachInterface gives the instance one more port and plugs it, and answers
// with the port as network_info describes it. As nova-compute does, it does not
// wait for network-vif-plugged, whatever vif_plugging_timeout says: the message
// is a call, and the API shows the port's state.
//
// The port is bound and recorded before it is plugged. A service that dies in
// between leaves what Neutron says is the instance's, and the recovery of the
// next start plugs it.
func (m *Manager) attachInterface(ctx context.Context, o *op) (any, error) {
	req := AttachRequest{Instance: o.inst}
	for name, to := range map[string]*string{
		"network_id": &req.NetworkID, "port_id": &req.PortID, "requested_ip": &req.Address, "tag": &req.Tag,
	} {
		if err := o.arg(name, to); err != nil {
			return nil, err
		}
	}
	attacher, err := m.attacher(o)
	if err != nil {
		return nil, err
	}
	if _, err := m.power(ctx, o); err != nil {
		return nil, err
	}
	before, err := m.dep.Ports.Cached(ctx, o.rc, o.inst)
	if err != nil {
		return nil, err
	}
	m.notifyInterface(ctx, o, "attach", nil, false)
	after, err := m.dep.Ports.Attach(ctx, o.rc, req)
	if err != nil {
		return nil, fmt.Errorf("attach interface to %s: %w", o.uuid(), err)
	}
	vif := after[len(after)-1]
	if err = failpoint.Hit("compute.attach.bound"); err == nil {
		err = attacher.ChangeNetwork(ctx, driver.NetworkChange{UUID: driver.InstanceUUID(o.uuid()), Before: before, After: after})
	}
	if err == nil {
		err = failpoint.Hit("compute.attach.plugged")
	}
	m.notifyInterface(ctx, o, "attach", err, true)
	if err == nil {
		return vif, nil
	}
	undo := context.WithoutCancel(ctx)
	failed := messaging.NovaError("InterfaceAttachFailed", 500, "Failed to attach network adapter device to %s", o.uuid())
	return nil, errors.Join(fmt.Errorf("plug port %s: %w", vif.ID, err), failed,
		attacher.ChangeNetwork(undo, driver.NetworkChange{UUID: driver.InstanceUUID(o.uuid()), Before: after, After: before}),
		m.dep.Ports.Detach(undo, o.rc, o.inst, after, vif.ID))
}

// detachInterface unplugs a port and then takes it from the instance.
func (m *Manager) detachInterface(ctx context.Context, o *op) (any, error) {
	port := ""
	if err := o.arg("port_id", &port); err != nil {
		return nil, err
	}
	attacher, err := m.attacher(o)
	if err != nil {
		return nil, err
	}
	// what came with the message is as old as the API's look at the row
	before, err := m.dep.Ports.Cached(ctx, o.rc, o.inst)
	if err != nil {
		return nil, err
	}
	after := slices.DeleteFunc(slices.Clone(before), func(v objects.VIF) bool { return v.ID == port })
	if len(after) == len(before) {
		return nil, messaging.NovaError("PortNotFound", 404, "Port %s is not attached", clip(port, 64))
	}
	m.notifyInterface(ctx, o, "detach", nil, false)
	err = attacher.ChangeNetwork(ctx, driver.NetworkChange{UUID: driver.InstanceUUID(o.uuid()), Before: before, After: after})
	if err == nil {
		err = failpoint.Hit("compute.detach.unplugged")
	}
	if err != nil {
		failed := messaging.NovaError("InterfaceDetachFailed", 400, "Failed to detach network adapter device from %s", o.uuid())
		return nil, errors.Join(fmt.Errorf("unplug port %s: %w", port, err), failed)
	}
	if err := m.dep.Ports.Detach(ctx, o.rc, o.inst, before, port); err != nil {
		return nil, fmt.Errorf("detach interface from %s: %w", o.uuid(), err)
	}
	m.notifyInterface(ctx, o, "detach", nil, true)
	return nil, nil
}

// notifyInterface tells that an interface is being attached or detached, has
// been, or could not be. Nova has these as versioned notifications only, and
// none of a failed detach.
func (m *Manager) notifyInterface(ctx context.Context, o *op, verb string, err error, ended bool) {
	name, p, more := notification.Name{Action: "interface_" + verb, Phase: "start"}, messaging.PriorityInfo, notification.More{}
	switch {
	case err != nil:
		name.Phase, p, more.Fault = "error", messaging.PriorityError, fault(o.name, err)
	case ended:
		name.Phase = "end"
	}
	m.notifyVersioned(ctx, o.rc, o.inst, p, name, more)
}

func (m *Manager) addFixedIP(ctx context.Context, o *op) (any, error) {
	network := ""
	if err := o.arg("network_id", &network); err != nil {
		return nil, err
	}
	return nil, m.changeAddresses(ctx, o, "create_ip", func() (objects.NetworkInfo, error) {
		return m.dep.Ports.AddAddress(ctx, o.rc, o.inst, network)
	})
}

func (m *Manager) removeFixedIP(ctx context.Context, o *op) (any, error) {
	address := ""
	if err := o.arg("address", &address); err != nil {
		return nil, err
	}
	return nil, m.changeAddresses(ctx, o, "delete_ip", func() (objects.NetworkInfo, error) {
		return m.dep.Ports.RemoveAddress(ctx, o.rc, o.inst, address)
	})
}

// changeAddresses asks Neutron for other addresses and tells the guest.
func (m *Manager) changeAddresses(ctx context.Context, o *op, event string, ask func() (objects.NetworkInfo, error)) error {
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, event+".start", nil)
	before, err := m.dep.Ports.Cached(ctx, o.rc, o.inst)
	if err != nil {
		return err
	}
	after, err := ask()
	if err != nil {
		return err
	}
	if err := m.follow(ctx, o.uuid(), before, after); err != nil {
		return err
	}
	m.notify(ctx, o.rc, o.inst, messaging.PriorityInfo, event+".end", map[string]any{"fixed_ips": fixedIPs(after)})
	return nil
}

// injectNetworkInfo brings info cache and guest up to date.
func (m *Manager) injectNetworkInfo(ctx context.Context, o *op) (any, error) {
	return nil, m.refreshNetwork(ctx, o.rc, o.inst)
}

// followNetwork is what a change in Neutron leads to. A guest that is being
// worked on gets the network then.
func (m *Manager) followNetwork(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	uuid := inst.String("uuid")
	unlock, err := m.locks.Lock(ctx, uuid)
	if err != nil {
		return fmt.Errorf("lock instance %s: %w", uuid, err)
	}
	defer unlock()
	if m.active.running(uuid, kindDelete) {
		return nil
	}
	return m.refreshNetwork(ctx, rc, inst)
}

// refreshNetwork reads the network from Neutron and lets the guest follow: ports
// that are gone are unplugged, addresses come and go. The lock is held.
func (m *Manager) refreshNetwork(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	before, err := m.dep.Ports.Cached(ctx, rc, inst)
	if err != nil {
		return err
	}
	after, err := m.dep.Ports.Refresh(ctx, rc, inst)
	if err != nil {
		return err
	}
	return m.follow(ctx, inst.String("uuid"), before, after)
}

// follow lets a guest that exists have its network. A driver that cannot do so
// gives it at the next start.
func (m *Manager) follow(ctx context.Context, uuid string, before, after objects.NetworkInfo) error {
	attacher, ok := m.dep.Driver.(driver.InterfaceAttacher)
	if !ok {
		return nil
	}
	err := attacher.ChangeNetwork(ctx, driver.NetworkChange{UUID: driver.InstanceUUID(uuid), Before: before, After: after})
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// attacher is the driver as one that changes interfaces, or Nova's refusal.
func (m *Manager) attacher(o *op) (driver.InterfaceAttacher, error) {
	if a, ok := m.dep.Driver.(driver.InterfaceAttacher); ok {
		return a, nil
	}
	return nil, messaging.NovaError("AttachInterfaceNotSupported", 400, "Attaching interfaces is not supported for instance %s.", o.uuid())
}
