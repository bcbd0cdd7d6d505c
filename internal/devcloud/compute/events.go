package compute

import (
	"context"
	"errors"
	"net/http"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// ExternalEvent is a word of another service about a server
// (nova/objects/external_event.py).
type ExternalEvent struct {
	// Name is for example "network-vif-plugged".
	Name     string
	ServerID string
	// Tag is the port, or "".
	Tag string
	// Status is completed, failed or in-progress.
	Status string
}

func (s *Service) eventRoutes() {
	s.handle("POST /v2.1/os-server-external-events", s.eventsCreate)
}

func eventsSchema(v rest.Version) schema.Schema {
	names := []any{"network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted"}
	for _, more := range []struct {
		minor int
		name  string
	}{{51, "volume-extended"}, {76, "power-update"}, {82, "accelerator-request-bound"}, {93, "volume-reimaged"}} {
		if v.AtLeast(2, more.minor) {
			names = append(names, more.name)
		}
	}
	return schema.Object(schema.Req("events", schema.Type("array"), schema.MinItems(1), schema.Items(schema.Object(
		schema.Req("server_uuid", schema.ID()...), schema.Req("name", schema.Type("string"), schema.Enum(names...)),
		schema.Opt("status", schema.Type("string"), schema.Enum("failed", "completed", "in-progress")),
		schema.Opt("tag", schema.Type("string"), schema.MaxLen(255)))...)))
}

func (s *Service) eventsCreate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, eventsSchema(r.Version))
	if err != nil {
		return nil, err
	}
	// Nova's rule is admin or a service's user, who is one here
	if err := allow(r.Caller.Admin() || r.Caller.Has("service"), "os-server-external-events:create"); err != nil {
		return nil, err
	}
	var events []ExternalEvent
	for _, one := range d.List("events") {
		e, _ := one.(*schema.Dict) // the schema says so
		status := e.String("status")
		if status == "" {
			status = "completed"
		}
		events = append(events, ExternalEvent{Name: e.String("name"), ServerID: e.String("server_uuid"), Tag: e.String("tag"), Status: status})
	}
	codes, err := s.deliver(ctx, requestContext(r), events)
	if err != nil {
		return nil, err
	}
	out, views := &rest.Response{Status: http.StatusOK}, make([]any, len(events))
	for n, one := range d.List("events") {
		e, _ := one.(*schema.Dict)
		v := map[string]any{"code": codes[n], "status": "completed"}
		for _, k := range []string{"server_uuid", "name", "tag"} {
			if e.Has(k) {
				v[k] = e.Get(k)
			}
		}
		if codes[n] != http.StatusOK {
			v["status"], out.Status = "failed", http.StatusMultiStatus
		}
		views[n] = v
	}
	out.Body = map[string]any{"events": views}
	return out, nil
}

// ServerExternalEvents tells compute hosts what another service of this cloud
// says of their servers. Events of servers that nobody knows are nothing.
func (s *Service) ServerExternalEvents(ctx context.Context, events []ExternalEvent) error {
	_, err := s.deliver(ctx, messaging.AdminContext(), events)
	return err
}

// deliver casts events to the hosts of their servers, one message for each host,
// and returns the code of each: 200, 400 without its tag, 404 for an unknown
// server and 422 for one without a host.
func (s *Service) deliver(ctx context.Context, rc messaging.RequestContext, events []ExternalEvent) ([]int, error) {
	codes, ids := make([]int, len(events)), []any{}
	for _, e := range events {
		ids = append(ids, e.ServerID)
	}
	all, err := s.o.Cell.ListInstances(ctx, cell.InstanceQuery{Deleted: cell.LiveAndSoft, Match: map[string][]any{"uuid": ids}})
	if err != nil {
		return nil, err
	}
	byID := make(map[string]objects.Instance, len(all))
	for _, i := range all {
		byID[i.UUID()] = i
	}
	type batch struct{ instances, events []*objects.Object }
	hosts := map[string]*batch{}
	for n, e := range events {
		i, known := byID[e.ServerID]
		switch {
		case !known:
			codes[n] = http.StatusNotFound
		case e.Tag == "" && (e.Name == "power-update" || e.Name == "accelerator-request-bound" || e.Name == "volume-reimaged"):
			codes[n] = http.StatusBadRequest
		case i.Host() == "":
			codes[n] = http.StatusUnprocessableEntity
		default:
			codes[n] = http.StatusOK
			b := hosts[i.Host()]
			if b == nil {
				b = &batch{}
				hosts[i.Host()] = b
			}
			b.instances, b.events = append(b.instances, i.Object), append(b.events, e.object())
		}
	}
	var errs []error
	for host, b := range hosts {
		t := messaging.Target{Topic: computeTopic, Server: host, Version: "6.0"}
		errs = append(errs, s.o.RPC.Cast(ctx, rc, t, "external_instance_event", map[string]any{"instances": b.instances, "events": b.events}))
	}
	return codes, errors.Join(errs...)
}

func (e ExternalEvent) object() *objects.Object {
	o := objects.New("InstanceExternalEvent")
	for field, v := range map[string]any{"instance_uuid": e.ServerID, "name": e.Name, "status": e.Status, "tag": orNil(e.Tag)} {
		o.Set(field, v)
	}
	return o
}
