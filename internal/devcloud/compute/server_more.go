package compute

import (
	"context"
	"errors"
	"net/http"

	"github.com/gantry-project/gantry/driver/metadata"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// serverMoreRoutes are the small things below a server.
func (s *Service) serverMoreRoutes() {
	s.handle("GET /v2.1/servers/{id}/os-instance-actions", s.actionList)
	s.handle("GET /v2.1/servers/{id}/os-instance-actions/{request}", s.actionShow)
	s.handle("GET /v2.1/servers/{id}/os-server-password", s.passwordShow)
	s.handle("DELETE /v2.1/servers/{id}/os-server-password", s.passwordClear)
	s.handle("GET /v2.1/servers/{id}/topology", s.topology)
	s.handle("GET /v2.1/servers/{id}/os-volume_attachments", s.volumeList)
	s.handle("POST /v2.1/servers/{id}/os-volume_attachments", s.volumeAttach)
	s.handle("GET /v2.1/servers/{id}/os-volume_attachments/{volume}", s.volumeMissing)
	s.handle("PUT /v2.1/servers/{id}/os-volume_attachments/{volume}", s.volumeMissing)
	s.handle("DELETE /v2.1/servers/{id}/os-volume_attachments/{volume}", s.volumeMissing)
	s.handle("GET /v2.1/servers/{id}/migrations", s.serverMigrations)
	s.handle("GET /v2.1/servers/{id}/migrations/{migration}", s.serverMigration)
	s.handle("DELETE /v2.1/servers/{id}/migrations/{migration}", s.serverMigration)
	s.handle("POST /v2.1/servers/{id}/migrations/{migration}/action", s.serverMigration)
	s.handle("GET /v2.1/os-migrations", s.migrationList)
}

// anyServer is server for what stays of a deleted one, from 2.21 on.
func (s *Service) anyServer(ctx context.Context, r *rest.Request) (objects.Instance, error) {
	if !r.Version.AtLeast(2, 21) {
		return s.server(ctx, r)
	}
	id := r.PathValue("id")
	i, err := s.o.Cell.AnyInstance(ctx, id)
	if isNotFound(err) || err == nil && !r.Caller.Owns(i.ProjectID()) {
		return i, serverNotFound(id)
	}
	return i, err
}

func (s *Service) actionList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	q, n, err := actionQuery(r)
	if err != nil {
		return nil, err
	}
	i, err := s.anyServer(ctx, r)
	if err != nil {
		return nil, err
	}
	all, err := s.o.Cell.Actions(ctx, i.UUID(), q)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, badRequest("Marker %s could not be found.", q.Marker)
	}
	if err != nil {
		return nil, err
	}
	views := make([]any, len(all))
	for k, a := range all {
		views[k] = actionView(r, a)
	}
	out := map[string]any{"instanceActions": views}
	if r.Version.AtLeast(2, 58) {
		p := at(r, "servers/"+i.UUID()+"/os-instance-actions")
		if next := p.next(r, len(all), n, func() string { return all[len(all)-1].String("request_id") }); next != nil {
			out["links"] = next
		}
	}
	return rest.OK(out)
}

func actionQuery(r *rest.Request) (cell.ActionQuery, int, error) {
	var q cell.ActionQuery
	if !r.Version.AtLeast(2, 58) {
		return q, pageSize, nil
	}
	instant := schema.Schema{schema.Type("string"), schema.Time()}
	fields := []schema.Field{
		schema.Opt("limit", schema.One(schema.Natural())...), schema.Opt("marker", schema.One(schema.String())...),
		schema.Opt("changes-since", schema.One(instant)...),
	}
	if r.Version.AtLeast(2, 66) {
		fields = append(fields, schema.Opt("changes-before", schema.One(instant)...))
	}
	if err := query(r, schema.Object(fields...)); err != nil {
		return q, 0, err
	}
	q.Limit, q.Marker = limit(r), r.Params().Get("marker")
	q.ChangedSince, _ = schema.ParseTime(r.Params().Get("changes-since")) // the schema says so
	q.ChangedBefore, _ = schema.ParseTime(r.Params().Get("changes-before"))
	if !q.ChangedBefore.IsZero() && q.ChangedBefore.Before(q.ChangedSince) {
		return q, 0, badRequest("The value of changes-since must be less than or equal to changes-before.")
	}
	return q, q.Limit, nil
}

func actionView(r *rest.Request, a *objects.Object) map[string]any {
	v := map[string]any{
		"action": a.Get("action"), "instance_uuid": a.Get("instance_uuid"), "request_id": a.Get("request_id"), "user_id": a.Get("user_id"),
		"project_id": a.Get("project_id"), "start_time": micros(a.Time("start_time")), "message": a.Get("message"),
	}
	if r.Version.AtLeast(2, 58) {
		changed := a.Time("updated_at")
		if changed.IsZero() {
			changed = a.Time("created_at")
		}
		v["updated_at"] = micros(changed)
	}
	return v
}

func (s *Service) actionShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.anyServer(ctx, r)
	if err != nil {
		return nil, err
	}
	id := r.PathValue("request")
	a, events, err := s.o.Cell.Action(ctx, i.UUID(), id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, notFound("Action %s not found", id)
	}
	if err != nil {
		return nil, err
	}
	v := actionView(r, a)
	if r.Caller.Admin() || r.Version.AtLeast(2, 51) {
		views := make([]any, len(events))
		for n, e := range events {
			views[n] = eventView(r, e, i)
		}
		v["events"] = views
	}
	return rest.OK(map[string]any{"instanceAction": v})
}

func eventView(r *rest.Request, e *objects.Object, i objects.Instance) map[string]any {
	v := map[string]any{
		"event": e.Get("event"), "start_time": micros(e.Time("start_time")), "finish_time": micros(e.Time("finish_time")), "result": e.Get("result"),
	}
	if r.Caller.Admin() {
		v["traceback"] = e.Get("traceback")
	}
	if r.Version.AtLeast(2, 62) {
		v["hostId"] = hostID(e.String("host"), i.ProjectID())
		if r.Caller.Admin() {
			v["host"] = e.Get("host")
		}
	}
	if r.Version.AtLeast(2, 84) && r.Caller.Admin() {
		v["details"] = e.Get("details")
	}
	return v
}

// passwordShow shows what the guest has left at the metadata service, or what
// its host has set, encrypted for the owner of the key pair.
func (s *Service) passwordShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]string{"password": metadata.Password(i)})
}

// passwordClear forgets it, in any state and task; the guest's stays as it is.
func (s *Service) passwordClear(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.ownServer(ctx, r, "os-server-password:clear")
	if err != nil {
		return nil, err
	}
	_, err = s.o.Cell.UpdateInstance(ctx, i.UUID(), cell.Expect{}, func(i objects.Instance) error {
		return metadata.PutPassword(i, "")
	})
	if err != nil {
		return nil, lost(err, i.UUID())
	}
	return empty(http.StatusNoContent)
}

func (s *Service) topology(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if !r.Version.AtLeast(2, 78) {
		return nil, notFound("")
	}
	if _, err := s.server(ctx, r); err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"nodes": []any{}, "pagesize_kb": nil})
}

func (s *Service) volumeList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if _, err := s.server(ctx, r); err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"volumeAttachments": []any{}})
}

func (s *Service) volumeAttach(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	fields := []schema.Field{
		schema.Req("volumeId", schema.ID()...), schema.Opt("device", schema.Type("string", "null"), schema.MaxLen(255)),
	}
	if r.Version.AtLeast(2, 49) {
		fields = append(fields, schema.Opt("tag", schema.Tag()...))
	}
	if r.Version.AtLeast(2, 79) {
		fields = append(fields, schema.Opt("delete_on_termination", schema.Boolean()...))
	}
	if _, err := body(r, schema.Object(schema.Req("volumeAttachment", schema.Object(fields...)...))); err != nil {
		return nil, err
	}
	if _, err := s.ownServer(ctx, r, "os-volumes-attachments:create"); err != nil {
		return nil, err
	}
	return nil, badRequest("Invalid volume: volumes are not supported by this cloud.")
}

func (s *Service) volumeMissing(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	return nil, notFound("Instance %s is not attached to volume %s", i.UUID(), r.PathValue("volume"))
}

// serverMigrations are those in progress: live ones, of which there are none.
func (s *Service) serverMigrations(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if !r.Version.AtLeast(2, 23) {
		return nil, notFound("")
	}
	if _, err := s.server(ctx, r); err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "servers:migrations:index"); err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"migrations": []any{}})
}

func (s *Service) serverMigration(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if !r.Version.AtLeast(2, 23) {
		return nil, notFound("")
	}
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "servers:migrations:show"); err != nil {
		return nil, err
	}
	return nil, notFound("In-progress live migration %s is not found for server %s.", r.PathValue("migration"), i.UUID())
}

func (s *Service) migrationList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	q, n, err := migrationQuery(r)
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-migrations:index"); err != nil {
		return nil, err
	}
	all, err := s.o.Cell.Migrations(ctx, q)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, badRequest("Marker %s could not be found.", q.Marker)
	}
	if err != nil {
		return nil, err
	}
	views := make([]any, len(all))
	for k, m := range all {
		views[k] = migrationView(r, m)
	}
	out := map[string]any{"migrations": views}
	if r.Version.AtLeast(2, 59) {
		if next := at(r, "os-migrations").next(r, len(all), n, func() string { return all[len(all)-1].String("uuid") }); next != nil {
			out["migrations_links"] = next
		}
	}
	return rest.OK(out)
}

func migrationQuery(r *rest.Request) (cell.MigrationQuery, int, error) {
	text := schema.Params(schema.String())
	fields := []schema.Field{}
	for _, name := range []string{"host", "status", "instance_uuid", "source_compute", "migration_type", "hidden"} {
		fields = append(fields, schema.Opt(name, text...))
	}
	pages := r.Version.AtLeast(2, 59)
	if pages {
		fields = append(append(fields, paging()...), schema.Opt("changes-since", schema.Params(schema.Schema{schema.Type("string"), schema.Time()})...))
	}
	if r.Version.AtLeast(2, 66) {
		fields = append(fields, schema.Opt("changes-before", schema.Params(schema.Schema{schema.Type("string"), schema.Time()})...))
	}
	if r.Version.AtLeast(2, 80) {
		fields = append(fields, schema.Opt("user_id", text...), schema.Opt("project_id", text...))
	}
	if err := queries(r, fields...); err != nil {
		return cell.MigrationQuery{}, 0, err
	}
	p := r.Params()
	q := cell.MigrationQuery{Host: p.Get("host"), Source: p.Get("source_compute"), Type: p.Get("migration_type"), InstanceUUID: p.Get("instance_uuid")}
	if status := p.Get("status"); status != "" {
		q.Statuses = []string{status}
	}
	if r.Version.AtLeast(2, 80) {
		q.UserID, q.ProjectID = p.Get("user_id"), p.Get("project_id")
	}
	if hidden, ok := schema.ParseBool(p.Get("hidden")); ok {
		q.Hidden = &hidden
	}
	if pages {
		q.Newest, q.Marker, q.Limit = true, p.Get("marker"), limit(r)
		q.ChangedSince, _ = schema.ParseTime(p.Get("changes-since")) // the schema says so
		q.ChangedBefore, _ = schema.ParseTime(p.Get("changes-before"))
	}
	return q, q.Limit, nil
}

func migrationView(r *rest.Request, m *objects.Object) map[string]any {
	v := map[string]any{}
	for _, f := range []string{
		"id", "source_node", "source_compute", "dest_node", "dest_compute", "dest_host", "status", "instance_uuid",
		"old_instance_type_id", "new_instance_type_id",
	} {
		v[f] = m.Get(f)
	}
	v["created_at"], v["updated_at"] = micros(m.Time("created_at")), micros(m.Time("updated_at"))
	if r.Version.AtLeast(2, 23) {
		v["migration_type"] = m.Get("migration_type")
	}
	if r.Version.AtLeast(2, 59) {
		v["uuid"] = m.Get("uuid")
	}
	if r.Version.AtLeast(2, 80) {
		v["user_id"], v["project_id"] = m.Get("user_id"), m.Get("project_id")
	}
	return v
}
