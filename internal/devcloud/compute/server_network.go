package compute

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Words that may stand for networks.
const (
	autoNetwork = "auto"
	noNetwork   = "none"
)

// wanted is one network or port of a request.
type wanted struct{ network, port, address, tag string }

// requestedNetworks reads what networks were asked for: nil for no word about
// them.
func requestedNetworks(d *schema.Dict) ([]wanted, error) {
	switch word := d.Get("networks").(type) {
	case string:
		return []wanted{{network: word}}, nil
	case nil:
		return nil, nil
	}
	out := []wanted{}
	var ports []string
	for _, one := range d.List("networks") {
		n, _ := one.(*schema.Dict) // the schema says so
		w := wanted{port: n.String("port"), address: n.String("fixed_ip"), tag: n.String("tag")}
		switch {
		case w.port != "" && slices.Contains(ports, w.port):
			return nil, badRequest("Port ID '%s' was specified twice: you cannot attach a port multiple times.", w.port)
		case w.port != "" && w.address != "":
			return nil, badRequest("Specified Fixed IP '%s' cannot be used with port '%s': the two cannot be specified together.", w.address, w.port)
		case w.port != "":
			ports = append(ports, w.port)
		case !n.Has("uuid"):
			return nil, badRequest("Bad network format: missing 'uuid'")
		case !schema.IsUUID(n.String("uuid")):
			return nil, badRequest("Bad networks format: network uuid is not in proper format (%s)", n.String("uuid"))
		default:
			w.network = n.String("uuid")
		}
		out = append(out, w)
	}
	return out, nil
}

// checkNetworks holds the requests against what there is for the caller and
// makes a NetworkRequestList of them; nil for no word about networks.
func (s *Service) checkNetworks(ctx context.Context, r *rest.Request, all []wanted, servers int) (*objects.Object, error) {
	auto := len(all) == 1 && all[0].network == autoNetwork
	if len(all) == 0 || auto {
		found, err := s.o.Networks.Networks(ctx, r.Caller)
		if err != nil {
			return nil, fmt.Errorf("networks of project: %w", err)
		}
		switch {
		case len(found) > 1:
			return nil, conflict("Multiple possible networks found, use a Network ID to be more specific.")
		case auto && len(found) == 0:
			return nil, badRequest("Unable to automatically allocate a network for project %s", r.Caller.ProjectID)
		case auto:
			// as Nova does once it knows the network
			all = []wanted{{network: found[0].ID}}
		}
	} else if all[0].network != noNetwork || len(all) > 1 {
		if err := s.checkWanted(ctx, r, all, servers); err != nil {
			return nil, err
		}
	}
	if all == nil {
		return nil, nil
	}
	list := objects.New("NetworkRequestList")
	requests := make([]*objects.Object, len(all))
	for n, w := range all {
		requests[n] = w.object()
	}
	list.Set("objects", requests)
	return list, nil
}

func (w wanted) object() *objects.Object {
	o := objects.New("NetworkRequest")
	for field, v := range map[string]string{"network_id": w.network, "port_id": w.port, "address": w.address, "tag": w.tag} {
		o.Set(field, nil)
		if v != "" {
			o.Set(field, v)
		}
	}
	for _, field := range []string{"pci_request_id", "arq_uuid", "device_profile"} {
		o.Set(field, nil)
	}
	return o
}

func (s *Service) checkWanted(ctx context.Context, r *rest.Request, all []wanted, servers int) error {
	var ports, networks []string
	for _, w := range all {
		switch {
		case w.port != "":
			ports = append(ports, w.port)
		default:
			networks = append(networks, w.network)
		}
		if w.address != "" && servers > 1 {
			return badRequest("Failed to launch instances: max_count cannot be greater than 1 if an fixed_ip is specified.")
		}
	}
	if len(ports) > 0 {
		if servers > 1 {
			return badRequest("Unable to launch multiple instances with a single configured port ID. Please launch your instance one by one with different ports.")
		}
		if err := s.checkPorts(ctx, r, ports); err != nil {
			return err
		}
	}
	if len(networks) == 0 {
		return nil
	}
	found, err := s.o.Networks.Networks(ctx, r.Caller, networks...)
	if err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	for _, id := range networks {
		n := slices.IndexFunc(found, func(n Network) bool { return n.ID == id })
		switch {
		case n < 0:
			return badRequest("Network %s could not be found.", id)
		case found[n].Subnets == 0:
			return badRequest("Network %s requires a subnet in order to boot instances on.", id)
		case found[n].External && !found[n].Shared && !r.Caller.Admin():
			return forbidden("It is not allowed to create an interface on external network %s", id)
		}
	}
	return nil
}

func (s *Service) checkPorts(ctx context.Context, r *rest.Request, ids []string) error {
	found, err := s.o.Networks.Ports(ctx, r.Caller, PortQuery{IDs: ids})
	if err != nil {
		return fmt.Errorf("ports: %w", err)
	}
	for _, id := range ids {
		n := slices.IndexFunc(found, func(p Port) bool { return p.ID == id })
		switch {
		case n < 0:
			return badRequest("Port id %s could not be found.", id)
		case found[n].DeviceID != "":
			return rest.Errorf(http.StatusConflict, "Port %s is still in use.", id)
		case len(found[n].FixedIPs) == 0:
			return badRequest("Port %s requires a FixedIP in order to be used.", id)
		}
	}
	return nil
}

// groupNames are the security groups as they were asked for.
func groupNames(d *schema.Dict) any {
	out := []map[string]string{}
	for _, one := range d.List("security_groups") {
		if g, ok := one.(*schema.Dict); ok {
			out = append(out, g.Strings())
		}
	}
	return out
}

// requestedGroups finds the ids of the security groups that were asked for by
// name or id; without a word it is the project's default one.
func (s *Service) requestedGroups(ctx context.Context, r *rest.Request, d *schema.Dict) ([]string, error) {
	var names []string
	for _, one := range d.List("security_groups") {
		if g, ok := one.(*schema.Dict); ok && g.String("name") != "" && !slices.Contains(names, g.String("name")) {
			names = append(names, g.String("name"))
		}
	}
	if len(names) == 0 || len(names) == 1 && names[0] == "default" {
		return []string{"default"}, nil
	}
	found, err := s.o.Networks.SecurityGroups(ctx, r.Caller)
	if err != nil {
		return nil, fmt.Errorf("security groups of project: %w", err)
	}
	out := make([]string, 0, len(names))
	for _, name := range names {
		id, err := pickGroup(found, name)
		if err != nil {
			return nil, err
		}
		if id == "" {
			return nil, badRequest("Unable to find security_group with name or id '%s'", name)
		}
		out = append(out, id)
	}
	return out, nil
}

// pickGroup finds a group by id or, when it is the only one, by name; "" when
// there is none.
func pickGroup(all []SecurityGroup, name string) (string, error) {
	id := ""
	for _, g := range all {
		switch {
		case g.ID == name:
			return g.ID, nil
		case g.Name == name && id != "":
			return "", conflict("Multiple security groups found matching '%s'. Use an ID to be more specific.", name)
		case g.Name == name:
			id = g.ID
		}
	}
	return id, nil
}
