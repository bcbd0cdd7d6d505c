package compute

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

func (s *Service) serverNetworkRoutes() {
	s.handle("GET /v2.1/servers/{id}/ips", s.ipList)
	s.handle("GET /v2.1/servers/{id}/ips/{label}", s.ipShow)
	s.handle("GET /v2.1/servers/{id}/os-interface", s.interfaceList)
	s.handle("POST /v2.1/servers/{id}/os-interface", s.interfaceAttach)
	s.handle("GET /v2.1/servers/{id}/os-interface/{port}", s.interfaceShow)
	s.handle("DELETE /v2.1/servers/{id}/os-interface/{port}", s.interfaceDetach)
	s.handle("GET /v2.1/servers/{id}/os-security-groups", s.serverSecurityGroups)
}

func (s *Service) ipList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"addresses": addresses(i, false)})
}

func (s *Service) ipShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	label := r.PathValue("label")
	list, ok := addresses(i, false)[label]
	if !ok {
		return nil, notFound("Instance is not a member of specified network")
	}
	return rest.OK(map[string]any{label: list})
}

// ports are those of a server.
func (s *Service) ports(ctx context.Context, r *rest.Request, i objects.Instance) ([]Port, error) {
	all, err := s.o.Networks.Ports(ctx, r.Caller, PortQuery{Servers: []string{i.UUID()}})
	if err != nil {
		return nil, fmt.Errorf("ports of %s: %w", i.UUID(), err)
	}
	return all, nil
}

// portTags are the device tags of a server's ports.
func (s *Service) portTags(ctx context.Context, r *rest.Request, i objects.Instance) (map[string]any, error) {
	out := map[string]any{}
	if !r.Version.AtLeast(2, 70) {
		return out, nil
	}
	all, err := s.o.Cell.Interfaces(ctx, i.UUID())
	for _, vif := range all {
		out[vif.String("uuid")] = vif.Get("tag")
	}
	return out, err
}

func portView(r *rest.Request, p Port, tags map[string]any) map[string]any {
	ips := make([]map[string]string, len(p.FixedIPs))
	for n, ip := range p.FixedIPs {
		ips[n] = map[string]string{"subnet_id": ip.SubnetID, "ip_address": ip.Address.String()}
	}
	v := map[string]any{"net_id": p.NetworkID, "port_id": p.ID, "mac_addr": p.MAC, "port_state": p.Status, "fixed_ips": ips}
	if r.Version.AtLeast(2, 70) {
		v["tag"] = tags[p.ID]
	}
	return v
}

func (s *Service) interfaceList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	ports, err := s.ports(ctx, r, i)
	if err != nil {
		return nil, err
	}
	tags, err := s.portTags(ctx, r, i)
	if err != nil {
		return nil, err
	}
	views := make([]any, len(ports))
	for n, p := range ports {
		views[n] = portView(r, p, tags)
	}
	return rest.OK(map[string]any{"interfaceAttachments": views})
}

func (s *Service) interfaceShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	p, err := s.portOf(ctx, r, i)
	if err != nil {
		return nil, err
	}
	tags, err := s.portTags(ctx, r, i)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"interfaceAttachment": portView(r, p, tags)})
}

// portOf is the port of the path if the server has it.
func (s *Service) portOf(ctx context.Context, r *rest.Request, i objects.Instance) (Port, error) {
	ports, err := s.ports(ctx, r, i)
	if err != nil {
		return Port{}, err
	}
	id := r.PathValue("port")
	n := slices.IndexFunc(ports, func(p Port) bool { return p.ID == id })
	if n < 0 {
		return Port{}, notFound("Port id %s could not be found.", id)
	}
	return ports[n], nil
}

func attachSchema(v rest.Version) schema.Schema {
	fields := []schema.Field{
		schema.Opt("net_id", schema.ID()...), schema.Opt("port_id", schema.ID()...),
		schema.Opt("fixed_ips", schema.Type("array"), schema.MinItems(1), schema.MaxItems(1),
			schema.Items(schema.Object(schema.Req("ip_address", schema.Address()...))...)),
	}
	if v.AtLeast(2, 49) {
		fields = append(fields, schema.Opt("tag", schema.Tag()...))
	}
	return schema.Object(schema.Req("interfaceAttachment", schema.Object(fields...)...))
}

// interfaceAttach asks the host to attach a port. A host that cannot answers so
// and the tenant reads it.
func (s *Service) interfaceAttach(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, attachSchema(r.Version))
	if err != nil {
		return nil, err
	}
	i, err := s.ownServer(ctx, r, "os-attach-interfaces:create")
	if err != nil {
		return nil, err
	}
	d = d.Dict("interfaceAttachment")
	network, port, ip := d.String("net_id"), d.String("port_id"), ""
	if list := d.List("fixed_ips"); len(list) > 0 {
		one, _ := list[0].(*schema.Dict) // the schema says so
		ip = one.String("ip_address")
	}
	switch {
	case network != "" && port != "":
		return nil, badRequest("Must not input both network_id and port_id")
	case ip != "" && network == "":
		return nil, badRequest("Must input network_id when request IP address")
	}
	if err := (verb{name: "attach_interface", vm: interfaceStates()}).admits(r, i); err != nil {
		return nil, err
	}
	if i.Host() == "" {
		return nil, conflict("Instance %s is not ready", i.UUID())
	}
	if err := s.record(ctx, r, i, "attach_interface"); err != nil {
		return nil, err
	}
	var vif objects.VIF
	err = s.call(ctx, r, i.Host(), "attach_interface", "6.0", map[string]any{
		"instance": i, "network_id": orNil(network), "port_id": orNil(port), "requested_ip": orNil(ip), "tag": anyOf(d.Optional("tag")),
	}, &vif)
	if err != nil {
		return nil, hostAnswer(err, "", attachRefusals()...)
	}
	all, err := s.o.Networks.Ports(ctx, r.Caller, PortQuery{IDs: []string{vif.ID}})
	if err != nil || len(all) == 0 {
		return nil, fmt.Errorf("attached port %s: %w", vif.ID, err)
	}
	return rest.OK(map[string]any{"interfaceAttachment": portView(r, all[0], map[string]any{vif.ID: anyOf(d.Optional("tag"))})})
}

// interfaceStates are those in which ports come and go.
func interfaceStates() []string { return []string{vmActive, vmPaused, vmStopped} }

// attachRefusals are the exceptions of a compute host that the tenant reads
// (nova/api/openstack/compute/attach_interfaces.py, create).
func attachRefusals() []refused {
	return []refused{
		{http.StatusBadRequest, []string{
			"InterfaceAttachFailedNoNetwork", "NetworkAmbiguous", "NoMoreFixedIps", "PortNotUsable", "AttachInterfaceNotSupported",
			"SecurityGroupCannotBeApplied", "NetworkInterfaceTaggedAttachNotSupported", "InvalidInput",
		}},
		{http.StatusConflict, []string{"FixedIpAlreadyInUse", "PortInUse"}},
		{http.StatusNotFound, []string{"PortNotFound", "NetworkNotFound"}},
		{http.StatusForbidden, []string{"PortLimitExceeded", "ExternalNetworkAttachForbidden"}},
		{http.StatusInternalServerError, []string{"InterfaceAttachFailed"}},
	}
}

// interfaceDetach has the host take a port away. Whether the server has it is
// for the host to say, in a fault, as with Nova.
func (s *Service) interfaceDetach(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.ownServer(ctx, r, "os-attach-interfaces:delete")
	if err != nil {
		return nil, err
	}
	if err := (verb{name: "detach_interface", vm: interfaceStates()}).admits(r, i); err != nil {
		return nil, err
	}
	if !able("detach_interface") {
		return nil, unable("detach_interface", i)
	}
	if err := s.tell(ctx, r, i, "detach_interface", "detach_interface", map[string]any{"port_id": r.PathValue("port")}); err != nil {
		return nil, err
	}
	return empty(http.StatusAccepted)
}

func (s *Service) serverSecurityGroups(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	ports, err := s.ports(ctx, r, i)
	if err != nil {
		return nil, err
	}
	all, err := s.o.Networks.SecurityGroups(ctx, r.Caller)
	if err != nil {
		return nil, fmt.Errorf("security groups of project: %w", err)
	}
	views, seen := []any{}, map[string]bool{}
	for _, p := range ports {
		for _, g := range p.Groups {
			if seen[g.ID] {
				continue
			}
			seen[g.ID] = true
			if n := slices.IndexFunc(all, func(full SecurityGroup) bool { return full.ID == g.ID }); n >= 0 {
				g = all[n]
			}
			views = append(views, g.view())
		}
	}
	return rest.OK(map[string]any{"security_groups": views})
}

// view is a group as nova-network once showed it.
func (g SecurityGroup) view() map[string]any {
	rules := []any{}
	for _, r := range g.Rules {
		v := map[string]any{
			"id": r.ID, "parent_group_id": g.ID, "ip_protocol": orNil(r.Protocol), "from_port": nil, "to_port": nil,
			"group": map[string]string{}, "ip_range": map[string]string{},
		}
		if r.Protocol != "" {
			v["from_port"], v["to_port"] = r.First, r.Last
		}
		switch {
		case r.GroupName != "":
			v["group"] = map[string]string{"name": r.GroupName, "tenant_id": g.ProjectID}
		case r.CIDR != "":
			v["ip_range"] = map[string]string{"cidr": r.CIDR}
		case r.Protocol != "":
			v["ip_range"] = map[string]string{"cidr": "0.0.0.0/0"}
		}
		rules = append(rules, v)
	}
	return map[string]any{"id": g.ID, "name": g.Name, "description": g.Description, "tenant_id": g.ProjectID, "rules": rules}
}

// groupVerbs put servers into security groups and take them out.
func (s *Service) groupVerbs() []verb {
	out := []verb{}
	for name, policy := range map[string]string{"addSecurityGroup": "os-security-groups:add", "removeSecurityGroup": "os-security-groups:remove"} {
		out = append(out, verb{
			name: name, policy: policy, anyTask: true, unlaunched: true, ignoresLock: true,
			run: func(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
				group, ok := d.Get("name").(string)
				switch {
				case d == nil:
					return nil, badRequest("Missing parameter dict")
				case !ok:
					return nil, badRequest("Security group not specified")
				case strings.TrimSpace(group) == "":
					return nil, badRequest("Security group name cannot be empty")
				}
				return s.changeGroups(ctx, r, i, group, name == "addSecurityGroup")
			},
		})
	}
	return out
}

func (s *Service) changeGroups(ctx context.Context, r *rest.Request, i objects.Instance, name string, add bool) (*rest.Response, error) {
	all, err := s.o.Networks.SecurityGroups(ctx, r.Caller)
	if err != nil {
		return nil, fmt.Errorf("security groups of project: %w", err)
	}
	id, err := pickGroup(all, name)
	if err != nil {
		return nil, err
	}
	if id == "" {
		return nil, notFound("Security group %s is not found for project %s", name, r.Caller.ProjectID)
	}
	ports, err := s.ports(ctx, r, i)
	if err != nil {
		return nil, err
	}
	if len(ports) == 0 {
		return nil, notFound("instance_id %s could not be found as device id on any ports", i.UUID())
	}
	found := false
	for _, p := range ports {
		ids := make([]string, 0, len(p.Groups)+1)
		for _, g := range p.Groups {
			ids = append(ids, g.ID)
		}
		in := slices.Contains(ids, id)
		found = found || in
		switch {
		case add && !in:
			ids = append(ids, id)
		case !add && in:
			ids = slices.DeleteFunc(ids, func(g string) bool { return g == id })
		default:
			continue
		}
		if err := s.o.Networks.SetPortGroups(ctx, r.Caller, p.ID, ids); err != nil {
			return nil, fmt.Errorf("security groups of port %s: %w", p.ID, err)
		}
	}
	if !add && !found {
		return nil, notFound("Security group %s not associated with the instance %s", name, i.UUID())
	}
	return empty(http.StatusAccepted)
}
