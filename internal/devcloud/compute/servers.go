package compute

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// serverRoutes are those of servers and of what is below one.
func (s *Service) serverRoutes() {
	s.handle("GET /v2.1/servers", s.serverList)
	s.handle("GET /v2.1/servers/detail", s.serverDetail)
	s.handle("POST /v2.1/servers", s.serverCreate)
	s.handle("GET /v2.1/servers/{id}", s.serverShow)
	s.handle("PUT /v2.1/servers/{id}", s.serverUpdate)
	s.handle("DELETE /v2.1/servers/{id}", s.serverDelete)
	s.handle("POST /v2.1/servers/{id}/action", s.serverAction)
	s.metadataRoutes()
	s.tagRoutes()
	s.consoleRoutes()
	s.serverNetworkRoutes()
	s.serverMoreRoutes()
}

// server is the instance of the path, which the caller may see; 404 otherwise.
func (s *Service) server(ctx context.Context, r *rest.Request) (objects.Instance, error) {
	id := r.PathValue("id")
	i, err := s.o.Cell.Instance(ctx, id)
	if isNotFound(err) || err == nil && !r.Caller.Owns(i.ProjectID()) {
		return i, serverNotFound(id)
	}
	return i, err
}

// ownServer is server for somebody who wants to change it.
func (s *Service) ownServer(ctx context.Context, r *rest.Request, policy string) (objects.Instance, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return i, err
	}
	return i, allow(r.Caller.Member(), policy)
}

func serverNotFound(id string) error { return notFound("Instance %s could not be found.", id) }

func (s *Service) serverShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	return s.serverAnswer(ctx, r, i, true)
}

// serverAnswer shows one server.
func (s *Service) serverAnswer(ctx context.Context, r *rest.Request, i objects.Instance, all bool) (*rest.Response, error) {
	v, err := s.shown(ctx, r, i, all)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"server": v})
}

func (s *Service) shown(ctx context.Context, r *rest.Request, i objects.Instance, all bool) (*serverView, error) {
	v, err := s.viewer(ctx, r, all || r.Version.AtLeast(2, 75), i)
	if err != nil {
		return nil, err
	}
	v.all = all
	out := v.server(i)
	if r.Version.AtLeast(2, 71) {
		groups := []string{}
		g, err := s.GroupOf(ctx, i.UUID())
		if err != nil && !isNotFound(err) {
			return nil, err
		}
		if err == nil {
			groups = append(groups, g.UUID())
		}
		out.ServerGroups = &groups
	}
	return out, nil
}

func (s *Service) serverUpdate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, updateSchema(r.Version))
	if err != nil {
		return nil, err
	}
	i, err := s.ownServer(ctx, r, "servers:update")
	if err != nil {
		return nil, err
	}
	d = d.Dict("server")
	change := map[string]any{}
	for _, f := range []struct{ name, field string }{
		{"hostname", "hostname"}, {"accessIPv4", "access_ip_v4"}, {"accessIPv6", "access_ip_v6"},
	} {
		if d.Has(f.name) {
			change[f.field] = d.String(f.name)
		}
	}
	if d.Has("name") {
		change["display_name"] = strings.TrimSpace(d.String("name"))
	}
	if d.Has("description") {
		change["display_description"] = anyOf(d.Optional("description"))
	}
	if d.Has("OS-DCF:diskConfig") {
		change["auto_disk_config"] = d.String("OS-DCF:diskConfig") == "AUTO"
	}
	if len(change) > 0 {
		if i, err = s.o.Cell.SetInstance(ctx, i.UUID(), cell.Expect{}, change); err != nil {
			return nil, lost(err, i.UUID())
		}
	}
	return s.serverAnswer(ctx, r, i, false)
}

// lost makes a 404 of an instance that has gone meanwhile.
func lost(err error, id string) error {
	if isNotFound(err) {
		return serverNotFound(id)
	}
	return err
}

func (s *Service) serverDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	i, err := s.ownServer(ctx, r, "servers:delete")
	if err != nil {
		return nil, err
	}
	if err := unlocked(r, i); err != nil {
		return nil, err
	}
	if err := s.terminate(ctx, r, i); err != nil {
		return nil, err
	}
	return empty(http.StatusNoContent)
}

// unlocked refuses what is locked, but for administrators.
func unlocked(r *rest.Request, i objects.Instance) error {
	if i.Bool("locked") && !r.Caller.Admin() {
		return conflict("Instance %s is locked", i.UUID())
	}
	return nil
}

// terminate deletes an instance: its host does it, or the conductor when it has
// none, or a dead one. It is told once however often it is asked for.
func (s *Service) terminate(ctx context.Context, r *rest.Request, i objects.Instance) error {
	alive, err := s.hostAlive(ctx, i.Host())
	if err != nil {
		return err
	}
	was := ""
	i, err = s.o.Cell.UpdateInstance(ctx, i.UUID(), cell.Expect{}, func(row objects.Instance) error {
		was = row.TaskState()
		row.SetTaskState(taskDeleting)
		row.Set("progress", 0)
		return nil
	})
	switch {
	case isNotFound(err):
		return nil
	case err != nil:
		return err
	case alive && was == taskDeleting:
		return nil
	}
	if err := s.record(ctx, r, i, "delete"); err != nil {
		return err
	}
	s.dropShelf(ctx, r, i)
	if !alive {
		err := s.o.Tasks.DeleteUnhosted(ctx, requestContext(r), i.UUID())
		if !errors.Is(err, errdefs.ErrConflict) {
			return err
		}
		// a host has got it between two looks
		if i, err = s.o.Cell.Instance(ctx, i.UUID()); err != nil {
			return orNone(err)
		}
	}
	disks, err := s.o.Cell.BlockDevices(ctx, i.UUID())
	if err != nil {
		return err
	}
	return s.cast(ctx, r, i, "terminate_instance", "6.0", map[string]any{"bdms": objects.NewBlockDeviceMappingList(disks[i.UUID()]...)})
}

// orNone drops the error of an absent row.
func orNone(err error) error {
	if isNotFound(err) {
		return nil
	}
	return err
}

// hostAlive reports whether there is a host and it is up.
func (s *Service) hostAlive(ctx context.Context, host string) (bool, error) {
	if host == "" {
		return false, nil
	}
	all, err := s.o.Cell.Services(ctx, cell.ServiceQuery{Host: host, Binary: computeBinary})
	if err != nil || len(all) == 0 {
		return false, err
	}
	return cell.Up(all[0], time.Now()), nil
}

// record writes the action that begins, as Nova does before each cast.
func (s *Service) record(ctx context.Context, r *rest.Request, i objects.Instance, what string) error {
	_, err := s.o.Cell.StartAction(ctx, i.UUID(), cell.Actor{Action: what, RequestID: r.ID, UserID: r.Caller.UserID, ProjectID: r.Caller.ProjectID})
	if err != nil {
		return fmt.Errorf("record %s of %s: %w", what, i.UUID(), err)
	}
	return nil
}

// wrongState is the refusal of what an instance cannot do now.
func wrongState(verb string, i objects.Instance, attr, state string) error {
	if state == "" {
		state = "None"
	}
	return conflict("Cannot '%s' instance %s while it is in %s %s", verb, i.UUID(), attr, state)
}

// begin puts an instance into a task, if it still has one of the tasks that the
// verb may begin in.
func (s *Service) begin(ctx context.Context, i objects.Instance, verb string, from []string, change map[string]any) (objects.Instance, error) {
	i2, err := s.o.Cell.SetInstance(ctx, i.UUID(), cell.Expect{TaskState: from}, change)
	if e, ok := errors.AsType[*cell.StateError](err); ok {
		return i, wrongState(verb, i, e.Field, e.Actual)
	}
	return i2, lost(err, i.UUID())
}

// serverAction does what the one key of the body says.
func (s *Service) serverAction(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	v, err := document(r)
	if err != nil {
		return nil, err
	}
	d, ok := v.(*schema.Dict)
	if !ok || len(d.Keys) != 1 {
		return nil, badRequest("Malformed request body")
	}
	a, ok := s.actions[d.Keys[0]]
	if !ok {
		return nil, badRequest("There is no such action: %s", d.Keys[0])
	}
	if !a.in(r.Version) {
		return nil, notFound("")
	}
	if a.rules != nil {
		if refusal := a.rules(r.Version).Body(d); refusal != "" {
			return nil, badRequest("%s", refusal)
		}
	}
	i, err := s.server(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin() || !a.admin && r.Caller.Member(), a.policy); err != nil {
		return nil, err
	}
	if err := a.admits(r, i); err != nil {
		return nil, err
	}
	if err := a.may(i); err != nil {
		return nil, err
	}
	return a.run(ctx, r, i, d.Dict(d.Keys[0]))
}
