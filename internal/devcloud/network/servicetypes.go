package network

import (
	"slices"
	"strings"
)

// serviceTypes accepts the owners of ports that a subnet is for
// (neutron_lib/api/definitions/subnet_service_types.py).
func serviceTypes(v any) (any, error) {
	list, ok := v.([]any)
	if v == nil {
		return []any{}, nil
	}
	if !ok {
		return nil, because("'%s' is not a list", py(v))
	}
	seen := map[string]bool{}
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil, fault(400, "InvalidInputSubnetServiceType", "Subnet service type %s is not a string.", py(e))
		}
		if s == "" || !strings.HasPrefix(s, ownersNetwork) && !strings.HasPrefix(s, ownersCompute) {
			return nil, fault(400, "InvalidSubnetServiceType", "Subnet service type %s does not correspond to a valid device owner.", s)
		}
		if seen[s] {
			return nil, because("Duplicate items in the list: '%s'", s)
		}
		seen[s] = true
	}
	return list, nil
}

// subnetsFor are the subnets of a network that a port of this owner gets
// addresses of.
func (st *state) subnetsFor(networkID, owner string) []*subnet {
	return slices.DeleteFunc(st.subnetsOf(networkID), func(s *subnet) bool { return len(s.Types) > 0 && !slices.Contains(s.Types, owner) })
}
