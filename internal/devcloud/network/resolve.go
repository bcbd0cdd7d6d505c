package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// InstanceBehind returns the instance, and its project, whose port has the
// address in a network of the router (neutron/agent/metadata/agent.py,
// _get_instance_and_tenant_id). None is errdefs.ErrNotFound.
func (s *Service) InstanceBehind(_ context.Context, router string, address netip.Addr) (instance, project string, err error) {
	err = s.store.read(func(st *state) error {
		inside := map[string]bool{}
		for _, p := range st.interfacesOf(router) {
			inside[p.Network] = true
		}
		var ok bool
		if instance, project, ok = st.instanceIn(inside, address); !ok {
			return fmt.Errorf("instance with %s behind router %s: %w", address, router, errdefs.ErrNotFound)
		}
		return nil
	})
	return instance, project, err
}

// InstanceIn returns the instance, and its project, whose port has the address
// in a network. None is errdefs.ErrNotFound.
func (s *Service) InstanceIn(_ context.Context, network string, address netip.Addr) (instance, project string, err error) {
	err = s.store.read(func(st *state) error {
		var ok bool
		if instance, project, ok = st.instanceIn(map[string]bool{network: true}, address); !ok {
			return fmt.Errorf("instance with %s in network %s: %w", address, network, errdefs.ErrNotFound)
		}
		return nil
	})
	return instance, project, err
}

func (st *state) instanceIn(networks map[string]bool, address netip.Addr) (instance, project string, ok bool) {
	for p := range st.ports.all() {
		if networks[p.Network] && p.plugged() && slices.ContainsFunc(p.IPs, func(ip fixedIP) bool { return ip.Address == address }) {
			return p.DeviceID, p.Project, true
		}
	}
	return "", "", false
}

// Host has addresses in a network.
type Host struct {
	// Instance is "" for what is none.
	Instance  string
	Addresses []netip.Addr
}

// Hosts are all ports with addresses of a network, in the order of their ids.
func (s *Service) Hosts(_ context.Context, network string) (out []Host) {
	_ = s.store.read(func(st *state) error { // returns nil
		for _, p := range st.ports.where(func(p *port) bool { return p.Network == network && len(p.IPs) > 0 }) {
			h := Host{}
			if p.plugged() {
				h.Instance = p.DeviceID
			}
			for _, ip := range p.IPs {
				h.Addresses = append(h.Addresses, ip.Address)
			}
			out = append(out, h)
		}
		return nil
	})
	return out
}
