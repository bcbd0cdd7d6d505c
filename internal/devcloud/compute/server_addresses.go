package compute

import (
	"context"
	"net/http"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// addressVerbs give a server's port one address more or less. They ended with
// microversion 2.44, and what the host cannot do becomes a fault
// (nova/api/openstack/compute/multinic.py).
func (s *Service) addressVerbs() []verb {
	network := schema.Schema{schema.Type("string", "number"), schema.MinLen(1), schema.MaxLen(36)}
	return []verb{
		s.addressVerb("addFixedIp", "add", "add_fixed_ip_to_instance", "networkId", "network_id", network),
		s.addressVerb("removeFixedIp", "remove", "remove_fixed_ip_from_instance", "address", "address", schema.Address()),
	}
}

func (s *Service) addressVerb(name, policy, method, field, argument string, rules schema.Schema) verb {
	return verb{
		name: name, policy: "os-multinic:" + policy, needs: method, until: 43, anyTask: true, unlaunched: true,
		rules: only(name, schema.Object(schema.Req(field, rules...))...),
		run: func(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
			if i.Host() == "" {
				return nil, conflict("Instance %s is not ready", i.UUID())
			}
			if err := s.cast(ctx, r, i, method, "6.0", map[string]any{argument: d.Get(field)}); err != nil {
				return nil, err
			}
			return empty(http.StatusAccepted)
		},
	}
}
