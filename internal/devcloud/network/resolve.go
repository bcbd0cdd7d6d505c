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
		for p := range st.ports.all() {
			if inside[p.Network] && p.plugged() && slices.ContainsFunc(p.IPs, func(ip fixedIP) bool { return ip.Address == address }) {
				instance, project = p.DeviceID, p.Project
				return nil
			}
		}
		return fmt.Errorf("instance with %s behind router %s: %w", address, router, errdefs.ErrNotFound)
	})
	return instance, project, err
}
