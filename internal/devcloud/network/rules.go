package network

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Values of rules.
const (
	ipv4    = "IPv4"
	ipv6    = "IPv6"
	ingress = "ingress"
	egress  = "egress"
)

// protocols are the names that rules know, and their numbers
// (neutron_lib/constants.py, IP_PROTOCOL_MAP; "ip" is 0 with a name of its own).
var protocols = map[string]int{
	"ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0, "icmp": 1, "igmp": 2, "ip": 0, "ipip": 4,
	"ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "icmpv6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "ipv6-route": 43,
	"ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136, "vrrp": 112,
}

// protocolNames is the list that a refusal names, in Neutron's order.
const protocolNames = "None, 'ah', 'dccp', 'egp', 'esp', 'gre', 'hopopt', 'icmp', 'igmp', 'ip', 'ipip', 'ipv6-encap', 'ipv6-frag', " +
	"'ipv6-icmp', 'icmpv6', 'ipv6-nonxt', 'ipv6-opts', 'ipv6-route', 'ospf', 'pgm', 'rsvp', 'sctp', 'tcp', 'udp', 'udplite', 'vrrp'"

// withPorts are the protocols that have ports; icmps those with types.
var (
	withPorts = []int{6, 17, 33, 132, 136}
	icmps     = []int{1, 58}
)

var ruleResource = resource{
	name: "security_group_rule", plural: "security_group_rules", path: "security-group-rules", bulk: true,
	missing: func(id string) error {
		return notFound("SecurityGroupRuleNotFound", "Security group rule %s does not exist", id)
	},
	attrs: standard(
		attr{name: "security_group_id", post: true, must: true, check: text(36), filter: true, sort: true},
		attr{name: "remote_group_id", post: true, check: orNull(text(36)), filter: true, sort: true},
		attr{name: "direction", post: true, must: true, check: oneOf(ingress, egress), filter: true, sort: true},
		attr{name: "protocol", post: true, check: protocolOf, filter: true, sort: true},
		attr{name: "port_range_min", post: true, check: portValue, filter: true, sort: true},
		attr{name: "port_range_max", post: true, check: portValue, filter: true, sort: true},
		attr{name: "ethertype", post: true, def: ipv4, check: ethertypeOf, filter: true, sort: true},
		attr{name: "remote_ip_prefix", post: true, check: remotePrefix, filter: true, sort: true},
		attr{name: "remote_address_group_id", post: true, check: orNull(uuidOf), filter: true, sort: true},
		attr{name: "normalized_cidr"},
	),
}

func protocolOf(v any) (any, error) {
	s := strings.ToLower(py(v))
	if v == nil || s == "" {
		return nil, nil //nolint:nilnil // null is a value: any protocol
	}
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 255 {
		return s, nil
	}
	if _, ok := protocols[s]; ok && v != nil {
		return s, nil
	}
	return nil, fault(http.StatusBadRequest, "SecurityGroupRuleInvalidProtocol", "Security group rule protocol %s not supported. "+
		"Only protocol values [%s] and integer representations [0 to 255] are supported.", py(v), protocolNames)
}

func portValue(v any) (any, error) {
	s := py(v)
	if _, isNumber := v.(json.Number); v == nil || s == "" && !isNumber {
		return nil, nil //nolint:nilnil // null is a value: any port
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 65535 {
		return nil, fault(http.StatusBadRequest, "SecurityGroupInvalidPortValue", "Invalid value for port %s", s)
	}
	return n, nil
}

func ethertypeOf(v any) (any, error) {
	for _, known := range []string{ipv4, ipv6} {
		if strings.EqualFold(py(v), known) {
			return known, nil
		}
	}
	return nil, fault(http.StatusBadRequest, "SecurityGroupRuleInvalidEtherType",
		"Security group rule for ethertype '%s' not supported. Allowed values are ['IPv4', 'IPv6'].", py(v))
}

// remotePrefix accepts an address or a network; host bits stay as they are.
func remotePrefix(v any) (any, error) {
	if v == nil || v == "" {
		return nil, nil //nolint:nilnil // null is a value: from everywhere
	}
	s, _ := v.(string)
	if a, ok := parseIP(s); ok {
		return netip.PrefixFrom(a, a.BitLen()).String(), nil
	}
	if _, err := netip.ParsePrefix(s); err != nil {
		return nil, fault(http.StatusBadRequest, "InvalidCIDR", "Invalid CIDR %s given as IP prefix.", py(v))
	}
	return s, nil
}

type rule struct {
	base

	Group       string
	Direction   string
	Ethertype   string
	Protocol    string `json:",omitempty"` // "" is any
	Min         *int   `json:",omitempty"`
	Max         *int   `json:",omitempty"`
	Remote      string `json:",omitempty"` // network, "" is any
	RemoteGroup string `json:",omitempty"`
	// RemoteAddresses is an address group.
	RemoteAddresses string `json:",omitempty"`
}

func (s *Service) ruleRoutes() {
	s.route(&ruleResource, verbs{list: s.listRules, show: s.showRule, create: s.createRules, remove: s.deleteRule})
}

func (st *state) rule(c *rest.Caller, id string) (*rule, error) {
	one, ok := st.rules.get(id)
	if !ok || !st.seesRule(c, one) {
		return nil, ruleResource.missing(id)
	}
	return one, nil
}

func (st *state) seesRule(c *rest.Caller, one *rule) bool {
	g, ok := st.groups.get(one.Group)
	return c.Owns(one.Project) || ok && g.sees(c)
}

func (r *rule) view() map[string]any {
	v := map[string]any{
		"security_group_id": r.Group, "direction": r.Direction, "ethertype": r.Ethertype, "protocol": orNil(r.Protocol),
		"port_range_min": nil, "port_range_max": nil, "remote_ip_prefix": orNil(r.Remote), "remote_group_id": orNil(r.RemoteGroup),
		"remote_address_group_id": orNil(r.RemoteAddresses), "normalized_cidr": nil,
	}
	if r.Min != nil {
		v["port_range_min"] = *r.Min
	}
	if r.Max != nil {
		v["port_range_max"] = *r.Max
	}
	if p, ok := r.remote(); ok {
		v["normalized_cidr"] = p.String()
	}
	return r.standardView(v)
}

// remote is the network of the other side.
func (r *rule) remote() (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(r.Remote)
	return p.Masked(), err == nil
}

// number is the protocol as a number; 0 is any. That of ICMP is IPv6's own there.
func (r *rule) number() int {
	n, err := strconv.Atoi(r.Protocol)
	if err != nil {
		n = protocols[r.Protocol]
	}
	if n == 1 && r.Ethertype == ipv6 {
		return 58
	}
	return n
}

// addRule adds a rule that is whole.
func (st *state) addRule(r *rule, project string) {
	r.ID, r.Project = uuid.NewString(), project
	st.made(&r.base)
	st.rules.put(r)
}

func (s *Service) listRules(ctx context.Context, r *rest.Request) (res *rest.Response, err error) {
	if err := s.withDefault(ctx, r.Caller.ProjectID); err != nil {
		return nil, err
	}
	err = s.store.read(func(st *state) error {
		all := st.rules.where(func(one *rule) bool { return st.seesRule(r.Caller, one) })
		res, err = list(r, &ruleResource, all, (*rule).view)
		return err
	})
	return res, err
}

func (s *Service) showRule(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		one, err := st.rule(r.Caller, r.PathValue("id"))
		if err != nil {
			return err
		}
		res, err = show(r, &ruleResource, one.view())
		return err
	})
	return res, err
}

func (s *Service) createRules(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, bulk, err := ruleResource.parse(r)
	if err != nil {
		return nil, err
	}
	for _, v := range all[1:] {
		if v.str("security_group_id") != all[0].str("security_group_id") {
			return nil, fault(http.StatusBadRequest, "SecurityGroupNotSingleGroupRules",
				"Only allowed to update rules for one security profile at a time")
		}
	}
	var views []map[string]any
	var made []*rule
	err = s.write(ctx, func(st *state) error {
		for _, v := range all {
			one, err := st.createRule(r.Caller, v, made)
			if err != nil {
				return err
			}
			made = append(made, one)
			view := one.view()
			delete(view, "tags") // as the real service answers
			views = append(views, view)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return created(r, &ruleResource, bulk, views)
}

func (st *state) createRule(c *rest.Caller, v values, before []*rule) (*rule, error) {
	one := &rule{
		Group: v.str("security_group_id"), Direction: v.str("direction"), Ethertype: v.str("ethertype"),
		Protocol: v.str("protocol"), Remote: v.str("remote_ip_prefix"), RemoteGroup: v.str("remote_group_id"),
		RemoteAddresses: v.str("remote_address_group_id"),
	}
	if one.Ethertype == ipv6 && one.number() == 58 && one.Protocol == "icmpv6" {
		one.Protocol = "ipv6-icmp"
	}
	d := v.str("description")
	one.Description = &d
	if n, ok := v["port_range_min"].(int); ok {
		one.Min = &n
	}
	if n, ok := v["port_range_max"].(int); ok {
		one.Max = &n
	}
	g, err := st.group(c, one.Group)
	if err != nil {
		return nil, err
	}
	if err := ruleResource.mayWrite(c, "create", v, ""); err != nil {
		return nil, err
	}
	if err := one.check(); err != nil {
		return nil, err
	}
	if one.RemoteGroup != "" {
		if _, err := st.group(c, one.RemoteGroup); err != nil {
			return nil, err
		}
	}
	if one.RemoteAddresses != "" {
		if _, err := addressGroups.find(st, c, one.RemoteAddresses); err != nil {
			return nil, err
		}
	}
	for _, other := range st.rulesOf(g.ID) {
		if !one.equals(other) {
			continue
		}
		if slices.Contains(before, other) {
			return nil, conflict("DuplicateSecurityGroupRuleInPost", "Duplicate Security Group Rule in POST.")
		}
		return nil, conflict("SecurityGroupRuleExists", "Security group rule already exists. Rule id is %s.", other.ID)
	}
	project, err := owner(c, v)
	if err != nil {
		return nil, err
	}
	if err := st.room(project, "security_group_rule", st.countOf(project, "security_group_rule")+1); err != nil {
		return nil, err
	}
	st.addRule(one, project)
	changed := *g
	st.bumped(&changed.base)
	st.groups.put(&changed)
	return one, nil
}

// equals compares what a rule does.
func (r *rule) equals(other *rule) bool {
	num := func(p *int) int {
		if p == nil {
			return -1
		}
		return *p
	}
	from := func(r *rule) string {
		if p, ok := r.remote(); ok && p.Bits() == 0 {
			return "" // everywhere
		}
		return r.Remote
	}
	any := func(r *rule) bool { return r.Protocol == "" }
	return r.Direction == other.Direction && r.Ethertype == other.Ethertype && any(r) == any(other) && r.number() == other.number() &&
		num(r.Min) == num(other.Min) && num(r.Max) == num(other.Max) && from(r) == from(other) && r.RemoteGroup == other.RemoteGroup &&
		r.RemoteAddresses == other.RemoteAddresses
}

// check refuses combinations that mean nothing
// (neutron/db/securitygroups_db.py, _validate_security_group_rule).
func (r *rule) check() error {
	if many := (r.Remote != "") && (r.RemoteGroup != "" || r.RemoteAddresses != ""); many || r.RemoteGroup != "" && r.RemoteAddresses != "" {
		return fault(http.StatusBadRequest, "SecurityGroupMultipleRemoteEntites",
			"Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.")
	}
	if err := r.checkPorts(); err != nil {
		return err
	}
	if p, ok := r.remote(); ok && p.Addr().Is6() != (r.Ethertype == ipv6) {
		return fault(http.StatusBadRequest, "SecurityGroupRuleParameterConflict",
			"Conflicting value ethertype %s for CIDR %s", r.Ethertype, r.Remote)
	}
	n := r.number()
	if r.Protocol != "" && r.Ethertype == ipv4 && slices.Contains([]int{41, 43, 44, 58, 59, 60}, n) {
		return fault(http.StatusBadRequest, "SecurityGroupEthertypeConflictWithProtocol",
			"Invalid ethertype %s for protocol %s.", r.Ethertype, r.Protocol)
	}
	return nil
}

func (r *rule) checkPorts() error {
	n := r.number()
	switch {
	case r.Protocol == "" && (r.Min != nil || r.Max != nil):
		return fault(http.StatusBadRequest, "SecurityGroupProtocolRequiredWithPorts", "Must also specify protocol if port range is given.")
	case r.Min == nil && r.Max == nil:
		return nil
	case slices.Contains(icmps, n):
		return r.checkICMP()
	case !slices.Contains(withPorts, n):
		return fault(http.StatusBadRequest, "SecurityGroupInvalidProtocolForPort", "Ports cannot be specified for protocol %d. "+
			"Ports are only supported for DCCP, SCTP, TCP, UDP, UDPLITE.", n)
	case r.Min != nil && *r.Min == 0 || r.Max != nil && *r.Max == 0:
		return fault(http.StatusBadRequest, "SecurityGroupInvalidPortValue", "Invalid value for port 0")
	case r.Min == nil || r.Max == nil || *r.Min > *r.Max:
		return fault(http.StatusBadRequest, "SecurityGroupInvalidPortRange", "For TCP/UDP protocols, port_range_min must be <= port_range_max")
	}
	return nil
}

func (r *rule) checkICMP() error {
	for _, f := range []struct {
		field, attr string
		value       *int
	}{{"type", "port_range_min", r.Min}, {"code", "port_range_max", r.Max}} {
		if f.value != nil && *f.value > 255 {
			return fault(http.StatusBadRequest, "SecurityGroupInvalidIcmpValue",
				"Invalid value for ICMP %s (%s) %d. It must be 0 to 255.", f.field, f.attr, *f.value)
		}
	}
	if r.Min == nil {
		return fault(http.StatusBadRequest, "SecurityGroupMissingIcmpType",
			"ICMP code (port-range-max) %d is provided but ICMP type (port-range-min) is missing.", *r.Max)
	}
	return nil
}

func (s *Service) deleteRule(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := noBody(r); err != nil {
		return nil, err
	}
	err := s.write(ctx, func(st *state) error {
		one, err := st.rule(r.Caller, r.PathValue("id"))
		if err != nil {
			return err
		}
		if !r.Caller.Member() {
			return denied("rule:delete_security_group_rule")
		}
		st.rules.del(one.ID)
		if g, ok := st.groups.get(one.Group); ok {
			changed := *g
			st.bumped(&changed.base)
			st.groups.put(&changed)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.NoContent()
}
