package network

import (
	"context"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

var floatingPoolResource = resource{
	name: "floatingip_pool", plural: "floatingip_pools", path: "floatingip_pools",
	missing: subnetResource.missing,
	attrs: []attr{
		{name: "subnet_id"}, {name: "subnet_name"}, {name: "tenant_id"}, {name: "project_id"}, {name: "network_id"}, {name: "cidr"},
	},
}

// floatingPoolRoutes list the subnets that floating addresses come from
// (neutron/db/l3_fip_pools_db.py).
func (s *Service) floatingPoolRoutes() {
	s.route(&floatingPoolResource, verbs{list: func(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
		err = s.store.read(func(st *state) error {
			all := st.subnets.where(func(sub *subnet) bool {
				n, ok := st.networks.get(sub.Network)
				return ok && sub.CIDR.Addr().Is4() && (n.externalTo(r.Caller.ProjectID) || n.External && r.Caller.Admin())
			})
			res, err = list(r, &floatingPoolResource, all, func(sub *subnet) map[string]any {
				return map[string]any{
					"subnet_id": sub.ID, "subnet_name": sub.Name, "tenant_id": sub.Project, "project_id": sub.Project,
					"network_id": sub.Network, "cidr": sub.CIDR.String(),
				}
			})
			return err
		})
		return res, err
	}})
}
