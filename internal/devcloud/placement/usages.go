package placement

import (
	"database/sql"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

func showUsages(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	usages := resources{}
	err = o.each(func(rows *sql.Rows) error {
		var class string
		var used int64
		err := rows.Scan(&class, &used)
		usages[class] = used
		return err
	}, `SELECT i.class, coalesce((SELECT sum(used) FROM allocations a WHERE a.provider = i.provider AND a.class = i.class), 0)
		FROM inventories i WHERE i.provider = ?`, p.uuid)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"resource_provider_generation": p.generation, "usages": usages})
}

// totalUsages are those of a project, or of a user in it; from 1.38 on by type
// of consumer.
func totalUsages(o operation) (*rest.Response, error) {
	if err := o.knownParams(map[string]int{"project_id": 9, "user_id": 9, "consumer_type": 38}); err != nil {
		return nil, err
	}
	project, user := o.Params().Get("project_id"), o.Params().Get("user_id")
	if project == "" {
		return nil, badRequest("Invalid query string parameters: 'project_id' is a required property")
	}
	kind, column := o.Params().Get("consumer_type"), "coalesce(c.type, 'unknown')"
	if !o.Version.AtLeast(1, 38) || kind == "all" {
		column = "'all'"
	}
	where, args := " WHERE c.project = ?", []any{project}
	if user != "" {
		where, args = where+" AND c.user = ?", append(args, user)
	}
	if kind != "" && kind != "all" {
		where, args = where+" AND coalesce(c.type, 'unknown') = ?", append(args, kind)
	}
	byType := map[string]resources{}
	err := o.each(func(rows *sql.Rows) error {
		var kind, class string
		var used int64
		err := rows.Scan(&kind, &class, &used)
		if byType[kind] == nil {
			byType[kind] = resources{}
		}
		byType[kind][class] = used
		return err
	}, "SELECT "+column+" AS kind, a.class, sum(a.used) FROM allocations a JOIN consumers c ON c.uuid = a.consumer"+where+" GROUP BY kind, a.class", args...)
	if err != nil {
		return nil, err
	}
	if !o.Version.AtLeast(1, 38) {
		total := byType["all"]
		if total == nil {
			total = resources{}
		}
		return rest.OK(map[string]any{"usages": total})
	}
	err = o.each(func(rows *sql.Rows) error {
		var kind string
		var n int64
		err := rows.Scan(&kind, &n)
		if byType[kind] != nil {
			byType[kind]["consumer_count"] = n
		}
		return err
	}, "SELECT "+column+" AS kind, count(*) FROM consumers c"+where+" GROUP BY kind", args...)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"usages": byType})
}
