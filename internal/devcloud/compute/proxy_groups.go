package compute

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// neutronGroup and neutronRule are what is read of the network service's.
type neutronGroup struct {
	ID          string        `json:"id"`
	Name        string        `json:"name"`
	Description string        `json:"description"`
	Project     string        `json:"project_id"`
	Rules       []neutronRule `json:"security_group_rules"`
}

type neutronRule struct {
	ID          string  `json:"id"`
	Group       string  `json:"security_group_id"`
	Direction   string  `json:"direction"`
	Protocol    *string `json:"protocol"`
	First       *int    `json:"port_range_min"`
	Last        *int    `json:"port_range_max"`
	Prefix      *string `json:"remote_ip_prefix"`
	RemoteGroup *string `json:"remote_group_id"`
	Ethertype   string  `json:"ethertype"`
}

func (s *Service) groupProxyRoutes() {
	s.proxy("GET /v2.1/os-security-groups", s.proxyGroups)
	s.proxy("POST /v2.1/os-security-groups", s.proxyGroupCreate)
	s.proxy("GET /v2.1/os-security-groups/{group}", s.proxyGroup)
	s.proxy("PUT /v2.1/os-security-groups/{group}", s.proxyGroupUpdate)
	s.proxy("DELETE /v2.1/os-security-groups/{group}", s.proxyGroupDelete)
	s.proxy("POST /v2.1/os-security-group-rules", s.proxyRuleCreate)
	s.proxy("DELETE /v2.1/os-security-group-rules/{rule}", s.proxyRuleDelete)
}

func (s *Service) neutronGroups(ctx context.Context, r *rest.Request, q url.Values) ([]neutronGroup, error) {
	var out struct {
		Groups []neutronGroup `json:"security_groups"`
	}
	err := s.o.Networks.Ask(ctx, r.Caller, http.MethodGet, "/security-groups?"+q.Encode(), nil, &out)
	return out.Groups, passed(err)
}

// neutronGroup finds a group by its id.
func (s *Service) neutronGroup(ctx context.Context, r *rest.Request, id string) (neutronGroup, error) {
	var out struct {
		Group neutronGroup `json:"security_group"`
	}
	if _, err := uuid.Parse(id); err != nil {
		return out.Group, badRequest("Security group id should be uuid")
	}
	err := s.o.Networks.Ask(ctx, r.Caller, http.MethodGet, "/security-groups/"+id, nil, &out)
	return out.Group, passed(err)
}

// groupView shows a group with its rules for traffic to servers. names are of
// other groups, by id.
func groupProxyView(g neutronGroup, names map[string]neutronGroup) map[string]any {
	rules := []any{}
	for _, one := range g.Rules {
		if one.Direction != "ingress" {
			continue
		}
		if v := ruleProxyView(one, names); v != nil {
			rules = append(rules, v)
		}
	}
	return map[string]any{"id": g.ID, "name": g.Name, "description": g.Description, "tenant_id": g.Project, "rules": rules}
}

// ruleProxyView is nil for a rule of a group that is not there.
func ruleProxyView(one neutronRule, names map[string]neutronGroup) map[string]any {
	v := map[string]any{
		"id": one.ID, "parent_group_id": one.Group, "ip_protocol": one.Protocol, "from_port": one.First, "to_port": one.Last,
		"group": map[string]any{}, "ip_range": map[string]any{},
	}
	icmp := one.Protocol != nil && (*one.Protocol == "icmp" || *one.Protocol == "ICMP")
	if icmp || one.Protocol == nil {
		for key, n := range map[string]*int{"from_port": one.First, "to_port": one.Last} {
			if n == nil && icmp {
				v[key] = -1
			}
		}
	}
	switch {
	case one.RemoteGroup != nil:
		g, ok := names[*one.RemoteGroup]
		if !ok {
			return nil
		}
		v["group"] = map[string]any{"name": g.Name, "tenant_id": g.Project}
	case one.Prefix != nil:
		v["ip_range"] = map[string]any{"cidr": *one.Prefix}
	case one.Ethertype == "IPv6":
		v["ip_range"] = map[string]any{"cidr": "::/0"}
	default:
		v["ip_range"] = map[string]any{"cidr": "0.0.0.0/0"}
	}
	return v
}

// named are groups by id, with those that rules of them name.
func (s *Service) named(ctx context.Context, r *rest.Request, all []neutronGroup) (map[string]neutronGroup, error) {
	names := map[string]neutronGroup{}
	for _, g := range all {
		names[g.ID] = g
	}
	missing := url.Values{}
	for _, g := range all {
		for _, one := range g.Rules {
			if one.RemoteGroup == nil {
				continue
			}
			if _, known := names[*one.RemoteGroup]; !known {
				missing.Add("id", *one.RemoteGroup)
			}
		}
	}
	if len(missing) == 0 {
		return names, nil
	}
	more, err := s.neutronGroups(ctx, r, missing)
	for _, g := range more {
		names[g.ID] = g
	}
	return names, err
}

func (s *Service) groupAnswer(ctx context.Context, r *rest.Request, g neutronGroup) (*rest.Response, error) {
	names, err := s.named(ctx, r, []neutronGroup{g})
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"security_group": groupProxyView(g, names)})
}

func (s *Service) proxyGroups(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	q := url.Values{}
	if all := r.Params()["all_tenants"]; len(all) == 0 || !r.Caller.Admin() {
		q.Set("tenant_id", r.Caller.ProjectID)
	}
	groups, err := s.neutronGroups(ctx, r, q)
	if err != nil {
		return nil, err
	}
	names, err := s.named(ctx, r, groups)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(groups, func(a, b neutronGroup) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
	})
	views := []any{}
	for _, g := range limited(r, groups) {
		views = append(views, groupProxyView(g, names))
	}
	return rest.OK(map[string]any{"security_groups": views})
}

// limited cuts a list by limit and offset (nova/api/openstack/common.py).
func limited[T any](r *rest.Request, all []T) []T {
	if n, err := strconv.Atoi(r.Params().Get("offset")); err == nil && n >= 0 {
		all = all[min(n, len(all)):]
	}
	if n, err := strconv.Atoi(r.Params().Get("limit")); err == nil && n >= 0 {
		all = all[:min(n, len(all))]
	}
	return all
}

func (s *Service) proxyGroup(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	g, err := s.neutronGroup(ctx, r, r.PathValue("group"))
	if err != nil {
		return nil, err
	}
	return s.groupAnswer(ctx, r, g)
}

// groupWords reads name and description, which both are needed.
func groupWords(r *rest.Request) (map[string]any, error) {
	in, err := bodyOf(r, "security_group")
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	for _, name := range []string{"name", "description"} {
		s, ok := in[name].(string)
		if !ok {
			return nil, badRequest("%s is not a string or unicode", name)
		}
		if len(s) > 255 {
			return nil, badRequest("%s should not be greater than 255 characters.", name)
		}
		out[name] = s
	}
	return map[string]any{"security_group": out}, nil
}

func (s *Service) proxyGroupCreate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := member(r, "os-security-groups:create"); err != nil {
		return nil, err
	}
	in, err := groupWords(r)
	if err != nil {
		return nil, err
	}
	var out struct {
		Group neutronGroup `json:"security_group"`
	}
	if err := s.o.Networks.Ask(ctx, r.Caller, http.MethodPost, "/security-groups", in, &out); err != nil {
		return nil, passed(err)
	}
	return s.groupAnswer(ctx, r, out.Group)
}

func (s *Service) proxyGroupUpdate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := member(r, "os-security-groups:update"); err != nil {
		return nil, err
	}
	g, err := s.neutronGroup(ctx, r, r.PathValue("group"))
	if err != nil {
		return nil, err
	}
	in, err := groupWords(r)
	if err != nil {
		return nil, err
	}
	var out struct {
		Group neutronGroup `json:"security_group"`
	}
	if err := s.o.Networks.Ask(ctx, r.Caller, http.MethodPut, "/security-groups/"+g.ID, in, &out); err != nil {
		return nil, passed(err)
	}
	return s.groupAnswer(ctx, r, out.Group)
}

func (s *Service) proxyGroupDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := member(r, "os-security-groups:delete"); err != nil {
		return nil, err
	}
	g, err := s.neutronGroup(ctx, r, r.PathValue("group"))
	if err != nil {
		return nil, err
	}
	if err := s.o.Networks.Ask(ctx, r.Caller, http.MethodDelete, "/security-groups/"+g.ID, nil, nil); err != nil {
		return nil, passed(err)
	}
	return empty(http.StatusAccepted)
}

func (s *Service) proxyRuleCreate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := member(r, "os-security-groups:rule:create"); err != nil {
		return nil, err
	}
	in, err := bodyOf(r, "security_group_rule")
	if err != nil {
		return nil, err
	}
	g, err := s.neutronGroup(ctx, r, fmt.Sprint(in["parent_group_id"]))
	if err != nil {
		return nil, err
	}
	names := map[string]neutronGroup{g.ID: g}
	rule := map[string]any{"security_group_id": g.ID, "direction": "ingress"}
	if id := in["group_id"]; id != nil {
		source, err := s.neutronGroup(ctx, r, fmt.Sprint(id))
		if err != nil {
			return nil, err
		}
		names[source.ID], rule["remote_group_id"] = source, source.ID
	}
	if err := ruleValues(in, rule); err != nil {
		return nil, err
	}
	var out struct {
		Rule neutronRule `json:"security_group_rule"`
	}
	err = s.o.Networks.Ask(ctx, r.Caller, http.MethodPost, "/security-group-rules", map[string]any{"security_group_rule": rule}, &out)
	if err != nil {
		if e := passed(err); strings.Contains(e.Error(), "already exists") {
			return nil, badRequest("This rule already exists in group %s", g.ID)
		}
		return nil, passed(err)
	}
	return rest.OK(map[string]any{"security_group_rule": ruleProxyView(out.Rule, names)})
}

// ruleValues checks protocol, ports and network in Nova's words and writes them
// in Neutron's (nova/network/security_group_api.py, new_cidr_ingress_rule).
func ruleValues(in, rule map[string]any) error {
	if _, group := rule["remote_group_id"]; !group {
		cidr := "0.0.0.0/0"
		if in["cidr"] != nil {
			p, err := netip.ParsePrefix(fmt.Sprint(in["cidr"]))
			if a, bare := netip.ParseAddr(fmt.Sprint(in["cidr"])); bare == nil {
				p, err = netip.PrefixFrom(a, a.BitLen()), nil
			}
			if err != nil {
				return badRequest("%s is not a valid IP network.", in["cidr"])
			}
			if p.Bits() == 0 && !p.Addr().IsUnspecified() {
				return badRequest("Bad prefix for network in cidr %s", in["cidr"])
			}
			cidr = p.String()
		}
		rule["remote_ip_prefix"] = cidr
		if strings.Contains(cidr, ":") {
			rule["ethertype"] = "IPv6"
		}
	}
	protocol, given := in["ip_protocol"].(string)
	first, firstErr := strconv.Atoi(fmt.Sprint(in["from_port"]))
	last, lastErr := strconv.Atoi(fmt.Sprint(in["to_port"]))
	protocol = strings.ToLower(protocol)
	switch {
	case !given || in["from_port"] == nil || in["to_port"] == nil:
		if _, group := rule["remote_group_id"]; group && !given && in["from_port"] == nil && in["to_port"] == nil {
			return nil // all of that group
		}
		return badRequest("Not enough parameters to build a valid rule.")
	case protocol != "tcp" && protocol != "udp" && protocol != "icmp":
		return badRequest("Invalid IP protocol %s.", protocol)
	case firstErr != nil || lastErr != nil:
		return badRequest("Invalid input received: To and From ports must be integers")
	case protocol == "icmp" && (first < -1 || first > 255 || last < -1 || last > 255):
		return badRequest("Invalid port range %d:%d. For ICMP, the type:code must be valid", first, last)
	case protocol != "icmp" && first > last:
		return badRequest("Invalid port range %d:%d. Former value cannot be greater than the later", first, last)
	case protocol != "icmp" && (first < 1 || last > 65535):
		return badRequest("Invalid port range %d:%d. Valid TCP ports should be between 1-65535", first, last)
	}
	rule["protocol"] = protocol
	for key, n := range map[string]int{"port_range_min": first, "port_range_max": last} {
		if n >= 0 {
			rule[key] = n
		}
	}
	return nil
}

func (s *Service) proxyRuleDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := member(r, "os-security-groups:rule:delete"); err != nil {
		return nil, err
	}
	id := r.PathValue("rule")
	if _, err := uuid.Parse(id); err != nil {
		return nil, badRequest("Security group id should be uuid")
	}
	if err := s.o.Networks.Ask(ctx, r.Caller, http.MethodDelete, "/security-group-rules/"+id, nil, nil); err != nil {
		return nil, passed(err)
	}
	return empty(http.StatusAccepted)
}
