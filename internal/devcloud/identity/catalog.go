package identity

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

var services = &noun{
	one: "service", many: "services", table: "services", label: "service",
	attrs: []attr{
		{name: "type", rule: rule{types: []string{"string"}, min: 1, max: 255}},
		{name: "name", rule: name255, def: ""},
		{name: "enabled", rule: boolean, def: true},
	},
	required: []string{"type"},
	filters:  []string{"type", "name"},
	twice:    func(record, bool) error { return conflict("service", "Duplicate entry") },
}

var regions = &noun{
	one: "region", many: "regions", table: "regions", label: "region",
	attrs: []attr{
		{name: "description", rule: nullString, def: ""},
		{name: "parent_region_id", rule: nullString},
	},
	also:    map[string]rule{"id": {types: []string{"string"}, max: 255}},
	filters: []string{"parent_region_id"},
	ownID:   true,
	may:     func(_ *session, verb, _ string) bool { return verb == "get" || verb == "list" },
	before:  beforeRegion,
	twice:   func(now record, _ bool) error { return conflict("region", "Duplicate ID, "+now.text("id")+".") },
}

func beforeRegion(ctx context.Context, tx *sql.Tx, _ *session, old, now record) error {
	if now == nil {
		var used int
		err := tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM endpoints WHERE region_id = ?1) + (SELECT count(*) FROM regions WHERE parent_region_id = ?1)`, old["id"]).Scan(&used)
		if err == nil && used > 0 {
			err = forbidden("Unable to delete region %s because it or its child regions have associated endpoints.", old.text("id"))
		}
		return err
	}
	if now["description"] == nil {
		now["description"] = ""
	}
	for parent := now.text("parent_region_id"); parent != ""; {
		if parent == now.text("id") {
			return invalid("The specified parent region %s would create a circular region hierarchy.", now.text("parent_region_id"))
		}
		var up sql.NullString
		err := tx.QueryRowContext(ctx, `SELECT parent_region_id FROM regions WHERE id = ?`, parent).Scan(&up)
		if errors.Is(err, sql.ErrNoRows) {
			return notFound("region", parent)
		}
		if err != nil {
			return err
		}
		parent = up.String
	}
	if now.text("parent_region_id") == "" {
		now["parent_region_id"] = nil
	}
	return nil
}

var endpoints = &noun{
	one: "endpoint", many: "endpoints", table: "endpoints", label: "endpoint",
	attrs: []attr{
		{name: "interface", rule: rule{types: []string{"string"}, enum: []string{"admin", "internal", "public"}}},
		{name: "region_id", rule: nullString},
		{name: "service_id", rule: anyString},
		{name: "url", rule: rule{types: []string{"string"}, max: 225, pattern: urlShape}},
		{name: "enabled", rule: boolean, def: true},
	},
	required: []string{"interface", "service_id", "url"},
	filters:  []string{"interface", "service_id", "region_id"},
	known:    true,
	before:   beforeEndpoint,
	twice:    func(record, bool) error { return conflict("endpoint", "Duplicate entry") },
	show:     func(v record) { v["region"] = v["region_id"] },
}

func beforeEndpoint(ctx context.Context, tx *sql.Tx, _ *session, _, now record) error {
	if now == nil {
		return nil
	}
	if old, ok := now["region"]; ok { // the older name
		if now["region_id"] == nil {
			now["region_id"] = old
		}
		delete(now, "region")
	}
	if _, ok := urlFor(now.text("url"), ""); !ok {
		return invalid("Cannot create an endpoint with an invalid URL: %s.", now.text("url"))
	}
	if v := now["region_id"]; v != nil {
		id, _ := v.(string)
		if _, err := regions.get(ctx, tx, id); err != nil {
			return orExpecting(err, "endpoint region_id", "region table")
		}
	}
	if _, err := services.get(ctx, tx, now.text("service_id")); err != nil {
		return orExpecting(err, "endpoint service_id", "service table")
	}
	return nil
}

// orExpecting words that what a request names is absent.
func orExpecting(err error, attribute, target string) error {
	if e, ok := errors.AsType[*rest.Error](err); ok && e.Status == http.StatusNotFound || errors.Is(err, errdefs.ErrNotFound) {
		return expecting(attribute, target)
	}
	return err
}

// placeholder is a part of an endpoint's URL that is replaced: $(name)s, or
// %(name)s.
var placeholder = lazyregexp.New(`[$%]\(([^)]*)\)(s?)`)

// urlFor fills in the project; not ok if the URL has other places to fill in.
func urlFor(url, project string) (filled string, ok bool) {
	ok = true
	filled = placeholder.ReplaceAllStringFunc(url, func(place string) string {
		m := placeholder.FindStringSubmatch(place)
		if (m[1] != "tenant_id" && m[1] != "project_id") || m[2] != "s" {
			ok = false
		}
		return project
	})
	return filled, ok
}

// catalogFor is the catalog that a token shows: that of its project, and none
// without a scope.
func catalogFor(ctx context.Context, tx *sql.Tx, who *session) (any, error) {
	if !who.scoped() {
		return nil, nil
	}
	offered, err := services.query(ctx, tx, "enabled")
	if err != nil {
		return nil, err
	}
	at, err := endpoints.query(ctx, tx, "enabled")
	if err != nil {
		return nil, err
	}
	catalog := make([]record, 0, len(offered))
	for _, o := range offered {
		list := []record{}
		for _, e := range at {
			url, ok := urlFor(e.text("url"), who.ProjectID)
			if e["service_id"] != o["id"] || !ok || who.ProjectID == "" && strings.Contains(e.text("url"), "_id)s") {
				continue
			}
			list = append(list, record{"id": e["id"], "interface": e["interface"], "region": e["region_id"], "region_id": e["region_id"], "url": url})
		}
		catalog = append(catalog, record{"id": o["id"], "type": o["type"], "name": o["name"], "endpoints": list})
	}
	return filterCatalog(ctx, tx, who.ProjectID, catalog)
}

func (s *Service) getCatalog(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	if who.ProjectID == "" {
		return nil, forbidden("You are not authorized to perform the requested action.")
	}
	var catalog any
	err := s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		catalog, err = catalogFor(ctx, tx, who)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(record{"catalog": catalog, "links": record{"self": r.Base() + r.URL.Path}})
}
