package identity

import (
	"context"
	"database/sql"
	"errors"
	"net/url"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// listed is a row of GET /v3/role_assignments.
type listed struct {
	assignment
	isDomain bool
	// through is the group that a user has it by, in effective lists.
	through string
	// prior is the role that implies it, in effective lists; empty is none.
	prior string
	// source is the project or domain that it is inherited from, in effective
	// lists; sourceIsDomain says which.
	source         string
	sourceIsDomain bool
	// names: of the actor and its domain, the target and its domain, the role.
	actorName, actorDomain, actorDomainName    sql.NullString
	targetName, targetDomain, targetDomainName sql.NullString
	roleName, roleDomain, roleDomainName       sql.NullString
}

// everyAssignment is what was assigned; eachEffective the same with groups
// replaced by their members and implied roles added.
const (
	everyAssignment = `SELECT user_id, group_id, project_id, role_id, NULL AS through, NULL AS prior, NULL AS source, 0 AS passed FROM grants
		UNION ALL SELECT user_id, group_id, project_id, role_id, NULL, NULL, NULL, 1 FROM inherited`
	eachEffective = `WITH RECURSIVE direct AS (
		SELECT user_id, project_id, role_id, NULL AS through, source FROM holding WHERE user_id IS NOT NULL
		UNION SELECT m.user_id, g.project_id, g.role_id, g.group_id, g.source FROM holding g JOIN members m ON m.group_id = g.group_id),
	held (user_id, project_id, role_id, through, prior, source) AS (
		SELECT user_id, project_id, role_id, through, NULL, source FROM direct
		UNION SELECT h.user_id, h.project_id, i.implied_id, h.through, h.role_id, h.source FROM implied i JOIN held h ON i.prior_id = h.role_id)
	SELECT user_id, NULL AS group_id, project_id, role_id, through, prior, source, source IS NOT NULL AS passed FROM held`
)

// below are the projects of the tree under a project or domain.
const below = `WITH RECURSIVE tree (id) AS (
	SELECT id FROM projects WHERE parent_id = ?4 UNION SELECT p.id FROM projects p JOIN tree ON p.parent_id = tree.id) SELECT id FROM tree`

func (s *Service) listAssignments(ctx context.Context, r *rest.Request, who *session) (*rest.Response, error) {
	q := r.Params()
	action := "identity:list_role_assignments"
	if flag(q, "include_subtree") {
		action += "_for_tree"
	}
	if !who.reads() {
		return nil, denied(action)
	}
	effective := flag(q, "effective")
	if err := checkAssignmentQuery(q, effective); err != nil {
		return nil, err
	}
	source := everyAssignment
	if effective {
		source = eachEffective
	}
	names := flag(q, "include_names")
	all := []record{}
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		list, err := queryAssignments(ctx, tx, source, q)
		for i := range list {
			all = append(all, list[i].view(r, names))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.OK(collection(r, "role_assignments", all))
}

// flag reads "?name", "?name=1" and "?name=true".
func flag(q url.Values, name string) bool {
	v, ok := q[name]
	return ok && truth(v[0])
}

func checkAssignmentQuery(q url.Values, effective bool) error {
	user, group := q.Get("user.id") != "", q.Get("group.id") != ""
	targets := 0
	for _, name := range []string{"scope.project.id", "scope.domain.id", "scope.system"} {
		if q.Get(name) != "" {
			targets++
		}
	}
	switch {
	case q.Get("scope.project.id") != "" && q.Get("scope.domain.id") != "":
		return invalid("Specify a domain or project, not both")
	case targets > 1:
		return invalid("Specify system or domain, not both")
	case flag(q, "include_subtree") && q.Get("scope.project.id") == "":
		return invalid("scope.project.id must be specified if include_subtree is also specified")
	case user && group:
		return invalid("Specify a user or group, not both")
	case effective && group:
		return invalid("Combining effective and group filter will always result in an empty list.")
	}
	return nil
}

func queryAssignments(ctx context.Context, tx *sql.Tx, source string, q url.Values) (all []listed, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT ifnull(a.user_id, ''), ifnull(a.group_id, ''), ifnull(a.project_id, ''), a.role_id, ifnull(a.through, ''), ifnull(a.prior, ''),
			ifnull(a.source, ''), ifnull(sp.is_domain, 0), a.passed,
			ifnull(u.name, g.name), ad.id, ad.name, p.name, pd.id, pd.name, ifnull(p.is_domain, 0), r.name, rd.id, rd.name
		FROM (`+source+`) a JOIN roles r ON r.id = a.role_id LEFT JOIN projects rd ON rd.id = r.domain_id
		LEFT JOIN users u ON u.id = a.user_id LEFT JOIN groups g ON g.id = a.group_id
		LEFT JOIN projects ad ON ad.id = ifnull(u.domain_id, g.domain_id)
		LEFT JOIN projects p ON p.id = a.project_id LEFT JOIN projects pd ON pd.id = p.domain_id
		LEFT JOIN projects sp ON sp.id = a.source
		WHERE ifnull(?1, a.user_id) IS a.user_id AND ifnull(?2, a.group_id) IS a.group_id AND ifnull(?3, a.role_id) = a.role_id
			AND (ifnull(?4, a.project_id) IS a.project_id OR ?7 AND a.project_id IN (`+below+`)) AND (?5 IS NULL OR a.project_id = ?5 AND p.is_domain) AND (?6 IS NULL OR a.project_id IS NULL)
			AND (?4 IS NULL OR NOT p.is_domain) AND (?8 IS NULL OR a.passed)
		ORDER BY a.user_id, a.group_id, a.project_id, a.role_id, a.passed`,
		null(q.Get("user.id")), null(q.Get("group.id")), null(q.Get("role.id")),
		null(q.Get("scope.project.id")), null(q.Get("scope.domain.id")), null(q.Get("scope.system")), flag(q, "include_subtree"),
		null(q.Get("scope.OS-INHERIT:inherited_to")))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var a listed
		if err := rows.Scan(&a.user, &a.group, &a.project, &a.role, &a.through, &a.prior, &a.source, &a.sourceIsDomain, &a.inherited, &a.actorName, &a.actorDomain, &a.actorDomainName,
			&a.targetName, &a.targetDomain, &a.targetDomainName, &a.isDomain, &a.roleName, &a.roleDomain, &a.roleDomainName); err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, rows.Err()
}

// view is the row as it is shown (keystone.api.role_assignments).
func (a *listed) view(r *rest.Request, names bool) record {
	named := func(id string, name, domain, domainName sql.NullString) record {
		v := record{"id": id}
		if names {
			v["name"] = name.String
			if domain.Valid {
				v["domain"] = record{"id": domain.String, "name": domainName.String}
			}
		}
		return v
	}
	v := record{"role": named(a.role, a.roleName, a.roleDomain, a.roleDomainName)}
	actors := "groups"
	if a.user != "" {
		actors = "users"
	}
	v[actors[:len(actors)-1]] = named(a.actor(), a.actorName, a.actorDomain, a.actorDomainName)
	at, scope := "/system", record{"system": record{"all": true}}
	switch {
	case a.project == "":
	case a.isDomain:
		at = "/domains/" + a.project
		scope = record{"domain": named(a.project, a.targetName, sql.NullString{}, sql.NullString{})}
	default:
		at = "/projects/" + a.project
		scope = record{"project": named(a.project, a.targetName, a.targetDomain, a.targetDomainName)}
	}
	given, holder := a.role, actors+"/"+a.actor()
	links := record{}
	if a.prior != "" {
		given = a.prior
		links["prior_role"] = base(r) + "/prior_role/" + a.role + "/implies/" + a.prior
	}
	if a.through != "" {
		holder = "groups/" + a.through
		links["membership"] = base(r) + "/groups/" + a.through + "/users/" + a.user
	}
	assigned := at + "/" + holder + "/roles/" + given
	if a.inherited {
		scope["OS-INHERIT:inherited_to"] = "projects"
	}
	switch {
	case a.source != "":
		above := "/projects/"
		if a.sourceIsDomain {
			above = "/domains/"
		}
		assigned = "/OS-INHERIT" + above + a.source + "/" + holder + "/roles/" + given + "/inherited_to_projects"
	case a.inherited:
		assigned = "/OS-INHERIT" + assigned + "/inherited_to_projects"
	}
	v["scope"] = scope
	links["assignment"] = base(r) + assigned
	v["links"] = links
	return v
}
