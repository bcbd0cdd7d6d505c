package compute

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// computeBinary is the service that has instances.
const computeBinary = "nova-compute"

var (
	reasonField       = schema.Opt("disabled_reason", schema.Type("string"), schema.MinLen(1), schema.MaxLen(255))
	serviceSchema253  = schema.Object(schema.Opt("status", schema.Type("string"), schema.Enum("enabled", "disabled")), reasonField, schema.Opt("forced_down", schema.Boolean()...))
	serviceHostFields = []schema.Field{
		schema.Req("host", schema.FQDN()...), schema.Req("binary", schema.Type("string"), schema.MinLen(1), schema.MaxLen(255)), reasonField,
	}
)

func serviceSchema(v rest.Version) schema.Schema {
	if v.AtLeast(2, 11) {
		return schema.Object(append(slices.Clone(serviceHostFields), schema.Opt("forced_down", schema.Boolean()...))...)
	}
	return schema.Object(serviceHostFields...)
}

// hostRoutes are those of services, hypervisors and zones.
func (s *Service) hostRoutes() {
	s.handle("GET /v2.1/os-services", s.serviceList)
	s.handle("PUT /v2.1/os-services/{id}", s.serviceUpdate)
	s.handle("DELETE /v2.1/os-services/{id}", s.serviceDelete)
	s.hypervisorRoutes()
	s.handle("GET /v2.1/os-availability-zone", s.zoneList)
	s.handle("GET /v2.1/os-availability-zone/detail", s.zoneDetail)
}

// services are the services of the cell that report, with their zones.
func (s *Service) services(ctx context.Context, q cell.ServiceQuery) ([]objects.Service, map[string]string, error) {
	all, err := s.o.Cell.Services(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	zones, err := s.Zones(ctx)
	return all, zones, err
}

// zoneOf is the zone that a service is shown in.
func zoneOf(svc objects.Service, zones map[string]string) string {
	switch {
	case svc.Binary() != computeBinary:
		return internalZone
	case zones[svc.Host()] != "":
		return zones[svc.Host()]
	}
	return defaultZone
}

func (s *Service) serviceList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := queries(r, schema.Opt("host", schema.Params(schema.String())...), schema.Opt("binary", schema.Params(schema.String())...)); err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-services:list"); err != nil {
		return nil, err
	}
	all, zones, err := s.services(ctx, cell.ServiceQuery{Host: r.Params().Get("host"), Binary: r.Params().Get("binary")})
	if err != nil {
		return nil, err
	}
	views := make([]any, len(all))
	for i, svc := range all {
		views[i] = serviceView(r.Version, svc, zones)
	}
	return rest.OK(map[string]any{"services": views})
}

func serviceView(v rest.Version, svc objects.Service, zones map[string]string) map[string]any {
	out := map[string]any{
		"binary": svc.Binary(), "host": svc.Host(), "id": any(svc.ID()), "zone": zoneOf(svc, zones),
		"status": status(svc), "state": state(svc), "updated_at": micros(svc.LastSeenUp()), "disabled_reason": orNull(svc.Object, "disabled_reason"),
	}
	if v.AtLeast(2, 53) {
		out["id"] = svc.UUID()
	}
	if v.AtLeast(2, 11) {
		out["forced_down"] = svc.ForcedDown()
	}
	return out
}

func status(svc objects.Service) string {
	if svc.Disabled() {
		return "disabled"
	}
	return "enabled"
}

func state(svc objects.Service) string {
	if cell.Up(svc, time.Now()) {
		return "up"
	}
	return "down"
}

// micros is a time without zone, null when there is none.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(secondsWithZeros)
}

// orNull is a field as it goes into a view.
func orNull(o *objects.Object, field string) any { return o.Get(field) }

func (s *Service) serviceUpdate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if r.Version.AtLeast(2, 53) {
		return s.serviceUpdateByID(ctx, r)
	}
	d, err := body(r, serviceSchema(r.Version))
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-services:update"); err != nil {
		return nil, err
	}
	host, binary, verb := d.String("host"), d.String("binary"), r.PathValue("id")
	out := map[string]any{"host": host, "binary": binary}
	var change map[string]any
	switch {
	case verb == "enable":
		out["status"] = "enabled"
		change = map[string]any{"disabled": false, "disabled_reason": nil}
	case verb == "disable":
		out["status"] = "disabled"
		change = map[string]any{"disabled": true, "disabled_reason": nil}
	case verb == "disable-log-reason":
		if !d.Has("disabled_reason") {
			return nil, badRequest("Missing disabled reason field")
		}
		out["status"], out["disabled_reason"] = "disabled", d.String("disabled_reason")
		change = map[string]any{"disabled": true, "disabled_reason": d.String("disabled_reason")}
	case verb == "force-down" && r.Version.AtLeast(2, 11):
		if !d.Has("forced_down") {
			return nil, badRequest("Missing forced_down field")
		}
		out["forced_down"] = d.Bool("forced_down", false)
		change = map[string]any{"forced_down": d.Bool("forced_down", false)}
	default:
		return nil, notFound("Unknown action")
	}
	if binary != computeBinary {
		return nil, notCompute(binary)
	}
	all, err := s.o.Cell.Services(ctx, cell.ServiceQuery{Host: host, Binary: binary})
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, notFound("Host '%s' is not mapped to any cell", host)
	}
	if _, err := s.changeService(ctx, r, all[0], change); err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"service": out})
}

func notCompute(binary string) error {
	return badRequest("Updating a %s service is not supported. Only nova-compute services can be updated.", binary)
}

func (s *Service) serviceUpdateByID(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, serviceSchema253)
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-services:update"); err != nil {
		return nil, err
	}
	svc, err := s.serviceOf(ctx, r)
	if err != nil {
		return nil, err
	}
	if svc.Binary() != computeBinary {
		return nil, notCompute(svc.Binary())
	}
	change := map[string]any{}
	switch wanted := d.String("status"); {
	case wanted == "enabled" && d.Has("disabled_reason"):
		return nil, badRequest("Specifying 'disabled_reason' with status 'enabled' is invalid.")
	case wanted == "enabled":
		change["disabled"], change["disabled_reason"] = false, nil
	case wanted == "disabled":
		change["disabled"], change["disabled_reason"] = true, anyOf(d.Optional("disabled_reason"))
	case d.Has("disabled_reason"):
		change["disabled_reason"] = d.String("disabled_reason")
	}
	if d.Has("forced_down") {
		change["forced_down"] = d.Bool("forced_down", false)
	}
	if len(change) == 0 {
		return nil, badRequest("No updates were requested. Fields 'status' or 'forced_down' should be specified.")
	}
	if svc, err = s.changeService(ctx, r, svc, change); err != nil {
		return nil, err
	}
	zones, err := s.Zones(ctx)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"service": serviceView(r.Version, svc, zones)})
}

// anyOf is the text or nil.
func anyOf(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}

// changeService writes the change and tells the host when it is (un)loaded of
// new instances: it shows so to placement. A host that is away learns it from
// its record.
func (s *Service) changeService(ctx context.Context, r *rest.Request, svc objects.Service, change map[string]any) (objects.Service, error) {
	was := svc.Disabled()
	svc, err := s.o.Cell.SaveService(ctx, svc.ID(), change)
	if err != nil {
		return svc, err
	}
	if svc.Disabled() != was && cell.Up(svc, time.Now()) {
		err := s.call(ctx, r, svc.Host(), "set_host_enabled", "6.0", map[string]any{"enabled": !svc.Disabled()}, nil)
		if err != nil {
			s.log.Warn().Err(err).Str(logging.Host, svc.Host()).Msg("host was not told that it is enabled or disabled")
		}
	}
	return svc, nil
}

// serviceOf is the service of the path.
func (s *Service) serviceOf(ctx context.Context, r *rest.Request) (objects.Service, error) {
	id, q := r.PathValue("id"), cell.ServiceQuery{}
	if r.Version.AtLeast(2, 53) {
		if !schema.IsUUID(id) {
			return objects.Service{}, badRequest("Invalid uuid %s", id)
		}
		q.UUID = id
	} else if _, err := integer(id); err != nil {
		return objects.Service{}, err
	}
	all, err := s.o.Cell.Services(ctx, q)
	if err != nil {
		return objects.Service{}, err
	}
	for _, svc := range all {
		if q.UUID != "" || strconv.FormatInt(svc.ID(), 10) == id {
			return svc, nil
		}
	}
	return objects.Service{}, notFound("Service %s could not be found.", id)
}

func (s *Service) serviceDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := allow(r.Caller.Admin(), "os-services:delete"); err != nil {
		return nil, err
	}
	svc, err := s.serviceOf(ctx, r)
	if err != nil {
		return nil, orNotFound(err, "Service %s not found.", r.PathValue("id"))
	}
	if svc.Binary() == computeBinary {
		if err := s.retire(ctx, svc.Host()); err != nil {
			return nil, err
		}
	}
	if err := s.o.Cell.DestroyService(ctx, svc.ID()); err != nil {
		return nil, err
	}
	return empty(http.StatusNoContent)
}

// orNotFound puts a 404 into other words.
func orNotFound(err error, format string, args ...any) error {
	if e, ok := errors.AsType[*rest.Error](err); ok && e.Status == http.StatusNotFound {
		return notFound(format, args...)
	}
	return err
}

// retire takes a host without instances out of aggregates and lists.
func (s *Service) retire(ctx context.Context, host string) error {
	some, err := s.o.Cell.ListInstances(ctx, cell.InstanceQuery{Deleted: cell.LiveAndSoft, Match: map[string][]any{"host": {host}}, Limit: 1})
	if err != nil {
		return err
	}
	if len(some) > 0 {
		return conflict("Unable to delete compute service that is hosting instances. Migrate or delete the instances first.")
	}
	moves, err := s.o.Cell.Migrations(ctx, cell.MigrationQuery{Host: host, InProgress: true, Limit: 1})
	if err != nil {
		return err
	}
	if len(moves) > 0 {
		return conflict("Unable to delete compute service that has in-progress migrations. Complete the migrations or delete the instances first.")
	}
	nodes, err := s.o.Cell.ComputeNodes(ctx, cell.NodeQuery{Host: host})
	if err != nil {
		return err
	}
	errs := []error{s.exec(ctx, "DELETE FROM aggregate_hosts WHERE host = ?", host)}
	for _, n := range nodes {
		errs = append(errs, s.o.Cell.DestroyComputeNode(ctx, n.ID()))
	}
	return errors.Join(errs...)
}

func (s *Service) zoneList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	return s.zoneAnswer(ctx, false)
}

func (s *Service) zoneDetail(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := allow(r.Caller.Admin(), "os-availability-zone:detail"); err != nil {
		return nil, err
	}
	return s.zoneAnswer(ctx, true)
}

// zoneAnswer lists the zones: those with an enabled service are available.
func (s *Service) zoneAnswer(ctx context.Context, detail bool) (*rest.Response, error) {
	all, zones, err := s.services(ctx, cell.ServiceQuery{})
	if err != nil {
		return nil, err
	}
	hosts, disabled := map[string]map[string]map[string]any{}, map[string]bool{}
	var names []string
	for _, svc := range all {
		zone := zoneOf(svc, zones)
		if svc.Disabled() {
			disabled[zone] = true
			continue
		}
		if hosts[zone] == nil {
			hosts[zone] = map[string]map[string]any{}
			names = append(names, zone)
		}
		if hosts[zone][svc.Host()] == nil {
			hosts[zone][svc.Host()] = map[string]any{}
		}
		hosts[zone][svc.Host()][svc.Binary()] = map[string]any{"available": state(svc) == "up", "active": true, "updated_at": micros(svc.LastSeenUp())}
	}
	views := []any{}
	add := func(zone string, available bool) {
		v := map[string]any{"zoneName": zone, "zoneState": map[string]bool{"available": available}, "hosts": nil}
		if detail && available {
			v["hosts"] = hosts[zone]
		}
		if detail || zone != internalZone {
			views = append(views, v)
		}
	}
	for _, zone := range names {
		add(zone, true)
	}
	for zone := range disabled {
		if hosts[zone] == nil {
			add(zone, false)
		}
	}
	return rest.OK(map[string]any{"availabilityZoneInfo": views})
}

// isNotFound reports whether a row is absent.
func isNotFound(err error) bool { return errors.Is(err, errdefs.ErrNotFound) }
