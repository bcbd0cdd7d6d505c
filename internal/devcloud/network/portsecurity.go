package network

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// mostPairs is how many address pairs a port can have (max_allowed_address_pair).
const mostPairs = 10

// addressPair lets a guest send from an address that is not its own.
type addressPair struct {
	MAC string
	// IP is an address or a network, as it was sent.
	IP string
}

// prefix is IP as a network.
func (a addressPair) prefix() (netip.Prefix, bool) {
	if strings.Contains(a.IP, "/") {
		p, err := netip.ParsePrefix(a.IP)
		return p.Masked(), err == nil
	}
	ip, err := netip.ParseAddr(a.IP)
	if err != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(ip, ip.BitLen()), true
}

// addressPairs checks the form of allowed address pairs
// (neutron_lib/api/definitions/allowedaddresspairs.py).
func addressPairs(v any) (any, error) {
	if v == nil {
		return []any{}, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, because("Allowed address pairs must be a list.")
	}
	if len(list) > mostPairs {
		return nil, fault(http.StatusBadRequest, "AllowedAddressPairExhausted",
			"The number of allowed address pair exceeds the maximum %d.", mostPairs)
	}
	seen := map[string]bool{}
	for _, e := range list {
		m, ok := e.(map[string]any)
		if !ok {
			return nil, because("'%s' is not a dictionary", py(e))
		}
		ip, has := m["ip_address"]
		if !has {
			return nil, fault(http.StatusBadRequest, "AllowedAddressPairsMissingIP", "AllowedAddressPair must contain ip_address")
		}
		for k := range m {
			if k != "ip_address" && k != "mac_address" {
				return nil, bad("Unrecognized attribute(s) '%s'", k)
			}
		}
		if mac := m["mac_address"]; mac != nil {
			checked, err := macOf(mac)
			if err != nil {
				return nil, bad("%s", err)
			}
			m["mac_address"] = checked
		}
		key := py(m["mac_address"]) + " ip_address " + py(ip)
		if seen[key] {
			return nil, fault(http.StatusBadRequest, "DuplicateAddressPairInRequest",
				"Request contains duplicate address pair: mac_address %s.", key)
		}
		seen[key] = true
		s, _ := ip.(string)
		if _, ok := (addressPair{IP: s}).prefix(); !ok {
			if strings.Contains(s, "/") {
				return nil, bad("'%s' is not a valid IP subnet", py(ip))
			}
			return nil, bad("'%s' is not a valid IP address", py(ip))
		}
	}
	return list, nil
}

// secure settles port security, security groups and address pairs of a port
// whose addresses are settled.
//
// Source: neutron/plugins/ml2/plugin.py, _check_security_groups_on_port_create;
// neutron/db/portsecurity_db.py; neutron/db/allowedaddresspairs_db.py.
func (st *state) secure(c *rest.Caller, p *port, v values, create bool) error {
	trusted := strings.HasPrefix(p.Owner, ownersNetwork) // ports of services are not filtered
	if create && trusted {
		p.Secure = false
	}
	v.setFlag("port_security_enabled", &p.Secure)
	if err := p.setPairs(v); err != nil {
		return err
	}
	switch {
	case v.has("security_groups"):
		ids := v.strs("security_groups")
		if len(ids) > 0 && (!p.Secure || len(p.IPs) == 0) {
			return noFilter()
		}
		groups, err := st.groupsFor(c, p, ids)
		if err != nil {
			return err
		}
		p.Groups = groups
	case create && p.Secure && len(p.IPs) > 0 && !trusted:
		p.Groups = []string{st.ensureDefaultGroup(p.Project).ID}
	case !p.Secure && len(p.Groups) > 0 && v.has("port_security_enabled"):
		return conflict("PortSecurityPortHasSecurityGroup", "Port has security group associated. "+
			"Cannot disable port security or IP address until security group is removed.")
	}
	return nil
}

func noFilter() error {
	return fault(http.StatusBadRequest, "PortSecurityAndIPRequiredForSecurityGroups",
		"Port security must be enabled and port must have an IP address in order to use security groups.")
}

func (p *port) setPairs(v values) error {
	if v.has("allowed_address_pairs") {
		p.Pairs = nil
		for _, m := range v.maps("allowed_address_pairs") {
			a := addressPair{MAC: m.str("mac_address"), IP: m.str("ip_address")}
			if a.MAC == "" {
				a.MAC = p.MAC
			}
			p.Pairs = append(p.Pairs, a)
		}
	}
	if !p.Secure && len(p.Pairs) > 0 {
		return conflict("AddressPairAndPortSecurityRequired",
			"Port Security must be enabled in order to have allowed address pairs on a port.")
	}
	return nil
}

// groupsFor are groups that a port may have: its project's, or what an
// administrator says.
func (st *state) groupsFor(c *rest.Caller, p *port, ids []string) ([]string, error) {
	for _, id := range ids {
		g, ok := st.groups.get(id)
		if !ok || !c.Admin() && g.Project != p.Project && !g.reaches(p.Project) {
			return nil, groupResource.missing(id)
		}
	}
	return slices.Clone(ids), nil
}
