package devcloud

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/gantry-project/gantry/internal/devcloud/compute"
	"github.com/gantry-project/gantry/internal/devcloud/network"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// networks is the network service as compute and conductor want it: they ask its
// API with the caller's token, as Nova does, so that its policies hold.
type networks struct {
	inside
	// service returns a token of a service user.
	service func(ctx context.Context) (string, error)
}

var _ compute.Networks = networks{}

// Networks implements compute.Networks.
func (n networks) Networks(ctx context.Context, caller *rest.Caller, ids ...string) ([]compute.Network, error) {
	queries := []url.Values{{"id": ids}}
	if len(ids) == 0 {
		queries = []url.Values{
			{"tenant_id": {caller.ProjectID}, "shared": {"False"}, "router:external": {"False"}},
			{"shared": {"True"}, "router:external": {"False"}},
		}
	}
	var all []compute.Network
	for _, q := range queries {
		var out struct {
			Networks []struct {
				ID       string   `json:"id"`
				Name     string   `json:"name"`
				Project  string   `json:"project_id"`
				Shared   bool     `json:"shared"`
				External bool     `json:"router:external"`
				Subnets  []string `json:"subnets"`
			} `json:"networks"`
		}
		if _, err := n.ask(ctx, caller.Token, http.MethodGet, "/network/v2.0/networks?"+q.Encode(), nil, &out); err != nil {
			return nil, err
		}
		for _, o := range out.Networks {
			all = append(all, compute.Network{
				ID: o.ID, Name: o.Name, ProjectID: o.Project, Shared: o.Shared, External: o.External, Subnets: len(o.Subnets),
			})
		}
	}
	return all, nil
}

// port is what is read of a port.
type port struct {
	ID      string `json:"id"`
	Network string `json:"network_id"`
	Project string `json:"project_id"`
	MAC     string `json:"mac_address"`
	Status  string `json:"status"`
	Device  string `json:"device_id"`
	Fixed   []struct {
		Subnet  string `json:"subnet_id"`
		Address string `json:"ip_address"`
	} `json:"fixed_ips"`
	Groups []string `json:"security_groups"`
}

func (n networks) ports(ctx context.Context, token string, q url.Values) ([]port, error) {
	var out struct {
		Ports []port `json:"ports"`
	}
	_, err := n.ask(ctx, token, http.MethodGet, "/network/v2.0/ports?"+q.Encode(), nil, &out)
	return out.Ports, err
}

// Ports implements compute.Networks.
func (n networks) Ports(ctx context.Context, caller *rest.Caller, q compute.PortQuery) ([]compute.Port, error) {
	query := url.Values{}
	if len(q.IDs) > 0 {
		query["id"] = q.IDs
	}
	if len(q.Servers) > 0 {
		query["device_id"] = q.Servers
	}
	if len(query) == 0 {
		return nil, nil
	}
	found, err := n.ports(ctx, caller.Token, query)
	if err != nil {
		return nil, err
	}
	groups, err := n.groups(ctx, caller.Token, nil)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, g := range groups {
		names[g.ID] = g.Name
	}
	var all []compute.Port
	for _, o := range found {
		p := compute.Port{ID: o.ID, NetworkID: o.Network, ProjectID: o.Project, MAC: o.MAC, Status: o.Status, DeviceID: o.Device}
		for _, f := range o.Fixed {
			address, err := netip.ParseAddr(f.Address)
			if err != nil {
				return nil, err
			}
			p.FixedIPs = append(p.FixedIPs, compute.FixedIP{SubnetID: f.Subnet, Address: address})
		}
		for _, id := range o.Groups {
			p.Groups = append(p.Groups, compute.SecurityGroup{ID: id, Name: names[id]})
		}
		all = append(all, p)
	}
	return all, nil
}

func (n networks) groups(ctx context.Context, token string, q url.Values) ([]compute.SecurityGroup, error) {
	var out struct {
		Groups []compute.SecurityGroup `json:"security_groups"`
	}
	_, err := n.ask(ctx, token, http.MethodGet, "/network/v2.0/security-groups?fields=id&fields=name&"+q.Encode(), nil, &out)
	return out.Groups, err
}

// SecurityGroups implements compute.Networks.
func (n networks) SecurityGroups(ctx context.Context, caller *rest.Caller) ([]compute.SecurityGroup, error) {
	return n.groups(ctx, caller.Token, url.Values{"tenant_id": {caller.ProjectID}})
}

// SetPortGroups implements compute.Networks.
func (n networks) SetPortGroups(ctx context.Context, caller *rest.Caller, id string, groups []string) error {
	_, err := n.ask(ctx, caller.Token, http.MethodPut, "/network/v2.0/ports/"+url.PathEscape(id), object{"port": object{"security_groups": groups}}, nil)
	return err
}

// Ask implements compute.Networks.
func (n networks) Ask(ctx context.Context, caller *rest.Caller, method, path string, in, out any) error {
	_, err := n.ask(ctx, caller.Token, method, "/network/v2.0"+path, in, out)
	refused, ok := errors.AsType[*refusal](err)
	if !ok {
		return err
	}
	var said struct {
		NeutronError struct{ Type, Message string }
	}
	if json.Unmarshal(refused.body, &said) != nil || refused.status >= http.StatusInternalServerError {
		return err
	}
	e := rest.Errorf(refused.status, "%s", said.NeutronError.Message).Because(err)
	e.Type = said.NeutronError.Type
	return e
}

// Images implements compute.Images.
func (p pictures) Images(ctx context.Context, caller *rest.Caller, limit int, marker string) ([]compute.Image, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if marker != "" {
		q.Set("marker", marker)
	}
	var out struct {
		Images []map[string]any `json:"images"`
	}
	if _, err := p.ask(ctx, caller.Token, http.MethodGet, "/image/v2/images?"+q.Encode(), nil, &out); err != nil {
		return nil, err
	}
	all := make([]compute.Image, len(out.Images))
	for i, one := range out.Images {
		all[i] = imageOf(one)
	}
	return all, nil
}

// ReleasePorts implements compute.Networks: a server without a host has only
// ports that somebody has made for it, which are unbound.
func (n networks) ReleasePorts(ctx context.Context, server string) error {
	token, err := n.service(ctx)
	if err != nil {
		return err
	}
	found, err := n.ports(ctx, token, url.Values{"device_id": {server}})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range found {
		_, err := n.ask(ctx, token, http.MethodPut, "/network/v2.0/ports/"+p.ID, object{"port": object{
			"device_id": "", "device_owner": "", "binding:host_id": "",
		}}, nil)
		if !errors.Is(err, errdefs.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// GroupNames implements metadata.Groups.
func (n networks) GroupNames(ctx context.Context, instance string) ([]string, error) {
	token, err := n.service(ctx)
	if err != nil {
		return nil, err
	}
	found, err := n.Ports(ctx, &rest.Caller{Token: token}, compute.PortQuery{Servers: []string{instance}})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range found {
		for _, g := range p.Groups {
			if !slices.Contains(names, g.Name) {
				names = append(names, g.Name)
			}
		}
	}
	return names, nil
}

// Release implements conductor.Networks.
func (n networks) Release(ctx context.Context, instance string) error {
	return n.ReleasePorts(ctx, instance)
}

// events takes the network service's to the compute service.
type events struct{ compute *compute.Service }

var _ network.Events = &events{}

// ServerExternalEvents implements network.Events.
func (e *events) ServerExternalEvents(ctx context.Context, list []network.Event) error {
	var all []compute.ExternalEvent
	for _, v := range list {
		all = append(all, compute.ExternalEvent{Name: v.Name, ServerID: v.ServerID, Tag: v.Tag, Status: v.Status})
	}
	return e.compute.ServerExternalEvents(ctx, all)
}

// projects is the identity service as compute wants it.
type projects struct {
	inside
	service func(ctx context.Context) (string, error)
}

// ProjectExists implements compute.Identity.
func (p projects) ProjectExists(ctx context.Context, id string) (bool, error) {
	token, err := p.service(ctx)
	if err != nil {
		return false, err
	}
	_, err = p.ask(ctx, token, http.MethodGet, "/identity/v3/projects/"+url.PathEscape(id), nil, nil)
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// pictures is the image service as compute wants it.
type pictures struct{ inside }

var _ compute.Images = pictures{}

// Image implements compute.Images.
func (p pictures) Image(ctx context.Context, caller *rest.Caller, id string) (i compute.Image, err error) {
	var out map[string]any
	if _, err := p.ask(ctx, caller.Token, http.MethodGet, "/image/v2/images/"+url.PathEscape(id), nil, &out); err != nil {
		return i, err
	}
	return imageOf(out), nil
}

// imageOf reads an image as the API shows it.
func imageOf(out map[string]any) compute.Image {
	text := func(key string) string { s, _ := out[key].(string); return s }
	number := func(key string) int64 { n, _ := out[key].(float64); return int64(n) }
	moment := func(key string) time.Time { t, _ := time.Parse(time.RFC3339, text(key)); return t }
	i := compute.Image{
		ID: text("id"), Name: text("name"), Status: text("status"), Owner: text("owner"),
		ContainerFormat: text("container_format"), DiskFormat: text("disk_format"), Checksum: text("checksum"),
		HashAlgo: text("os_hash_algo"), HashValue: text("os_hash_value"), Size: number("size"),
		MinDisk: number("min_disk"), MinRAM: number("min_ram"), Public: text("visibility") == "public",
		Properties: map[string]string{}, CreatedAt: moment("created_at"), UpdatedAt: moment("updated_at"),
	}
	for key, value := range out {
		if s, ok := value.(string); ok && !slices.Contains(imageFields, key) {
			i.Properties[key] = s
		}
	}
	return i
}

// imageFields are those of an image that are no properties (glance's schema).
var imageFields = []string{
	"id", "name", "status", "visibility", "protected", "checksum", "os_hash_algo", "os_hash_value", "os_hidden", "owner", "size", "virtual_size",
	"container_format", "disk_format", "created_at", "updated_at", "tags", "min_disk", "min_ram", "self", "file", "schema", "direct_url", "locations",
}

// DeleteImage implements compute.Images.
func (p pictures) DeleteImage(ctx context.Context, caller *rest.Caller, id string) error {
	_, err := p.ask(ctx, caller.Token, http.MethodDelete, "/image/v2/images/"+url.PathEscape(id), nil, nil)
	return err
}

// CreateImage implements compute.Images.
func (p pictures) CreateImage(ctx context.Context, caller *rest.Caller, i compute.Image) (string, error) {
	in := object{"name": i.Name, "visibility": "private", "min_disk": i.MinDisk, "min_ram": i.MinRAM}
	for key, value := range i.Properties {
		in[key] = value
	}
	for key, value := range map[string]string{"container_format": i.ContainerFormat, "disk_format": i.DiskFormat} {
		if value != "" {
			in[key] = value
		}
	}
	var out struct {
		ID string `json:"id"`
	}
	_, err := p.ask(ctx, caller.Token, http.MethodPost, "/image/v2/images", in, &out)
	return out.ID, err
}
