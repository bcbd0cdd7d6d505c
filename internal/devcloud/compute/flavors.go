package compute

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Flavor is a size. Sizes of memory and swap are in MiB, of disks in GiB.
type Flavor struct {
	// ID is the row, FlavorID what tenants know it by.
	ID                     int64
	FlavorID, Name         string
	MemoryMB, VCPUs        int
	RootGB, EphemeralGB    int
	SwapMB                 int
	RXTXFactor             float64
	Public, Disabled       bool
	Description            *string
	ExtraSpecs             map[string]string
	CreatedAt              time.Time
	UpdatedAt              *time.Time
	projectsWithAccessOnly []string
}

var (
	flavorID   = lazyregexp.New(`^[a-zA-Z0-9._-]([a-zA-Z0-9. _-]*[a-zA-Z0-9._-])?$`)
	rxtxFactor = lazyregexp.New(`^[0-9]+(\.[0-9]+)?$`)
)

const maxFlavorDescription = 65535

func flavorCreateSchema(v rest.Version) schema.Schema {
	fields := []schema.Field{
		schema.Req("name", schema.Name()...),
		schema.Opt("id", schema.Type("string", "number", "null"), schema.MinLen(1), schema.MaxLen(255),
			schema.Pattern(flavorID, "^(?! )[a-zA-Z0-9. _-]+(?<! )$")),
		schema.Req("ram", schema.Size(1)...),
		schema.Req("vcpus", schema.Size(1)...),
		schema.Req("disk", schema.Size(0)...),
		schema.Opt("OS-FLV-EXT-DATA:ephemeral", schema.Size(0)...),
		schema.Opt("swap", schema.Size(0)...),
		schema.Opt("rxtx_factor", schema.Type("number", "string"), schema.Pattern(rxtxFactor, rxtxFactor.String()), schema.Above()),
		schema.Opt("os-flavor-access:is_public", schema.Boolean()...),
	}
	if v.AtLeast(2, 55) {
		fields = append(fields, schema.Opt("description", schema.Description(maxFlavorDescription)...))
	}
	return schema.Object(schema.Req("flavor", schema.Object(fields...)...))
}

var flavorUpdateSchema = schema.Object(schema.Req("flavor", schema.Object(
	schema.Req("description", schema.Description(maxFlavorDescription)...))...))

// flavorSortKeys are the columns that lists may be sorted by.
var flavorSortKeys = []any{
	"created_at", "description", "disabled", "ephemeral_gb", "flavorid", "id", "is_public", "memory_mb", "name",
	"root_gb", "rxtx_factor", "swap", "updated_at", "vcpu_weight", "vcpus",
}

func (s *Service) flavorRoutes() {
	s.handle("GET /v2.1/flavors", s.flavorsBrief)
	s.handle("GET /v2.1/flavors/detail", s.flavorsDetail)
	s.handle("POST /v2.1/flavors", s.flavorCreate)
	s.handle("GET /v2.1/flavors/{id}", s.flavorShow)
	s.handle("PUT /v2.1/flavors/{id}", s.flavorUpdate)
	s.handle("DELETE /v2.1/flavors/{id}", s.flavorDelete)
	s.handle("POST /v2.1/flavors/{id}/action", s.flavorAction)
	s.handle("GET /v2.1/flavors/{id}/os-flavor-access", s.flavorAccess)
	s.flavorSpecRoutes()
}

func (s *Service) flavorsBrief(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	return s.flavorList(ctx, r, "flavors", func(p place, f *Flavor) any {
		v := map[string]any{"id": f.FlavorID, "name": f.Name, "links": p.links(f.FlavorID)}
		if r.Version.AtLeast(2, 55) {
			v["description"] = f.Description
		}
		return v
	})
}

func (s *Service) flavorsDetail(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	return s.flavorList(ctx, r, "flavors/detail", func(p place, f *Flavor) any { return flavorView(r, p, f) })
}

func (s *Service) flavorList(ctx context.Context, r *rest.Request, collection string, view func(place, *Flavor) any) (*rest.Response, error) {
	if err := queries(r, append(paging(),
		schema.Opt("is_public", schema.Params(schema.String())...),
		schema.Opt("minRam", schema.Params(schema.String())...),
		schema.Opt("minDisk", schema.Params(schema.String())...),
		schema.Opt("sort_key", schema.Params(schema.Schema{schema.Type("string"), schema.Enum(flavorSortKeys...)})...),
		schema.Opt("sort_dir", schema.Params(schema.Schema{schema.Type("string"), schema.Enum("asc", "desc")})...),
	)...); err != nil {
		return nil, err
	}
	where, args, err := flavorFilter(r)
	if err != nil {
		return nil, err
	}
	all, err := s.flavors(ctx, where+flavorOrder(r), args...)
	if err != nil {
		return nil, err
	}
	n := limit(r)
	marker := r.Params().Get("marker")
	page, _, ok := rest.Page(all, func(f *Flavor) string { return f.FlavorID }, marker, n)
	if !ok {
		return nil, badRequest("marker [%s] not found", marker)
	}
	p := at(r, "flavors")
	views := make([]any, len(page))
	for i, f := range page {
		views[i] = view(p, f)
	}
	out := map[string]any{"flavors": views}
	if next := at(r, collection).next(r, len(page), n, func() string { return page[len(page)-1].FlavorID }); next != nil {
		out["flavors_links"] = next
	}
	return rest.OK(out)
}

// flavorFilter is what of all flavors the caller may and wants to see.
func flavorFilter(r *rest.Request) (string, []any, error) {
	where, args := "WHERE 1", []any{}
	public := r.Params().Get("is_public")
	switch value, ok := schema.ParseBool(public); {
	case !r.Caller.Admin():
		where += " AND disabled = 0 AND (is_public = 1 OR EXISTS (SELECT 1 FROM flavor_projects p WHERE p.flavor = f.id AND p.project = ?))"
		args = append(args, r.Caller.ProjectID)
	case strings.EqualFold(public, "none"):
	case public == "":
		where += " AND is_public = 1"
	case ok:
		where += " AND is_public = ?"
		args = append(args, value)
	default:
		return "", nil, badRequest("Invalid is_public filter [%s]", public)
	}
	for _, least := range []struct{ param, column string }{{"minRam", "memory_mb"}, {"minDisk", "root_gb"}} {
		if !r.Params().Has(least.param) {
			continue
		}
		n, err := strconv.ParseInt(r.Params().Get(least.param), 10, 64)
		if err != nil {
			return "", nil, badRequest("Invalid %s filter [%s]", least.param, r.Params().Get(least.param))
		}
		where += " AND " + least.column + " >= ?"
		args = append(args, n)
	}
	return where, args, nil
}

func flavorOrder(r *rest.Request) string {
	key, dir := r.Params().Get("sort_key"), r.Params().Get("sort_dir")
	if !slices.Contains(flavorSortKeys, any(key)) || key == "vcpu_weight" {
		key = "flavorid"
	}
	if dir != "desc" {
		dir = "asc"
	}
	return " ORDER BY " + key + " " + dir + ", id " + dir
}

func (s *Service) flavorShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	f, err := s.callersFlavor(ctx, r)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"flavor": flavorView(r, at(r, "flavors"), f)})
}

func (s *Service) flavorCreate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, flavorCreateSchema(r.Version))
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-flavor-manage:create"); err != nil {
		return nil, err
	}
	d = d.Dict("flavor")
	f := &Flavor{
		FlavorID: d.String("id"), Name: strings.TrimSpace(d.String("name")),
		MemoryMB: d.Int("ram", 0), VCPUs: d.Int("vcpus", 0), RootGB: d.Int("disk", 0),
		EphemeralGB: d.Int("OS-FLV-EXT-DATA:ephemeral", 0), SwapMB: d.Int("swap", 0), RXTXFactor: 1,
		Public: d.Bool("os-flavor-access:is_public", true), ExtraSpecs: map[string]string{},
	}
	if d.Has("rxtx_factor") {
		if f.RXTXFactor, err = strconv.ParseFloat(d.String("rxtx_factor"), 32); err != nil {
			return nil, badRequest("Invalid input received: 'rxtx_factor' argument must be a float between 0 and 3.40282e+38")
		}
	}
	if r.Version.AtLeast(2, 55) {
		f.Description = d.Optional("description")
	}
	if err := s.AddFlavor(ctx, f); err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"flavor": flavorView(r, at(r, "flavors"), f)})
}

func (s *Service) flavorUpdate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if !r.Version.AtLeast(2, 55) {
		return nil, notFound("")
	}
	d, err := body(r, flavorUpdateSchema)
	if err != nil {
		return nil, err
	}
	if err := allow(r.Caller.Admin(), "os-flavor-manage:update"); err != nil {
		return nil, err
	}
	f, err := s.flavor(ctx, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	f.Description = d.Dict("flavor").Optional("description")
	if err := s.exec(ctx, "UPDATE flavors SET description = ?, updated_at = ? WHERE id = ?", f.Description, now(), f.ID); err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"flavor": flavorView(r, at(r, "flavors"), f)})
}

func (s *Service) flavorDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := allow(r.Caller.Admin(), "os-flavor-manage:delete"); err != nil {
		return nil, err
	}
	f, err := s.flavor(ctx, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if err := s.exec(ctx, "DELETE FROM flavors WHERE id = ?", f.ID); err != nil {
		return nil, err
	}
	return empty(http.StatusAccepted)
}

// flavorView is a flavor in full.
func flavorView(r *rest.Request, p place, f *Flavor) map[string]any {
	v := map[string]any{
		"id": f.FlavorID, "name": f.Name, "ram": f.MemoryMB, "disk": f.RootGB, "vcpus": f.VCPUs, "swap": any(f.SwapMB),
		"OS-FLV-EXT-DATA:ephemeral": f.EphemeralGB, "OS-FLV-DISABLED:disabled": f.Disabled,
		"os-flavor-access:is_public": f.Public, "rxtx_factor": f.RXTXFactor, "links": p.links(f.FlavorID),
	}
	if f.SwapMB == 0 && !r.Version.AtLeast(2, 75) {
		v["swap"] = ""
	}
	if r.Version.AtLeast(2, 55) {
		v["description"] = f.Description
	}
	if r.Version.AtLeast(2, 61) {
		v["extra_specs"] = f.ExtraSpecs
	}
	return v
}

// callersFlavor is the flavor of the path if the caller may see it.
func (s *Service) callersFlavor(ctx context.Context, r *rest.Request) (*Flavor, error) {
	f, err := s.flavor(ctx, r.PathValue("id"))
	if err == nil && !f.open(r.Caller) {
		return nil, flavorNotFound(r.PathValue("id"))
	}
	return f, err
}

// open reports whether a caller may use it.
func (f *Flavor) open(c *rest.Caller) bool {
	return f.Public || c.Admin() || slices.Contains(f.projectsWithAccessOnly, c.ProjectID)
}

func flavorNotFound(id string) error { return notFound("Flavor %s could not be found.", id) }

// AddFlavor stores a flavor and gives it its row id; without FlavorID it gets a
// random one. A second one of that id or name is 409.
func (s *Store) AddFlavor(ctx context.Context, f *Flavor) error {
	if f.FlavorID == "" {
		f.FlavorID = uuid.NewString()
	}
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		var taken string
		err := tx.QueryRowContext(ctx, "SELECT 'ID' FROM flavors WHERE flavorid = ? UNION ALL SELECT 'name' FROM flavors WHERE name = ?", f.FlavorID, f.Name).Scan(&taken)
		switch {
		case err == nil && taken == "ID":
			return conflict("Flavor with ID %s already exists.", f.FlavorID)
		case err == nil:
			return conflict("Flavor with name %s already exists.", f.Name)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		res, err := tx.ExecContext(ctx, `INSERT INTO flavors (flavorid, name, memory_mb, vcpus, root_gb, ephemeral_gb, swap, rxtx_factor, is_public, disabled, description, created_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, f.FlavorID, f.Name, f.MemoryMB, f.VCPUs, f.RootGB, f.EphemeralGB, f.SwapMB, f.RXTXFactor, f.Public, f.Disabled, f.Description, now())
		if err != nil {
			return err
		}
		if f.ID, err = res.LastInsertId(); err != nil {
			return err
		}
		return setSpecs(ctx, tx, f.ID, f.ExtraSpecs)
	})
	if err != nil {
		return fmt.Errorf("add flavor %s: %w", f.Name, err)
	}
	return nil
}

// flavor finds a flavor by the id that tenants know.
func (s *Store) flavor(ctx context.Context, id string) (*Flavor, error) {
	all, err := s.flavors(ctx, "WHERE flavorid = ?", id)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, flavorNotFound(id)
	}
	return all[0], nil
}

// Flavors are all flavors, in the order of their ids.
func (s *Store) Flavors(ctx context.Context) ([]*Flavor, error) {
	return s.flavors(ctx, "ORDER BY flavorid")
}

// flavors are those that tail selects.
func (s *Store) flavors(ctx context.Context, tail string, args ...any) (out []*Flavor, err error) {
	err = s.rows(ctx, func(rows *sql.Rows) error {
		f := &Flavor{}
		var created, specs, projects string
		var updated *string
		if err := rows.Scan(&f.ID, &f.FlavorID, &f.Name, &f.MemoryMB, &f.VCPUs, &f.RootGB, &f.EphemeralGB, &f.SwapMB, &f.RXTXFactor,
			&f.Public, &f.Disabled, &f.Description, &created, &updated, &specs, &projects); err != nil {
			return err
		}
		if err := errors.Join(json.Unmarshal([]byte(specs), &f.ExtraSpecs), json.Unmarshal([]byte(projects), &f.projectsWithAccessOnly)); err != nil {
			return fmt.Errorf("flavor %s: %w: %w", f.FlavorID, err, errdefs.ErrCorrupt)
		}
		f.CreatedAt, f.UpdatedAt = parseTime(created), parseTimeOf(updated)
		out = append(out, f)
		return nil
	}, `SELECT id, flavorid, name, memory_mb, vcpus, root_gb, ephemeral_gb, swap, rxtx_factor, is_public, disabled, description, created_at, updated_at,
		(SELECT json_group_object(e.name, e.value) FROM flavor_specs e WHERE e.flavor = f.id),
		(SELECT json_group_array(p.project) FROM flavor_projects p WHERE p.flavor = f.id)
		FROM flavors f `+tail, args...)
	return out, err
}
