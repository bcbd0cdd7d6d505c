package placement

import (
	"context"
	"database/sql"
	_ "embed" // the schema and the standard names
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/devcloud/sqldb"
)

//go:embed schema.sql
var schema string

var microversions = rest.Microversions{
	Service: "placement", Min: rest.Version{Major: 1}, Max: rest.Version{Major: 1, Minor: 39},
}

// Options of a Service.
type Options struct {
	// Path of the database.
	Path string
	Auth rest.Authenticator
	Log  zerolog.Logger
}

// Service is the placement service. Its methods may be called concurrently.
type Service struct {
	db  *sqldb.DB
	api *rest.API
}

// New opens the service's state. Close it.
func New(ctx context.Context, o Options) (*Service, error) {
	db, err := sqldb.Open(ctx, o.Path, schema)
	if err != nil {
		return nil, err
	}
	s := &Service{db: db, api: rest.New(rest.Options{Style: style{}, Auth: o.Auth, Microversions: &microversions, Log: o.Log})}
	s.routes()
	return s, nil
}

// Close closes the state.
func (s *Service) Close() error { return s.db.Close() }

// Handler is the API.
func (s *Service) Handler() http.Handler { return s.api }

// An operation is one request within one transaction.
type operation struct {
	context.Context //nolint:containedctx // lives as long as the call that has it
	*rest.Request
	tx *sql.Tx
}

// handler runs in a transaction that is committed when it returns no error.
type handler func(o operation) (*rest.Response, error)

func (s *Service) routes() {
	s.api.HandleOpen("GET /{$}", home)
	for _, r := range []struct {
		pattern string
		since   int // minor version
		missing int // what an older version gets; 0 is 404
		h       handler
	}{
		{"GET /resource_providers", 0, 0, listProviders},
		{"POST /resource_providers", 0, 0, createProvider},
		{"GET /resource_providers/{uuid}", 0, 0, showProvider},
		{"PUT /resource_providers/{uuid}", 0, 0, updateProvider},
		{"DELETE /resource_providers/{uuid}", 0, 0, deleteProvider},
		{"GET /resource_providers/{uuid}/inventories", 0, 0, listInventories},
		{"PUT /resource_providers/{uuid}/inventories", 0, 0, replaceInventories},
		{"POST /resource_providers/{uuid}/inventories", 0, 0, createInventory},
		{"DELETE /resource_providers/{uuid}/inventories", 5, http.StatusMethodNotAllowed, deleteInventories},
		{"GET /resource_providers/{uuid}/inventories/{class}", 0, 0, showInventory},
		{"PUT /resource_providers/{uuid}/inventories/{class}", 0, 0, updateInventory},
		{"DELETE /resource_providers/{uuid}/inventories/{class}", 0, 0, deleteInventory},
		{"GET /resource_providers/{uuid}/usages", 0, 0, showUsages},
		{"GET /resource_providers/{uuid}/aggregates", 1, 0, showAggregates},
		{"PUT /resource_providers/{uuid}/aggregates", 1, 0, replaceAggregates},
		{"GET /resource_providers/{uuid}/traits", 6, 0, showProviderTraits},
		{"PUT /resource_providers/{uuid}/traits", 6, 0, replaceProviderTraits},
		{"DELETE /resource_providers/{uuid}/traits", 6, 0, deleteProviderTraits},
		{"GET /resource_providers/{uuid}/allocations", 0, 0, showProviderAllocations},
		{"GET /resource_classes", 2, 0, listClasses},
		{"POST /resource_classes", 2, 0, createClass},
		{"GET /resource_classes/{name}", 2, 0, showClass},
		{"PUT /resource_classes/{name}", 2, 0, updateClass},
		{"DELETE /resource_classes/{name}", 2, 0, deleteClass},
		{"GET /traits", 6, 0, listTraits},
		{"GET /traits/{name}", 6, 0, showTrait},
		{"PUT /traits/{name}", 6, 0, createTrait},
		{"DELETE /traits/{name}", 6, 0, deleteTrait},
		{"POST /allocations", 13, 0, replaceManyAllocations},
		{"GET /allocations/{consumer}", 0, 0, showAllocations},
		{"PUT /allocations/{consumer}", 0, 0, replaceAllocations},
		{"DELETE /allocations/{consumer}", 0, 0, deleteAllocations},
		{"GET /allocation_candidates", 10, 0, listCandidates},
		{"GET /usages", 9, 0, totalUsages},
		{"POST /reshaper", 30, 0, reshape},
	} {
		within := s.db.Write
		if r.pattern[:4] == "GET " {
			within = s.db.Read
		}
		s.api.Handle(r.pattern, func(ctx context.Context, req *rest.Request) (res *rest.Response, err error) {
			if !req.Version.AtLeast(1, r.since) {
				return nil, rest.Errorf(max(r.missing, http.StatusNotFound), "")
			}
			if err := allowed(req); err != nil {
				return nil, err
			}
			err = within(ctx, func(tx *sql.Tx) error {
				res, err = r.h(operation{ctx, req, tx})
				return err
			})
			if err == nil && req.Version.AtLeast(1, 15) && req.Method == http.MethodGet {
				fresh(res)
			}
			return res, err
		})
	}
}

// allowed is the policy: administrators and services. A member may read the
// usage of its project.
func allowed(r *rest.Request) error {
	c := r.Caller
	if c.Admin() || c.Has("service") || r.URL.Path == "/usages" && c.Has("reader") && c.ProjectID != "" && c.ProjectID == r.Params().Get("project_id") {
		return nil
	}
	return rest.Errorf(http.StatusForbidden, "Policy does not allow %s to be performed.", rule(r))
}

// rule is what Placement's policy calls a request.
func rule(r *rest.Request) string {
	verb := map[string]string{http.MethodPost: "create", http.MethodPut: "update", http.MethodDelete: "delete"}[r.Method]
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if verb == "" {
		if verb = "list"; len(parts)%2 == 0 {
			verb = "show"
		}
	}
	noun := parts[0]
	if len(parts) > 2 {
		noun += ":" + parts[2]
	}
	return "placement:" + noun + ":" + verb
}

// fresh marks an answer as not to be kept.
func fresh(res *rest.Response) {
	if res.Header == nil {
		res.Header = http.Header{}
	}
	res.Header.Set("Cache-Control", "no-cache")
	res.Header.Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
}

func home(context.Context, *rest.Request) (*rest.Response, error) {
	return rest.OK(map[string]any{"versions": []any{map[string]any{
		"id": "v" + microversions.Min.String(), "min_version": microversions.Min.String(), "max_version": microversions.Max.String(),
		"status": "CURRENT", "links": []any{map[string]string{"rel": "self", "href": ""}},
	}}})
}

// exec runs a statement of the operation.
func (o operation) exec(query string, args ...any) (changed int64, err error) {
	res, err := o.tx.ExecContext(o.Context, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// each calls scan for each row.
func (o operation) each(scan func(rows *sql.Rows) error, query string, args ...any) error {
	rows, err := o.tx.QueryContext(o.Context, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // after the last row: nothing
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// column returns the one text column of a query.
func (o operation) column(query string, args ...any) ([]string, error) {
	list := []string{} // never null in JSON
	err := o.each(func(rows *sql.Rows) error {
		var s string
		err := rows.Scan(&s)
		list = append(list, s)
		return err
	}, query, args...)
	return list, err
}

// has reports whether a query has a row.
func (o operation) has(query string, args ...any) (bool, error) {
	var yes bool
	err := o.tx.QueryRowContext(o.Context, "SELECT EXISTS ("+query+")", args...).Scan(&yes)
	return yes, err
}
