package identity

import (
	"context"
	"database/sql"
	"net/http"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// endpointFilterRoutes restrict the catalogs of projects to endpoints, one by
// one (keystone/api/os_ep_filter.py). Groups of endpoints are left out.
func (s *Service) endpointFilterRoutes() {
	const project, endpoint = "/v3/OS-EP-FILTER/projects/{project}/endpoints", "/v3/OS-EP-FILTER/endpoints/{endpoint}/projects"
	s.handle("GET "+project, func(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
		if !who.reads() {
			return nil, denied("identity:list_endpoints_for_project")
		}
		if err := s.must(ctx, projects, r.PathValue("project")); err != nil {
			return nil, err
		}
		return s.list(ctx, r, endpoints, `id IN (SELECT endpoint_id FROM project_endpoints WHERE project_id = ?)`, r.PathValue("project"))
	})
	s.handle("GET "+endpoint, func(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
		if !who.reads() {
			return nil, denied("identity:list_projects_for_endpoint")
		}
		if err := s.must(ctx, endpoints, r.PathValue("endpoint")); err != nil {
			return nil, err
		}
		return s.list(ctx, r, projects, `id IN (SELECT project_id FROM project_endpoints WHERE endpoint_id = ?)`, r.PathValue("endpoint"))
	})
	s.handle("GET "+project+"/{endpoint}", s.filtering("check_endpoint_in_project", (*session).reads, s.db.Read, func(ctx context.Context, tx *sql.Tx, project, endpoint string) (int64, error) {
		var n int64
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM project_endpoints WHERE project_id = ? AND endpoint_id = ?`, project, endpoint).Scan(&n)
		return n, err
	}))
	s.handle("PUT "+project+"/{endpoint}", s.filtering("add_endpoint_to_project", isAdmin, s.change, func(ctx context.Context, tx *sql.Tx, project, endpoint string) (int64, error) {
		res, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO project_endpoints (project_id, endpoint_id) VALUES (?, ?)`, project, endpoint)
		if err != nil {
			return 0, err
		}
		n, err := res.RowsAffected()
		if err == nil && n == 0 {
			err = conflict("project_endpoint", "Duplicate entry")
		}
		return n, err
	}))
	s.handle("DELETE "+project+"/{endpoint}", s.filtering("remove_endpoint_from_project", isAdmin, s.change, func(ctx context.Context, tx *sql.Tx, project, endpoint string) (int64, error) {
		res, err := tx.ExecContext(ctx, `DELETE FROM project_endpoints WHERE project_id = ? AND endpoint_id = ?`, project, endpoint)
		if err != nil {
			return 0, err
		}
		return res.RowsAffected()
	}))
}

func isAdmin(who *session) bool { return who.Admin() }

// filtering is a request about one endpoint of one project. do returns how many
// there were.
func (s *Service) filtering(
	action string, may func(*session) bool, within func(context.Context, func(*sql.Tx) error) error,
	do func(ctx context.Context, tx *sql.Tx, project, endpoint string) (int64, error),
) handler {
	return func(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
		if !may(who) {
			return nil, denied("identity:" + action)
		}
		project, endpoint := r.PathValue("project"), r.PathValue("endpoint")
		err := within(ctx, func(tx *sql.Tx) error {
			if _, err := endpoints.get(ctx, tx, endpoint); err != nil {
				return err
			}
			if _, err := projects.get(ctx, tx, project); err != nil {
				return err
			}
			n, err := do(ctx, tx, project, endpoint)
			if err == nil && n == 0 {
				err = rest.Errorf(http.StatusNotFound, "Endpoint %s not found in project %s", endpoint, project)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		return rest.NoContent()
	}
}

// filterCatalog leaves the endpoints of a catalog that its project is restricted
// to, and the services that have some.
func filterCatalog(ctx context.Context, tx *sql.Tx, project string, catalog []record) ([]record, error) {
	only, err := endpoints.query(ctx, tx, `id IN (SELECT endpoint_id FROM project_endpoints WHERE project_id = ?)`, project)
	if err != nil || len(only) == 0 {
		return catalog, err
	}
	allowed := map[any]bool{}
	for _, e := range only {
		allowed[e["id"]] = true
	}
	left := []record{}
	for _, service := range catalog {
		list := []record{}
		all, _ := service["endpoints"].([]record)
		for _, e := range all {
			if allowed[e["id"]] {
				list = append(list, e)
			}
		}
		if len(list) > 0 {
			service["endpoints"] = list
			left = append(left, service)
		}
	}
	return left, nil
}
