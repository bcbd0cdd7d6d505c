package compute

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

func (s *Service) hypervisorRoutes() {
	s.handle("GET /v2.1/os-hypervisors", s.hypervisorList)
	s.handle("GET /v2.1/os-hypervisors/detail", s.hypervisorDetail)
	s.handle("GET /v2.1/os-hypervisors/statistics", s.hypervisorStatistics)
	s.handle("GET /v2.1/os-hypervisors/{id}", s.hypervisorShow)
	s.handle("GET /v2.1/os-hypervisors/{id}/uptime", s.hypervisorUptime)
	s.handle("GET /v2.1/os-hypervisors/{id}/search", s.hypervisorSearch)
	s.handle("GET /v2.1/os-hypervisors/{id}/servers", s.hypervisorServers)
}

// hypervisor is a compute node with its service.
type hypervisor struct {
	node    objects.ComputeNode
	service objects.Service
	// servers are of interest when not nil.
	servers []map[string]string
}

func (s *Service) hypervisorList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	return s.hypervisorAnswer(ctx, r, "list", false)
}

func (s *Service) hypervisorDetail(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	return s.hypervisorAnswer(ctx, r, "list-detail", true)
}

func (s *Service) hypervisorAnswer(ctx context.Context, r *rest.Request, policy string, detail bool) (*rest.Response, error) {
	if err := hypervisorQuery(r); err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-hypervisors:"+policy); err != nil {
		return nil, err
	}
	all, err := s.hypervisors(ctx)
	if err != nil {
		return nil, err
	}
	q := r.Params()
	n, marker := pageSize, ""
	if r.Version.AtLeast(2, 33) {
		n, marker = limit(r), q.Get("marker")
	}
	if pattern := q.Get("hypervisor_hostname_pattern"); r.Version.AtLeast(2, 53) && q.Has("hypervisor_hostname_pattern") {
		if q.Has("limit") || marker != "" {
			return nil, badRequest("Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.")
		}
		if all, err = matching(all, pattern); err != nil {
			return nil, err
		}
	}
	page, _, ok := rest.Page(all, func(h *hypervisor) string { return h.id(r.Version) }, marker, n)
	if !ok {
		return nil, badRequest("marker [%s] not found", marker)
	}
	if with, _ := schema.ParseBool(q.Get("with_servers")); with && r.Version.AtLeast(2, 53) {
		if err := s.addServers(ctx, page); err != nil {
			return nil, err
		}
	}
	views := make([]any, len(page))
	for i, h := range page {
		views[i] = s.hypervisorView(ctx, r, h, detail)
	}
	out := map[string]any{"hypervisors": views}
	collection := "os-hypervisors"
	if detail {
		collection += "/detail"
	}
	if r.Version.AtLeast(2, 33) && !q.Has("hypervisor_hostname_pattern") {
		if next := at(r, collection).next(r, len(page), n, func() string { return page[len(page)-1].id(r.Version) }); next != nil {
			out["hypervisors_links"] = next
		}
	}
	return rest.OK(out)
}

func hypervisorQuery(r *rest.Request) error {
	switch {
	case r.Version.AtLeast(2, 53):
		return query(r, schema.Object(
			schema.Opt("limit", schema.One(schema.Natural())...), schema.Opt("marker", schema.One(schema.String())...),
			schema.Opt("hypervisor_hostname_pattern", schema.One(schema.FQDN())...), schema.Opt("with_servers", schema.One(schema.Boolean())...)))
	case r.Version.AtLeast(2, 33):
		return query(r, schema.Open(paging()...))
	}
	return nil
}

// matching are the hypervisors whose name contains the pattern; none is 404.
func matching(all []*hypervisor, pattern string) ([]*hypervisor, error) {
	var out []*hypervisor
	for _, h := range all {
		if strings.Contains(strings.ToLower(h.node.Node()), strings.ToLower(pattern)) {
			out = append(out, h)
		}
	}
	if len(out) == 0 {
		return nil, notFound("No hypervisor matching '%s' could be found.", pattern)
	}
	return out, nil
}

func (s *Service) hypervisorShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if r.Version.AtLeast(2, 53) {
		if err := query(r, schema.Object(schema.Opt("with_servers", schema.One(schema.Boolean())...))); err != nil {
			return nil, err
		}
	}
	h, err := s.hypervisorOf(ctx, r, "show")
	if err != nil {
		return nil, err
	}
	if with, _ := schema.ParseBool(r.Params().Get("with_servers")); with && r.Version.AtLeast(2, 53) {
		if err := s.addServers(ctx, []*hypervisor{h}); err != nil {
			return nil, err
		}
	}
	return rest.OK(map[string]any{"hypervisor": s.hypervisorView(ctx, r, h, true)})
}

func (s *Service) hypervisorUptime(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if r.Version.AtLeast(2, 88) {
		return nil, notFound("")
	}
	h, err := s.hypervisorOf(ctx, r, "uptime")
	if err != nil {
		return nil, err
	}
	if !cell.Up(h.service, time.Now()) {
		return nil, badRequest("Compute service of %s is unavailable at this time.", h.node.Host())
	}
	up, err := s.uptime(ctx, r, h.node.Host())
	if err != nil {
		return nil, err
	}
	v := s.hypervisorView(ctx, r, h, false)
	v["uptime"] = up
	return rest.OK(map[string]any{"hypervisor": v})
}

func (s *Service) uptime(ctx context.Context, r *rest.Request, host string) (up string, err error) {
	err = s.call(ctx, r, host, "get_host_uptime", "6.0", map[string]any{}, &up)
	return up, err
}

func (s *Service) hypervisorSearch(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	return s.hypervisorsByName(ctx, r, "search")
}

func (s *Service) hypervisorServers(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	return s.hypervisorsByName(ctx, r, "servers")
}

// hypervisorsByName answers the routes that 2.53 has replaced by parameters.
func (s *Service) hypervisorsByName(ctx context.Context, r *rest.Request, what string) (*rest.Response, error) {
	if r.Version.AtLeast(2, 53) {
		return nil, notFound("")
	}
	if err := allow(r.Caller.Admin(), "os-hypervisors:"+what); err != nil {
		return nil, err
	}
	all, err := s.hypervisors(ctx)
	if err == nil {
		all, err = matching(all, r.PathValue("id"))
	}
	if err == nil && what == "servers" {
		err = s.addServers(ctx, all)
	}
	if err != nil {
		return nil, err
	}
	views := make([]any, len(all))
	for i, h := range all {
		views[i] = s.hypervisorView(ctx, r, h, false)
	}
	return rest.OK(map[string]any{"hypervisors": views})
}

func (s *Service) hypervisorStatistics(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if r.Version.AtLeast(2, 88) {
		return nil, notFound("")
	}
	if err := allow(r.Caller.Admin(), "os-hypervisors:statistics"); err != nil {
		return nil, err
	}
	all, err := s.hypervisors(ctx)
	if err != nil {
		return nil, err
	}
	sum := map[string]int64{}
	for _, field := range nodeNumbers() {
		sum[field] = 0
	}
	for _, h := range all {
		if h.service.Disabled() {
			continue
		}
		sum["count"]++
		for _, field := range nodeNumbers() {
			sum[field] += h.node.Int(field)
		}
	}
	return rest.OK(map[string]any{"hypervisor_statistics": sum})
}

// nodeNumbers are the amounts of a node, shown up to 2.87.
func nodeNumbers() []string {
	return []string{
		"vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used", "free_ram_mb", "free_disk_gb",
		"current_workload", "running_vms", "disk_available_least",
	}
}

func (s *Service) hypervisorView(ctx context.Context, r *rest.Request, h *hypervisor, detail bool) map[string]any {
	v := map[string]any{
		"id": any(h.node.ID()), "hypervisor_hostname": h.node.Node(), "state": state(h.service), "status": status(h.service),
	}
	serviceID := any(h.service.ID())
	if r.Version.AtLeast(2, 53) {
		v["id"], serviceID = h.node.UUID(), h.service.UUID()
	}
	if h.servers != nil && (len(h.servers) > 0 || r.Version.AtLeast(2, 75)) {
		v["servers"] = h.servers
	}
	if !detail {
		return v
	}
	for _, field := range []string{"hypervisor_type", "hypervisor_version", "host_ip"} {
		v[field] = h.node.Get(field)
	}
	v["service"] = map[string]any{"id": serviceID, "host": h.node.Host(), "disabled_reason": orNull(h.service.Object, "disabled_reason")}
	if r.Version.AtLeast(2, 88) {
		v["uptime"] = nil
		if cell.Up(h.service, time.Now()) {
			if up, err := s.uptime(ctx, r, h.node.Host()); err == nil {
				v["uptime"] = up
			}
		}
		return v
	}
	for _, field := range nodeNumbers() {
		v[field] = h.node.Get(field)
	}
	v["cpu_info"] = h.node.String("cpu_info")
	if r.Version.AtLeast(2, 28) {
		v["cpu_info"] = map[string]any{}
		if text := h.node.String("cpu_info"); json.Valid([]byte(text)) {
			v["cpu_info"] = json.RawMessage(text)
		}
	}
	return v
}

func (h *hypervisor) id(v rest.Version) string {
	if v.AtLeast(2, 53) {
		return h.node.UUID()
	}
	return strconv.FormatInt(h.node.ID(), 10)
}

// hypervisorOf is the one of the path.
func (s *Service) hypervisorOf(ctx context.Context, r *rest.Request, policy string) (*hypervisor, error) {
	if err := allow(r.Caller.Admin(), "os-hypervisors:"+policy); err != nil {
		return nil, err
	}
	id := r.PathValue("id")
	if r.Version.AtLeast(2, 53) && !schema.IsUUID(id) {
		return nil, badRequest("Invalid uuid %s", id)
	}
	all, err := s.hypervisors(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		if h.id(r.Version) == id {
			return h, nil
		}
	}
	return nil, notFound("Hypervisor with ID '%s' could not be found.", id)
}

// hypervisors are the nodes that have a service, in the order of their ids.
func (s *Service) hypervisors(ctx context.Context) ([]*hypervisor, error) {
	nodes, err := s.o.Cell.ComputeNodes(ctx, cell.NodeQuery{})
	if err != nil {
		return nil, err
	}
	services, err := s.o.Cell.Services(ctx, cell.ServiceQuery{Binary: computeBinary})
	if err != nil {
		return nil, err
	}
	byHost := make(map[string]objects.Service, len(services))
	for _, svc := range services {
		byHost[svc.Host()] = svc
	}
	out := []*hypervisor{}
	for _, n := range nodes {
		if svc, ok := byHost[n.Host()]; ok {
			out = append(out, &hypervisor{node: n, service: svc})
		}
	}
	return out, nil
}

// addServers finds the servers of hypervisors.
func (s *Service) addServers(ctx context.Context, all []*hypervisor) error {
	byHost, hosts := map[string]*hypervisor{}, []any{}
	for _, h := range all {
		h.servers = []map[string]string{}
		byHost[h.node.Host()] = h
		hosts = append(hosts, h.node.Host())
	}
	list, err := s.o.Cell.ListInstances(ctx, cell.InstanceQuery{
		Deleted: cell.LiveAndSoft, Match: map[string][]any{"host": hosts}, Sort: []cell.SortKey{{Field: "created_at"}},
	})
	if err != nil {
		return err
	}
	for _, i := range list {
		h := byHost[i.Host()]
		h.servers = append(h.servers, map[string]string{"name": instanceName(i), "uuid": i.UUID()})
	}
	return nil
}

// gone answers what Zed has removed.
func gone(context.Context, *rest.Request) (*rest.Response, error) {
	return nil, rest.Errorf(http.StatusGone, "")
}
