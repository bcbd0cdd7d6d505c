package images

import (
	"context"
	"database/sql"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// selection is what a list is asked for.
type selection struct {
	where  []string
	args   []any
	order  string
	limit  int
	marker string
}

func (s *selection) and(condition string, args ...any) {
	s.where = append(s.where, "("+condition+")")
	s.args = append(s.args, args...)
}

func (s *Service) list(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	sel, err := selectImages(r.Caller, r.Params())
	if err != nil {
		return nil, err
	}
	var page []*Image
	err = s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		page, err = sel.read(ctx, tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	shown := make([]map[string]any, 0, len(page))
	for _, i := range page {
		shown = append(shown, i.view())
	}
	body := map[string]any{"images": shown, "schema": "/v2/schemas/images", "first": withQuery(r.URL.RawQuery, "")}
	if len(page) > 0 && len(page) == sel.limit {
		body["next"] = withQuery(r.URL.RawQuery, page[len(page)-1].ID)
	}
	return rest.OK(body)
}

// withQuery is the path of the page after a marker.
func withQuery(query, marker string) string {
	var names []string
	last := map[string]string{} // Glance makes a dict of them
	for pair := range strings.SplitSeq(query, "&") {
		one, err := url.ParseQuery(pair)
		if err != nil {
			continue
		}
		for name, values := range one {
			if _, seen := last[url.QueryEscape(name)]; !seen && name != "marker" {
				names = append(names, url.QueryEscape(name))
			}
			last[url.QueryEscape(name)] = url.QueryEscape(values[0])
		}
	}
	if marker != "" {
		names, last["marker"] = append(names, "marker"), marker
	}
	terms := make([]string, 0, len(names))
	for _, name := range names {
		terms = append(terms, name+"="+last[name])
	}
	if len(terms) == 0 {
		return "/v2/images"
	}
	return "/v2/images?" + strings.Join(terms, "&")
}

// read reads the page.
func (s *selection) read(ctx context.Context, tx *sql.Tx) ([]*Image, error) {
	all, err := query(ctx, tx, strings.Join(s.where, " AND "), s.order, s.args...)
	if err != nil {
		return nil, err
	}
	page, _, ok := rest.Page(all, func(i *Image) string { return i.ID }, s.marker, s.limit)
	if !ok {
		return nil, invalid("No image found with ID %s", s.marker)
	}
	return page, complete(ctx, tx, page)
}

// selectImages reads the query of a list.
func selectImages(who *rest.Caller, q url.Values) (*selection, error) {
	s := &selection{}
	var err error
	if s.limit, err = limit(q); err != nil {
		return nil, err
	}
	s.marker = q.Get("marker")
	if s.order, err = order(q); err != nil {
		return nil, err
	}
	if err := s.see(who, q); err != nil {
		return nil, err
	}
	for _, name := range []string{"os_hidden", "protected"} {
		v, asked := strings.ToLower(q.Get(name)), q.Has(name)
		if name == "os_hidden" && !asked {
			v, asked = "false", true
		}
		if !asked {
			continue
		}
		if v != "true" && v != "false" {
			return nil, invalid("Invalid value '%s' for '%s' filter. Valid values are 'true' or 'false'.", v, name)
		}
		s.and(name+" = ?", v == "true")
	}
	for _, tag := range q["tag"] {
		s.and("id IN (SELECT image_id FROM tags WHERE value = ?)", strings.TrimSpace(tag))
	}
	for name, values := range q {
		if err := s.filter(name, values[len(values)-1]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func limit(q url.Values) (int, error) {
	if !q.Has("limit") {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(q.Get("limit"))
	if err != nil {
		return 0, invalid("limit param must be an integer")
	}
	if n < 0 {
		return 0, invalid("limit param must be positive")
	}
	return min(n, maxLimit), nil
}

var sortable = []string{"name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at"}

// order makes ORDER BY of sort=name:asc,size or of sort_key and sort_dir.
func order(q url.Values) (string, error) {
	var keys, dirs []string
	if q.Has("sort") {
		if q.Has("sort_key") || q.Has("sort_dir") {
			return "", invalid("Old and new sorting syntax cannot be combined")
		}
		for one := range strings.SplitSeq(strings.TrimSpace(q.Get("sort")), ",") {
			key, dir, _ := strings.Cut(one, ":")
			if dir == "" {
				dir = "desc"
			}
			keys, dirs = append(keys, strings.TrimSpace(key)), append(dirs, strings.TrimSpace(dir))
		}
	} else {
		keys, dirs = q["sort_key"], q["sort_dir"]
		if len(dirs) > 1 && len(dirs) != len(keys) {
			return "", invalid("Number of sort dirs does not match the number of sort keys")
		}
	}
	if len(keys) == 0 {
		keys = []string{"created_at"}
	}
	if len(dirs) == 0 {
		dirs = []string{"desc"}
	}
	var terms []string
	for i, key := range keys {
		key = strings.TrimSpace(key)
		if !slices.Contains(sortable, key) {
			return "", invalid("Invalid sort key: %s. It must be one of the following: %s.", key, strings.Join(sortable, ", "))
		}
		dir := strings.TrimSpace(dirs[min(i, len(dirs)-1)])
		if dir != "asc" && dir != "desc" {
			return "", invalid("Invalid sort direction: %s", dir)
		}
		terms = append(terms, key+" "+dir)
	}
	last := strings.TrimSpace(dirs[len(dirs)-1])
	for _, key := range []string{"created_at", "id"} { // so that each has a place
		terms = append(terms, key+" "+last)
	}
	return strings.Join(terms, ", "), nil
}

// see leaves what the caller may see (glance.db.sqlalchemy.api.image_get_all).
func (s *selection) see(who *rest.Caller, q url.Values) error {
	visibility := q.Get("visibility")
	if visibility != "" && visibility != "all" && !slices.Contains(shownTo, visibility) {
		return invalid("Invalid visibility value: %s", visibility)
	}
	if q.Get("changes-since") != "" {
		return invalid("The \"changes-since\" filter is no longer available on v2.")
	}
	status := "accepted"
	if q.Has("member_status") {
		status = q.Get("member_status")
		if !slices.Contains([]string{"pending", "accepted", "rejected", "all"}, status) {
			return invalid("Invalid status: %s", status)
		}
	}
	if !who.Admin() {
		s.and(`visibility IN ('public', 'community') OR owner = ? OR visibility = 'shared' AND id IN
			(SELECT image_id FROM members WHERE member_id = ? AND (? = 'all' OR status = ?))`, who.ProjectID, who.ProjectID, status, status)
	}
	switch visibility {
	case "":
		s.and("owner = ? OR visibility != 'community'", who.ProjectID)
	case "all":
	default:
		s.and("visibility = ?", visibility)
	}
	return nil
}

var (
	notFilters = []string{"limit", "marker", "sort", "sort_key", "sort_dir", "tag", "visibility", "member_status", "os_hidden", "protected", "changes-since"}
	// withOperator may be "in:a,b" or "eq:a".
	withOperator = []string{"name", "id", "status", "container_format", "disk_format"}
	plain        = []string{"owner", "checksum", "os_hash_algo", "os_hash_value", "min_disk", "min_ram", "size", "virtual_size"}
	ranged       = []string{"size", "min_ram", "min_disk", "virtual_size"}
	comparisons  = map[string]string{"lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "eq": "=", "neq": "!="}
)

// filter adds the condition of one parameter.
func (s *selection) filter(name, value string) error {
	base := strings.TrimSuffix(strings.TrimSuffix(name, "_min"), "_max")
	switch {
	case slices.Contains(notFilters, name):
		return nil
	case base != name && slices.Contains(ranged, base):
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return invalid("Unable to filter on a range with a non-numeric value.")
		}
		if strings.HasSuffix(name, "_min") {
			s.and(base+" >= ?", n)
		} else {
			s.and(base+" <= ?", n)
		}
	case name == "created_at" || name == "updated_at":
		return s.filterTime(name, value)
	case slices.Contains(withOperator, name):
		return s.filterOperator(name, value)
	case slices.Contains(plain, name):
		s.and("CAST("+name+" AS TEXT) = ?", value)
	default:
		s.and("id IN (SELECT image_id FROM properties WHERE name = ? AND value = ?)", name, value)
	}
	return nil
}

func (s *selection) filterTime(name, value string) error {
	op, at, ok := strings.Cut(value, ":")
	if _, known := comparisons[op]; !ok || !known {
		op, at = "eq", value
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		t, err := time.Parse(layout, at)
		if err != nil {
			continue
		}
		// Glance keeps whole seconds
		s.and(name+" / 1000000 "+comparisons[op]+" ?", t.Unix())
		return nil
	}
	return invalid("Bad \"%s\" query filter format. Use ISO 8601 DateTime notation.", name)
}

func (s *selection) filterOperator(name, value string) error {
	op, rest, ok := strings.Cut(value, ":")
	switch {
	case !ok:
		s.and(name+" = ?", value)
	case op == "eq":
		s.and(name+" = ?", rest)
	case op == "in":
		list, err := splitQuoted(rest)
		if err != nil {
			return err
		}
		args := make([]any, len(list))
		for i, one := range list {
			args[i] = one
		}
		s.and(name+" IN (?"+strings.Repeat(", ?", len(args)-1)+")", args...)
	default:
		return invalid("Unable to filter by unknown operator '%s'.", op)
	}
	return nil
}

// splitQuoted splits at commas that are not in double quotes
// (glance.common.utils.split_filter_value_for_quotes).
func splitQuoted(s string) ([]string, error) {
	var list []string
	for {
		var one string
		if strings.HasPrefix(s, `"`) {
			end := strings.Index(s[1:], `"`)
			if end < 0 {
				return nil, badQuotes(s)
			}
			one, s = s[1:1+end], s[end+2:]
			if s != "" && !strings.HasPrefix(s, ",") {
				return nil, badQuotes(s)
			}
		} else {
			end := strings.IndexByte(s, ',')
			if end < 0 {
				end = len(s)
			}
			one, s = s[:end], s[end:]
			if strings.Contains(one, `"`) {
				return nil, badQuotes(one)
			}
		}
		list = append(list, one)
		if s == "" {
			return list, nil
		}
		s = s[1:]
	}
}

func badQuotes(s string) error {
	return invalid("Invalid filter value %s. The quote is not closed.", s)
}
