// Package neutrontest is a Neutron in memory for tests: the parts of the
// Networking API v2.0 that a compute service uses, with projects, policies,
// quotas, addresses and port binding that behave as Neutron's, and switches
// for failures.
//
// Who asks is told by the token: UserToken(project) is a member of a project,
// any other token, or none, is an administrator.
package neutrontest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
)

const userPrefix = "user-of-"

// UserToken returns a token of a member of project.
func UserToken(project string) string { return userPrefix + project }

// Resource is one resource as the API shows it.
type Resource map[string]any

// Call is one request that the server has seen.
type Call struct {
	Method, Path string
	// Query as sent, still encoded.
	Query string
	// User is the project of a user's token, "" for an administrator.
	User string
	// Body is the resource that was sent, if any.
	Body Resource
}

// Server is an http.Handler. Make it with New; safe for concurrent use.
type Server struct {
	mu sync.Mutex // guards all below

	tables map[string][]Resource // by collection name
	// hosts maps the name of a host to the VIF type that its agent binds;
	// a host that is not here has no agent.
	hosts map[string]string
	quota int
	calls []Call
	fail  func(Call) (status int, kind, message string)
	after func(Call)
}

// New returns a server with the extensions of a plain ML2 installation and no
// networks. Ports bound to a host that AddHost has not named fail to bind.
func New() *Server {
	s := &Server{tables: map[string][]Resource{}, hosts: map[string]string{}, quota: -1}
	s.SetExtensions("binding", "binding-extended", "external-net", "multi-provider", "port-security", "provider", "security-group")
	return s
}

// SetExtensions replaces the list of extensions.
func (s *Server) SetExtensions(aliases ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables["extensions"] = nil
	for _, a := range aliases {
		s.tables["extensions"] = append(s.tables["extensions"], Resource{"alias": a, "name": a})
	}
}

// AddHost gives a host a working agent that binds ports as vifType.
func (s *Server) AddHost(name, vifType string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts[name] = vifType
}

// SetPortQuota bounds the ports of each project; negative means no limit.
func (s *Server) SetPortQuota(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quota = n
}

// FailWith sets what is asked before each request: a status other than 0 is
// the answer, with Neutron's error type and message. nil turns it off.
func (s *Server) FailWith(f func(Call) (status int, kind, message string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// After sets what is called when a request has been carried out, before it is
// answered. It may block or panic with http.ErrAbortHandler, which cuts the
// connection.
func (s *Server) After(f func(Call)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = f
}

// Calls returns the requests so far and forgets them.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.calls
	s.calls = nil
	return out
}

// Add puts a resource into a collection ("networks", "ports",
// "security_groups", "floatingips") with an id if it has none, and returns the id.
func (s *Server) Add(collection string, r Resource) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r["id"] == nil {
		r["id"] = uuid.NewString()
	}
	s.tables[collection] = append(s.tables[collection], r)
	return r["id"].(string)
}

// AddNetwork makes a VXLAN network of a project; more overrides its fields.
func (s *Server) AddNetwork(project, name string, more Resource) string {
	r := Resource{
		"name": name, "tenant_id": project, "project_id": project, "admin_state_up": true, "status": "ACTIVE", "mtu": 1450,
		"shared": false, "router:external": false, "port_security_enabled": true, "subnets": []string{},
		"provider:network_type": "vxlan", "provider:physical_network": nil,
	}
	for k, v := range more {
		r[k] = v
	}
	return s.Add("networks", r)
}

// AddSubnet makes a subnet with DHCP whose first address is the gateway's and
// whose second is the DHCP server's; more overrides its fields.
func (s *Server) AddSubnet(network, cidr string, more Resource) string {
	gateway := netip.MustParsePrefix(cidr).Addr().Next()
	r := Resource{
		"network_id": network, "cidr": cidr, "ip_version": 4, "gateway_ip": gateway.String(), "enable_dhcp": true,
		"ipv6_address_mode": nil, "dns_nameservers": []string{}, "host_routes": []any{},
	}
	if gateway.Is6() {
		r["ip_version"] = 6
	}
	for k, v := range more {
		r[k] = v
	}
	s.mu.Lock()
	r["tenant_id"] = s.find("networks", network)["tenant_id"]
	s.mu.Unlock()
	id := s.Add("subnets", r)
	s.mu.Lock()
	n := s.find("networks", network)
	n["subnets"] = append(slices.Clone(n["subnets"].([]string)), id)
	s.mu.Unlock()
	s.Add("ports", Resource{
		"network_id": network, "tenant_id": n["tenant_id"], "device_owner": "network:dhcp", "device_id": "dhcp-" + network,
		"fixed_ips": []any{Resource{"subnet_id": id, "ip_address": gateway.Next().String()}},
	})
	return id
}

// Ports returns the ports of a device as an administrator sees them.
func (s *Server) Ports(device string) []Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Resource
	for _, p := range s.tables["ports"] {
		if p["device_id"] == device {
			out = append(out, p)
		}
	}
	return out
}

// Port returns one port, nil if there is none.
func (s *Server) Port(id string) Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find("ports", id)
}

func (s *Server) find(collection, id string) Resource {
	for _, r := range s.tables[collection] {
		if r["id"] == id {
			return r
		}
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := Call{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery}
	if token, ok := strings.CutPrefix(r.Header.Get("X-Auth-Token"), userPrefix); ok {
		call.User = token
	}
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		var body map[string]Resource
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body["port"] == nil {
			answer(w, failure(http.StatusBadRequest, "HTTPBadRequest", "malformed body"))
			return
		}
		call.Body = body["port"]
	}
	s.mu.Lock()
	s.calls = append(s.calls, call)
	fail, after := s.fail, s.after
	s.mu.Unlock()
	if fail != nil {
		if status, kind, message := fail(call); status != 0 {
			answer(w, failure(status, kind, message))
			return
		}
	}
	s.mu.Lock()
	rep := s.handle(call, r)
	raw, err := json.Marshal(rep.body)
	s.mu.Unlock()
	if err != nil {
		panic(err) // a test put in what is not JSON
	}
	if after != nil {
		after(call)
	}
	write(w, rep.status, raw)
}

type reply struct {
	status int
	body   any
}

func failure(status int, kind, message string) reply {
	return reply{status, map[string]any{"NeutronError": map[string]any{"type": kind, "message": message, "detail": ""}}}
}

func answer(w http.ResponseWriter, r reply) {
	raw, err := json.Marshal(r.body)
	if err != nil {
		panic(err)
	}
	write(w, r.status, raw)
}

func write(w http.ResponseWriter, status int, raw []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if status != http.StatusNoContent {
		_, _ = w.Write(raw)
	}
}

func (s *Server) handle(c Call, r *http.Request) reply {
	parts := strings.Split(strings.TrimPrefix(c.Path, "/v2.0/"), "/")
	collection := strings.ReplaceAll(parts[0], "-", "_")
	switch {
	case collection == "auto_allocated_topology" && len(parts) == 2 && c.Method == http.MethodGet:
		for _, n := range s.tables["networks"] {
			if n["auto"] == true && n["tenant_id"] == parts[1] {
				return reply{http.StatusOK, Resource{"auto_allocated_topology": Resource{"id": n["id"]}}}
			}
		}
		return failure(http.StatusConflict, "AutoAllocationFailure", "Deployment error: No default router:external network.")
	case c.Method == http.MethodGet && len(parts) == 1:
		return reply{http.StatusOK, map[string]any{collection: s.list(c, collection, r.URL.Query())}}
	case c.Method == http.MethodPost && collection == "ports":
		return s.createPort(c)
	case collection != "ports" || len(parts) != 2:
		return failure(http.StatusNotFound, "HTTPNotFound", "The resource could not be found.")
	}
	p := s.find("ports", parts[1])
	if p == nil || (c.User != "" && p["tenant_id"] != c.User) {
		return failure(http.StatusNotFound, "PortNotFound", fmt.Sprintf("Port %s could not be found.", parts[1]))
	}
	switch c.Method {
	case http.MethodGet:
		return reply{http.StatusOK, Resource{"port": view(c, p)}}
	case http.MethodPut:
		return s.updatePort(c, p)
	case http.MethodDelete:
		s.tables["ports"] = slices.DeleteFunc(s.tables["ports"], func(o Resource) bool { return o["id"] == parts[1] })
		return reply{http.StatusNoContent, nil}
	}
	return failure(http.StatusMethodNotAllowed, "HTTPMethodNotAllowed", "")
}
