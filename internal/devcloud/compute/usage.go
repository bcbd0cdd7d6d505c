package compute

import (
	"context"
	"errors"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func (s *Service) usageRoutes() {
	s.handle("GET /v2.1/os-simple-tenant-usage", s.usageList)
	s.handle("GET /v2.1/os-simple-tenant-usage/{id}", s.usageShow)
}

// period is a span of time in which usage is summed.
type period struct {
	start, stop time.Time
	detailed    bool
	limit       int
	marker      string
}

// usageView sums what a project's servers took.
type usageView struct {
	TenantID string        `json:"tenant_id,omitempty"`
	Servers  []serverUsage `json:"server_usages,omitempty"`
	LocalGB  float64       `json:"total_local_gb_usage"`
	VCPUs    float64       `json:"total_vcpus_usage"`
	MemoryMB float64       `json:"total_memory_mb_usage"`
	Hours    float64       `json:"total_hours"`
	Start    string        `json:"start"`
	Stop     string        `json:"stop"`
}

type serverUsage struct {
	Hours    float64 `json:"hours"`
	Flavor   string  `json:"flavor"`
	ID       string  `json:"instance_id"`
	Name     string  `json:"name"`
	TenantID string  `json:"tenant_id"`
	MemoryMB int64   `json:"memory_mb"`
	LocalGB  int64   `json:"local_gb"`
	VCPUs    int64   `json:"vcpus"`
	Started  any     `json:"started_at"`
	Ended    any     `json:"ended_at"`
	State    string  `json:"state"`
	Uptime   int64   `json:"uptime"`
}

// usagePeriod reads the span of a query; without one it is empty and so is the
// usage, as in Nova.
func usagePeriod(r *rest.Request, more ...schema.Field) (period, error) {
	text := schema.Params(schema.String())
	fields := append(more, schema.Opt("start", text...), schema.Opt("end", text...))
	p := period{limit: pageSize}
	if r.Version.AtLeast(2, 40) {
		fields = append(fields, paging()...)
	}
	if err := queries(r, fields...); err != nil {
		return p, err
	}
	if r.Version.AtLeast(2, 40) {
		p.limit, p.marker = limit(r), r.Params().Get("marker")
	}
	now := time.Now().UTC()
	for name, at := range map[string]*time.Time{"start": &p.start, "end": &p.stop} {
		*at = now
		v := r.Params().Get(name)
		if v == "" {
			continue
		}
		t, ok := parseUsageTime(v)
		if !ok {
			return p, badRequest("Invalid datetime string: Datetime is in invalid format")
		}
		*at = t
	}
	p.detailed = r.Params().Get("detailed") == "1"
	if !p.start.Before(p.stop) && (r.Params().Has("start") || r.Params().Has("end")) {
		return p, badRequest("Invalid start time. The start time cannot occur after the end time.")
	}
	if p.stop.After(now) {
		p.stop = now
	}
	return p, nil
}

func parseUsageTime(s string) (time.Time, bool) {
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04:05.999999", "2006-01-02 15:04:05.999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func (s *Service) usageList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	p, err := usagePeriod(r, schema.Opt("detailed", schema.Params(schema.String())...))
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-simple-tenant-usage:list"); err != nil {
		return nil, err
	}
	views, all, err := s.usage(ctx, p, "")
	if err != nil {
		return nil, err
	}
	if !p.detailed {
		for _, v := range views {
			v.Servers = nil
		}
	}
	out := map[string]any{"tenant_usages": views}
	if r.Version.AtLeast(2, 40) {
		if next := at(r, "os-simple-tenant-usage").next(r, len(all), p.limit, func() string { return all[len(all)-1].ID }); next != nil {
			out["tenant_usages_links"] = next
		}
	}
	return rest.OK(out)
}

func (s *Service) usageShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	p, err := usagePeriod(r)
	if err != nil {
		return nil, err
	}
	project := r.PathValue("id")
	if err := allow(r.Caller.Owns(project), "os-simple-tenant-usage:show"); err != nil {
		return nil, err
	}
	views, all, err := s.usage(ctx, p, project)
	if err != nil {
		return nil, err
	}
	out := map[string]any{"tenant_usage": map[string]any{}}
	if len(views) > 0 {
		out["tenant_usage"] = views[0]
	}
	if r.Version.AtLeast(2, 40) {
		if next := at(r, "os-simple-tenant-usage/"+project).next(r, len(all), p.limit, func() string { return all[len(all)-1].ID }); next != nil {
			out["tenant_usage_links"] = next
		}
	}
	return rest.OK(out)
}

// usage sums the servers that lived in the period, by project.
func (s *Service) usage(ctx context.Context, p period, project string) ([]*usageView, []serverUsage, error) {
	q := cell.InstanceQuery{
		Deleted: cell.Everything, Match: map[string][]any{}, Marker: p.marker,
		Sort: []cell.SortKey{{Field: "project_id"}, {Field: "uuid"}},
	}
	if project != "" {
		q.Match["project_id"] = []any{project}
	}
	rows, err := s.o.Cell.ListInstances(ctx, q)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil, badRequest("Marker %s could not be found.", p.marker)
	}
	if err != nil {
		return nil, nil, err
	}
	views, all := []*usageView{}, []serverUsage{}
	for _, i := range rows {
		if len(all) == p.limit {
			break
		}
		u, lived := usageOf(i, p)
		if !lived {
			continue
		}
		if len(views) == 0 || views[len(views)-1].TenantID != u.TenantID {
			views = append(views, &usageView{TenantID: u.TenantID, Start: isoTime(p.start), Stop: isoTime(p.stop)})
		}
		v := views[len(views)-1]
		v.LocalGB += float64(u.LocalGB) * u.Hours
		v.VCPUs += float64(u.VCPUs) * u.Hours
		v.MemoryMB += float64(u.MemoryMB) * u.Hours
		v.Hours += u.Hours
		v.Servers = append(v.Servers, u)
		all = append(all, u)
	}
	return views, all, nil
}

func isoTime(t time.Time) string { return t.UTC().Format(secondsWithZeros) }

// usageOf is one server's share; not lived says that it was not up in it.
func usageOf(i objects.Instance, p period) (u serverUsage, lived bool) {
	launched, ended := i.LaunchedAt(), i.Time("terminated_at")
	if launched.IsZero() || launched.After(p.stop) || !ended.IsZero() && ended.Before(p.start) || !p.start.Before(p.stop) {
		return u, false
	}
	from, to, until := launched, p.stop, time.Now()
	if from.Before(p.start) {
		from = p.start
	}
	u = serverUsage{
		Flavor: i.Flavor().FlavorName(), ID: i.UUID(), Name: i.DisplayName(), TenantID: i.ProjectID(), State: i.VMState(),
		MemoryMB: i.MemoryMB(), LocalGB: i.RootGB() + i.EphemeralGB(), VCPUs: i.VCPUs(), Started: micros(launched), Ended: micros(ended),
	}
	if !ended.IsZero() {
		u.State, until = "terminated", ended
		if ended.Before(to) {
			to = ended
		}
	}
	u.Hours, u.Uptime = to.Sub(from).Hours(), int64(until.Sub(launched).Seconds())
	return u, true
}
