package compute

import (
	"context"
	"database/sql"
	"net/http"

	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

func flavorAccessSchema(action string) schema.Schema {
	return schema.Object(schema.Req(action, schema.Object(
		schema.Req("tenant", schema.Type("string"), schema.MinLen(1), schema.MaxLen(255)))...))
}

var (
	flavorSpecsSchema = schema.Object(schema.Req("extra_specs", schema.Metadata("number")...))
	flavorSpecSchema  = schema.Metadata("number").With(schema.MinProps(1), schema.MaxProps(1))
)

func (s *Service) flavorSpecRoutes() {
	s.handle("GET /v2.1/flavors/{id}/os-extra_specs", s.specsList)
	s.handle("POST /v2.1/flavors/{id}/os-extra_specs", s.specsCreate)
	s.handle("GET /v2.1/flavors/{id}/os-extra_specs/{key}", s.specShow)
	s.handle("PUT /v2.1/flavors/{id}/os-extra_specs/{key}", s.specUpdate)
	s.handle("DELETE /v2.1/flavors/{id}/os-extra_specs/{key}", s.specDelete)
}

// flavorAction opens and closes private flavors to projects.
func (s *Service) flavorAction(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	name, d, err := action(r, func(name string) (schema.Schema, bool) {
		return flavorAccessSchema(name), name == "addTenantAccess" || name == "removeTenantAccess"
	})
	if err != nil {
		return nil, err
	}
	add := name == "addTenantAccess"
	policy := "os-flavor-access:remove_tenant_access"
	if add {
		policy = "os-flavor-access:add_tenant_access"
	}
	if err := allow(r.Caller.Admin(), policy); err != nil {
		return nil, err
	}
	project := d.Dict(name).String("tenant")
	if add {
		if err := s.projectExists(ctx, r, project); err != nil {
			return nil, err
		}
	}
	f, err := s.flavor(ctx, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if add && f.Public && r.Version.AtLeast(2, 7) {
		return nil, conflict("Can not add access to a public flavor.")
	}
	if err := s.setAccess(ctx, f, project, add); err != nil {
		return nil, err
	}
	if f, err = s.flavor(ctx, r.PathValue("id")); err != nil {
		return nil, err
	}
	return rest.OK(accessView(f))
}

func (s *Service) setAccess(ctx context.Context, f *Flavor, project string, add bool) error {
	statement := "DELETE FROM flavor_projects WHERE flavor = ? AND project = ?"
	if add {
		statement = "INSERT INTO flavor_projects (flavor, project) VALUES (?, ?) ON CONFLICT DO NOTHING"
	}
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, statement, f.ID, project)
		if err != nil {
			return err
		}
		switch n, err := res.RowsAffected(); {
		case err != nil:
			return err
		case n == 0 && add:
			return conflict("Flavor access already exists for flavor %d and project %s combination.", f.ID, project)
		case n == 0:
			return notFound("Flavor access not found for %s / %s combination.", f.FlavorID, project)
		}
		return nil
	})
}

func (s *Service) flavorAccess(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := allow(r.Caller.Admin(), "os-flavor-access"); err != nil {
		return nil, err
	}
	f, err := s.flavor(ctx, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if f.Public {
		return nil, notFound("Access list not available for public flavors.")
	}
	return rest.OK(accessView(f))
}

func accessView(f *Flavor) any {
	list := make([]map[string]string, len(f.projectsWithAccessOnly))
	for i, p := range f.projectsWithAccessOnly {
		list[i] = map[string]string{"flavor_id": f.FlavorID, "tenant_id": p}
	}
	return map[string]any{"flavor_access": list}
}

func (s *Service) specsList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	f, err := s.callersFlavor(ctx, r)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"extra_specs": f.ExtraSpecs})
}

func (s *Service) specsCreate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, flavorSpecsSchema)
	if err != nil {
		return nil, err
	}
	specs := d.Dict("extra_specs").Strings()
	if err := s.writeSpecs(ctx, r, "create", specs); err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"extra_specs": specs})
}

func (s *Service) specUpdate(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	d, err := body(r, flavorSpecSchema)
	if err != nil {
		return nil, err
	}
	if !d.Has(r.PathValue("key")) && r.Caller.Admin() {
		return nil, badRequest("Request body and URI mismatch")
	}
	specs := d.Strings()
	if err := s.writeSpecs(ctx, r, "update", specs); err != nil {
		return nil, err
	}
	return rest.OK(specs)
}

func (s *Service) writeSpecs(ctx context.Context, r *rest.Request, verb string, specs map[string]string) error {
	if err := allow(r.Caller.Admin(), "os-flavor-extra-specs:"+verb); err != nil {
		return err
	}
	if r.Version.AtLeast(2, 86) {
		if err := checkSpecs(specs); err != nil {
			return err
		}
	}
	f, err := s.flavor(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		if err := setSpecs(ctx, tx, f.ID, specs); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE flavors SET updated_at = ? WHERE id = ?", now(), f.ID)
		return err
	})
}

// The keys that placement is asked with; gantry's hosts heed no others, and of
// those Nova's own checks are not repeated here.
var (
	resourceKey = lazyregexp.New(`^resources([a-zA-Z0-9_-]{1,64})?:`)
	traitKey    = lazyregexp.New(`^trait([a-zA-Z0-9_-]{1,64})?:`)
	class       = lazyregexp.New(`:[A-Z0-9_]+$`)
	numeric     = lazyregexp.New(`^[0-9]+$`)
)

// checkSpecs refuses keys and values that no host could ever fulfil
// (nova/api/validation/extra_specs).
func checkSpecs(specs map[string]string) error {
	for name, value := range specs {
		resource, trait := resourceKey.MatchString(name), traitKey.MatchString(name)
		switch {
		case (resource || trait) && !class.MatchString(name):
			return badRequest("Validation failed; extra spec '%s' does not appear to be a valid extra spec.", name)
		case resource && !numeric.MatchString(value):
			return badRequest("Validation failed; '%s' is not a valid integer", value)
		case trait && value != "required" && value != "forbidden":
			return badRequest("Validation failed; '%s' is not one of 'required', 'forbidden'", value)
		}
	}
	return nil
}

func (s *Service) specShow(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	f, err := s.callersFlavor(ctx, r)
	if err != nil {
		return nil, err
	}
	key := r.PathValue("key")
	v, ok := f.ExtraSpecs[key]
	if !ok {
		return nil, notFound("Flavor %s has no extra specs with key %s.", f.FlavorID, key)
	}
	return rest.OK(map[string]string{key: v})
}

func (s *Service) specDelete(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	if err := allow(r.Caller.Admin(), "os-flavor-extra-specs:delete"); err != nil {
		return nil, err
	}
	f, err := s.flavor(ctx, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	key := r.PathValue("key")
	if _, ok := f.ExtraSpecs[key]; !ok {
		return nil, notFound("Flavor %s has no extra specs with key %s.", f.FlavorID, key)
	}
	if err := s.exec(ctx, "DELETE FROM flavor_specs WHERE flavor = ? AND name = ?", f.ID, key); err != nil {
		return nil, err
	}
	return empty(http.StatusOK)
}

func setSpecs(ctx context.Context, tx *sql.Tx, flavor int64, specs map[string]string) error {
	for name, value := range specs {
		if _, err := tx.ExecContext(ctx, "INSERT INTO flavor_specs (flavor, name, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", flavor, name, value); err != nil {
			return err
		}
	}
	return nil
}
