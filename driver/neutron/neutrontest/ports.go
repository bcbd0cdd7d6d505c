package neutrontest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// list applies visibility and the filters of the query: each key must equal
// one of its values.
func (s *Server) list(c Call, collection string, q url.Values) []Resource {
	out := []Resource{}
	fields := q["fields"]
	for _, r := range s.tables[collection] {
		if !visible(c, collection, r) || !matches(r, q) {
			continue
		}
		v := view(c, r)
		if len(fields) > 0 {
			maps.DeleteFunc(v, func(k string, _ any) bool { return !slices.Contains(fields, k) })
		}
		out = append(out, v)
	}
	return out
}

func matches(r Resource, q url.Values) bool {
	for key, values := range q {
		if key == "fields" {
			continue
		}
		ok := slices.ContainsFunc(values, func(v string) bool {
			if b, is := r[key].(bool); is {
				return strings.EqualFold(v, fmt.Sprint(b))
			}
			return fmt.Sprint(r[key]) == v
		})
		if !ok {
			return false
		}
	}
	return true
}

func visible(c Call, collection string, r Resource) bool {
	if c.User == "" || collection == "extensions" || r["tenant_id"] == c.User {
		return true
	}
	return collection == "networks" && (r["shared"] == true || r["router:external"] == true)
}

// view is what the caller sees: provider and binding attributes are for
// administrators.
func view(c Call, r Resource) Resource {
	v := maps.Clone(r)
	delete(v, "auto")
	if c.User != "" {
		maps.DeleteFunc(v, func(k string, _ any) bool {
			return strings.HasPrefix(k, "provider:") || k == "segments" ||
				(strings.HasPrefix(k, "binding:") && k != "binding:vnic_type")
		})
	}
	return v
}

// createPort follows the policies create_port:binding:* and
// create_port:fixed_ips of Neutron's defaults.
func (s *Server) createPort(c Call) reply {
	b := c.Body
	netID, _ := b["network_id"].(string)
	net := s.find("networks", netID)
	if net == nil || !visible(c, "networks", net) {
		return failure(http.StatusNotFound, "NetworkNotFound", fmt.Sprintf("Network %s could not be found.", netID))
	}
	_, wantsHost := b["binding:host_id"]
	if c.User != "" && (wantsHost || (b["fixed_ips"] != nil && net["tenant_id"] != c.User)) {
		return failure(http.StatusForbidden, "PolicyNotAuthorized", "(rule:create_port) is disallowed by policy")
	}
	tenant, _ := b["tenant_id"].(string)
	if tenant == "" {
		tenant = c.User
	}
	count := 0
	for _, p := range s.tables["ports"] {
		if p["tenant_id"] == tenant && p["device_owner"] != "network:dhcp" {
			count++
		}
	}
	if s.quota >= 0 && count >= s.quota {
		return failure(http.StatusConflict, "OverQuota", "Quota exceeded for resources: ['port'].")
	}
	id := uuid.New()
	p := Resource{
		"id": id.String(), "name": "", "network_id": netID, "tenant_id": tenant, "project_id": tenant, "admin_state_up": true,
		"status": "DOWN", "device_id": "", "device_owner": "", "security_groups": []any{"default-of-" + tenant},
		"mac_address":       fmt.Sprintf("fa:16:3e:%02x:%02x:%02x", id[0], id[1], id[2]),
		"binding:vnic_type": "normal", "binding:profile": Resource{}, "binding:host_id": "", "binding:vif_type": "unbound",
		"binding:vif_details": Resource{}, "dns_name": "", "created_at": fmt.Sprintf("2026-01-01T00:00:%02dZ", len(s.tables["ports"])%60),
	}
	ips, bad := s.allocate(net, b["fixed_ips"])
	if bad != nil {
		return *bad
	}
	p["fixed_ips"] = ips
	s.change(p, b)
	s.tables["ports"] = append(s.tables["ports"], p)
	return reply{http.StatusCreated, Resource{"port": view(c, p)}}
}

func (s *Server) updatePort(c Call, p Resource) reply {
	for k := range c.Body {
		if c.User != "" && strings.HasPrefix(k, "binding:") {
			return failure(http.StatusForbidden, "PolicyNotAuthorized", "(rule:update_port) is disallowed by policy")
		}
	}
	if asked, ok := c.Body["fixed_ips"]; ok {
		before := p["fixed_ips"]
		p["fixed_ips"] = []any{}
		ips, bad := s.allocate(s.find("networks", fmt.Sprint(p["network_id"])), asked)
		if bad != nil {
			p["fixed_ips"] = before
			return *bad
		}
		p["fixed_ips"] = ips
	}
	s.change(p, c.Body)
	return reply{http.StatusOK, Resource{"port": view(c, p)}}
}

// change sets the attributes that were sent and binds the port.
func (s *Server) change(p, b Resource) {
	for k, v := range b {
		if k != "fixed_ips" {
			p[k] = v
		}
	}
	if _, ok := b["binding:host_id"]; !ok {
		return
	}
	host, _ := b["binding:host_id"].(string)
	p["binding:host_id"] = host
	p["binding:vif_details"] = Resource{}
	switch vif := s.hosts[host]; {
	case host == "":
		p["binding:vif_type"] = "unbound"
	case vif == "" || p["binding:vnic_type"] != "normal":
		p["binding:vif_type"] = "binding_failed"
	default:
		p["binding:vif_type"] = vif
		p["binding:vif_details"] = Resource{"connectivity": "l2", "port_filter": true}
	}
}

// allocate picks addresses: those asked for, else one of each subnet.
func (s *Server) allocate(net Resource, asked any) ([]any, *reply) {
	taken := map[string]bool{}
	for _, p := range s.tables["ports"] {
		raw, _ := json.Marshal(p["fixed_ips"])
		var ips []struct {
			Address string `json:"ip_address"`
		}
		_ = json.Unmarshal(raw, &ips)
		for _, ip := range ips {
			if p["network_id"] == net["id"] {
				taken[ip.Address] = true
			}
		}
	}
	out := []any{}
	subnets := net["subnets"].([]string)
	if list, ok := asked.([]any); ok {
		for _, e := range list {
			want, _ := e.(map[string]any)["ip_address"].(string)
			if id, _ := e.(map[string]any)["subnet_id"].(string); want == "" && id != "" {
				ip, bad := s.pick(id, taken)
				if bad != nil {
					return nil, bad
				}
				out = append(out, ip)
				continue
			}
			id, bad := s.subnetOf(subnets, want)
			if bad != nil {
				return nil, bad
			}
			if taken[want] {
				r := failure(http.StatusConflict, "IpAddressInUse", "Unable to complete operation for network. The IP address "+want+" is in use.")
				return nil, &r
			}
			taken[want] = true
			out = append(out, Resource{"subnet_id": id, "ip_address": want})
		}
		return out, nil
	}
	for _, id := range subnets {
		ip, bad := s.pick(id, taken)
		if bad != nil {
			return nil, bad
		}
		out = append(out, ip)
	}
	return out, nil
}

// pick takes a free address of a subnet.
func (s *Server) pick(id string, taken map[string]bool) (Resource, *reply) {
	sub := s.find("subnets", id)
	prefix := netip.MustParsePrefix(sub["cidr"].(string))
	a := prefix.Addr().Next().Next().Next()
	for taken[a.String()] {
		a = a.Next()
	}
	if last := a.Next(); !prefix.Contains(a) || (a.Is4() && !prefix.Contains(last)) {
		r := failure(http.StatusConflict, "IpAddressGenerationFailure", "No more IP addresses available on network.")
		return nil, &r
	}
	taken[a.String()] = true
	return Resource{"subnet_id": id, "ip_address": a.String()}, nil
}

func (s *Server) subnetOf(subnets []string, address string) (string, *reply) {
	a, err := netip.ParseAddr(address)
	for _, id := range subnets {
		if sub := s.find("subnets", id); err == nil && netip.MustParsePrefix(sub["cidr"].(string)).Contains(a) {
			return id, nil
		}
	}
	r := failure(http.StatusBadRequest, "InvalidIpForNetwork", "IP address "+address+" is not a valid IP for any of the subnets on the specified network.")
	return "", &r
}
