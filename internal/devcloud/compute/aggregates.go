package compute

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// zoneKey is the metadata of an aggregate that makes it an availability zone.
const zoneKey = "availability_zone"

// Names of zones: of hosts in no aggregate that is one, and of services that
// take no instances.
const (
	defaultZone  = "nova"
	internalZone = "internal"
)

// Aggregate is a set of hosts.
type Aggregate struct {
	ID         int64
	UUID, Name string
	// Hosts are in the order of their names.
	Hosts    []string
	Metadata map[string]string

	created string
	updated *string
}

// Zone is the availability zone that it is, or "".
func (a *Aggregate) Zone() string { return a.Metadata[zoneKey] }

func zoneName() schema.Keyword { return schema.OneOf(schema.ZoneName(), schema.Null()) }

func aggregateHostSchema(verb string) schema.Schema {
	return schema.Object(schema.Req(verb, schema.Object(schema.Req("host", schema.FQDN()...))...))
}

var (
	aggregateCreateSchema = schema.Object(schema.Req("aggregate", schema.Object(
		schema.Req("name", schema.Name()...), schema.Opt("availability_zone", zoneName()))...))
	aggregateUpdateSchema = schema.Object(schema.Req("aggregate", schema.Object(
		schema.Opt("name", schema.LooseName()...), schema.Opt("availability_zone", zoneName())).
		With(schema.OneOf(
			schema.Open(schema.Req("name")), schema.Open(schema.Req("availability_zone"))))...))
	aggregateActions = map[string]schema.Schema{
		"add_host":    aggregateHostSchema("add_host"),
		"remove_host": aggregateHostSchema("remove_host"),
		"set_metadata": schema.Object(schema.Req("set_metadata", schema.Object(
			schema.Req("metadata", schema.Metadata("null")...))...)),
	}
)

func (s *Service) aggregateRoutes() {
	s.handle("GET /v2.1/os-aggregates", s.aggregateList)
	s.handle("POST /v2.1/os-aggregates", s.aggregateCreate)
	s.handle("GET /v2.1/os-aggregates/{id}", s.aggregateShow)
	s.handle("PUT /v2.1/os-aggregates/{id}", s.aggregateUpdate)
	s.handle("DELETE /v2.1/os-aggregates/{id}", s.aggregateDelete)
	s.handle("POST /v2.1/os-aggregates/{id}/action", s.aggregateAction)
}

func (s *Service) aggregateList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := allow(r.Caller.Admin(), "os-aggregates:index"); err != nil {
		return nil, err
	}
	all, err := s.Aggregates(ctx)
	if err != nil {
		return nil, err
	}
	views := make([]any, len(all))
	for i, a := range all {
		views[i] = a.view(r)
	}
	return rest.OK(map[string]any{"aggregates": views})
}

func (s *Service) aggregateCreate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, aggregateCreateSchema)
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-aggregates:create"); err != nil {
		return nil, err
	}
	d = d.Dict("aggregate")
	a := &Aggregate{UUID: uuid.NewString(), Name: strings.TrimSpace(d.String("name")), Metadata: map[string]string{}, created: now()}
	if zone := strings.TrimSpace(d.String("availability_zone")); zone != "" {
		a.Metadata[zoneKey] = zone
	}
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "INSERT INTO aggregates (uuid, name, created_at) VALUES (?, ?, ?)", a.UUID, a.Name, a.created)
		if err != nil {
			return err
		}
		if a.ID, err = res.LastInsertId(); err != nil {
			return err
		}
		return setAggregateMetadata(ctx, tx, a.ID, a.Metadata, nil)
	})
	if err != nil {
		return nil, nameTaken(err, a.Name)
	}
	v := a.view(r)
	delete(v, "hosts")
	delete(v, "metadata")
	return rest.OK(map[string]any{"aggregate": v})
}

func nameTaken(err error, name string) error {
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return conflict("Aggregate %s already exists.", name)
	}
	return err
}

func (s *Service) aggregateShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := allow(r.Caller.Admin(), "os-aggregates:show"); err != nil {
		return nil, err
	}
	return s.aggregateAnswer(ctx, r)
}

func (s *Service) aggregateAnswer(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	a, err := s.aggregateOf(ctx, r)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"aggregate": a.view(r)})
}

func (s *Service) aggregateUpdate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, aggregateUpdateSchema)
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-aggregates:update"); err != nil {
		return nil, err
	}
	a, err := s.aggregateOf(ctx, r)
	if err != nil {
		return nil, err
	}
	d = d.Dict("aggregate")
	changes := map[string]string{}
	if d.Has("availability_zone") {
		changes[zoneKey] = d.String("availability_zone")
	}
	if why, err := s.zoneConflict(ctx, a, changes, a.Hosts, true); err != nil || why != "" {
		return nil, errors.Join(err, refusal(why, "Cannot update aggregate %d. Reason: %s.", a.ID))
	}
	if d.Has("name") {
		a.Name = strings.TrimSpace(d.String("name"))
	}
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "UPDATE aggregates SET name = ?, updated_at = ? WHERE id = ?", a.Name, now(), a.ID); err != nil {
			return err
		}
		return setAggregateMetadata(ctx, tx, a.ID, changes, nil)
	})
	if err != nil {
		return nil, nameTaken(err, a.Name)
	}
	return s.aggregateAnswer(ctx, r)
}

// refusal is a 400 with a reason, nil without one.
func refusal(why, format string, id int64) error {
	if why == "" {
		return nil
	}
	return badRequest(format, id, why)
}

func (s *Service) aggregateDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := allow(r.Caller.Admin(), "os-aggregates:delete"); err != nil {
		return nil, err
	}
	a, err := s.aggregateOf(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(a.Hosts) > 0 {
		return nil, badRequest("Cannot remove host from aggregate %d. Reason: Host aggregate is not empty.", a.ID)
	}
	if err := s.exec(ctx, "DELETE FROM aggregates WHERE id = ?", a.ID); err != nil {
		return nil, err
	}
	return empty(http.StatusOK)
}

func (s *Service) aggregateAction(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	name, d, err := action(r, func(name string) (schema.Schema, bool) {
		rules, ok := aggregateActions[name]
		return rules, ok
	})
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-aggregates:"+name); err != nil {
		return nil, err
	}
	a, err := s.aggregateOf(ctx, r)
	if err != nil {
		return nil, err
	}
	d = d.Dict(name)
	switch name {
	case "add_host":
		err = s.addHost(ctx, a, d.String("host"))
	case "remove_host":
		err = s.removeHost(ctx, a, d.String("host"))
	default:
		err = s.changeMetadata(ctx, a, d.Dict("metadata"))
	}
	if err != nil {
		return nil, err
	}
	return s.aggregateAnswer(ctx, r)
}

func (s *Service) addHost(ctx context.Context, a *Aggregate, host string) error {
	known, err := s.o.Cell.Services(ctx, cell.ServiceQuery{Host: host, Binary: computeBinary})
	if err != nil {
		return err
	}
	if len(known) == 0 {
		return notFound("Compute host %s could not be found.", host)
	}
	if slices.Contains(a.Hosts, host) {
		return conflict("Aggregate %d already has host %s.", a.ID, host)
	}
	if why, err := s.zoneConflict(ctx, a, a.Metadata, []string{host}, false); err != nil || why != "" {
		if why != "" {
			err = conflict("Cannot add host to aggregate %d. Reason: %s.", a.ID, why)
		}
		return err
	}
	if err := s.exec(ctx, "INSERT INTO aggregate_hosts (aggregate, host) VALUES (?, ?)", a.ID, host); err != nil {
		return err
	}
	s.mirror(ctx, a, host, true)
	return nil
}

// mirror tells placement whether a host is in an aggregate, as Nova does
// (nova/compute/api.py, AggregateAPI.add_host_to_aggregate): a failure is logged
// and no more, so that requests of members (a tenant's isolation) are answered
// by placement, too.
func (s *Service) mirror(ctx context.Context, a *Aggregate, host string, member bool) {
	nodes, err := s.o.Cell.ComputeNodes(ctx, cell.NodeQuery{Host: host})
	for _, n := range nodes {
		err = errors.Join(err, s.o.Placement.SetAggregate(ctx, n.UUID(), a.UUID, member))
	}
	if err != nil {
		s.log.Warn().Err(err).Str(logging.Host, host).Str("aggregate", a.UUID).Msg("placement does not know of an aggregate's host")
	}
}

func (s *Service) removeHost(ctx context.Context, a *Aggregate, host string) error {
	if !slices.Contains(a.Hosts, host) {
		return notFound("Cannot remove host %s in aggregate %d", host, a.ID)
	}
	if err := s.exec(ctx, "DELETE FROM aggregate_hosts WHERE aggregate = ? AND host = ?", a.ID, host); err != nil {
		return err
	}
	s.mirror(ctx, a, host, false)
	return nil
}

func (s *Service) changeMetadata(ctx context.Context, a *Aggregate, d *schema.Dict) error {
	set, gone := map[string]string{}, []string{}
	for _, k := range d.Keys {
		if d.Get(k) == nil {
			gone = append(gone, k)
		} else {
			set[k] = d.String(k)
		}
	}
	check := set
	if slices.Contains(gone, zoneKey) {
		check = map[string]string{zoneKey: ""}
	}
	if why, err := s.zoneConflict(ctx, a, check, a.Hosts, true); err != nil || why != "" {
		return errors.Join(err, refusal(why, "Cannot update metadata of aggregate %d. Reason: %s.", a.ID))
	}
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "UPDATE aggregates SET updated_at = ? WHERE id = ?", now(), a.ID); err != nil {
			return err
		}
		return setAggregateMetadata(ctx, tx, a.ID, set, gone)
	})
}

// zoneConflict says why hosts cannot come into the zone that changes name: they
// are in another one, or have instances, which would change their zone.
func (s *Service) zoneConflict(ctx context.Context, a *Aggregate, changes map[string]string, hosts []string, noInstances bool) (string, error) {
	zone, named := changes[zoneKey]
	if !named {
		return "", nil
	}
	if zone == "" {
		return fmt.Sprintf("Aggregate %s does not support empty named availability zone", a.Name), nil
	}
	all, err := s.Aggregates(ctx)
	if err != nil {
		return "", err
	}
	var others []any
	for _, b := range all {
		shares := slices.ContainsFunc(b.Hosts, func(h string) bool { return slices.Contains(hosts, h) })
		if b.ID != a.ID && b.Zone() != "" && b.Zone() != zone && shares {
			others = append(others, b.Zone())
		}
	}
	if len(others) > 0 {
		return "One or more hosts already in availability zone(s) " + schema.Repr(others), nil
	}
	if !noInstances || zone == a.Zone() || len(hosts) == 0 {
		return "", nil
	}
	in := make([]any, len(hosts))
	for i, h := range hosts {
		in[i] = h
	}
	some, err := s.o.Cell.ListInstances(ctx, cell.InstanceQuery{Deleted: cell.LiveAndSoft, Match: map[string][]any{"host": in}, Limit: 1})
	if err != nil || len(some) == 0 {
		return "", err
	}
	return "One or more hosts contain instances in this zone", nil
}

func (a *Aggregate) view(r *rest.Request) map[string]any {
	v := map[string]any{
		"id": a.ID, "name": a.Name, "hosts": a.Hosts, "metadata": a.Metadata, "availability_zone": nil,
		"created_at": a.created, "updated_at": a.updated, "deleted_at": nil, "deleted": false,
	}
	if a.Zone() != "" {
		v["availability_zone"] = a.Zone()
	}
	if r.Version.AtLeast(2, 41) {
		v["uuid"] = a.UUID
	}
	return v
}

func (s *Service) aggregateOf(ctx context.Context, r *rest.Request) (*Aggregate, error) {
	id, err := integer(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	all, err := s.Aggregates(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if a.ID == id {
			return a, nil
		}
	}
	return nil, notFound("Aggregate %s could not be found.", r.PathValue("id"))
}

// Aggregates are all aggregates, in the order in which they were made.
func (s *Store) Aggregates(ctx context.Context) (out []*Aggregate, err error) {
	err = s.rows(ctx, func(rows *sql.Rows) error {
		a := &Aggregate{}
		var hosts, metadata string
		if err := rows.Scan(&a.ID, &a.UUID, &a.Name, &a.created, &a.updated, &hosts, &metadata); err != nil {
			return err
		}
		if err := errors.Join(json.Unmarshal([]byte(hosts), &a.Hosts), json.Unmarshal([]byte(metadata), &a.Metadata)); err != nil {
			return fmt.Errorf("aggregate %d: %w: %w", a.ID, err, errdefs.ErrCorrupt)
		}
		out = append(out, a)
		return nil
	}, `SELECT id, uuid, name, created_at, updated_at,
		(SELECT json_group_array(h.host) FROM aggregate_hosts h WHERE h.aggregate = a.id),
		(SELECT json_group_object(m.name, m.value) FROM aggregate_metadata m WHERE m.aggregate = a.id)
		FROM aggregates a ORDER BY id`)
	return out, err
}

func setAggregateMetadata(ctx context.Context, tx *sql.Tx, id int64, set map[string]string, gone []string) error {
	for name, value := range set {
		if _, err := tx.ExecContext(ctx, "INSERT INTO aggregate_metadata (aggregate, name, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", id, name, value); err != nil {
			return err
		}
	}
	for _, name := range gone {
		if _, err := tx.ExecContext(ctx, "DELETE FROM aggregate_metadata WHERE aggregate = ? AND name = ?", id, name); err != nil {
			return err
		}
	}
	return nil
}
