package compute

import (
	"context"
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// ignoredSortKeys may be sent and are not heeded, sortKeys are.
var (
	sortKeys = []any{
		"access_ip_v4", "access_ip_v6", "auto_disk_config", "availability_zone", "config_drive", "created_at",
		"display_description", "display_name", "host", "hostname", "image_ref", "instance_type_id", "kernel_id", "key_name",
		"launch_index", "launched_at", "locked_by", "node", "power_state", "progress", "project_id", "ramdisk_id",
		"root_device_name", "task_state", "terminated_at", "updated_at", "user_id", "uuid", "vm_state",
	}
	ignoredSortKeys = []any{
		"architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted", "deleted_at",
		"disable_terminate", "ephemeral_gb", "ephemeral_key_uuid", "id", "key_data", "launched_on", "locked", "memory_mb",
		"os_type", "reservation_id", "root_gb", "shutdown_terminate", "user_data", "vcpus", "vm_mode",
	}
)

// hiddenParams may be sent always.
var hiddenParams = lazyregexp.New("^_")

// Parameters of lists of servers: plain ones and those that are regular
// expressions.
var (
	plainParams = []string{
		"user_id", "project_id", "tenant_id", "launch_index", "image_ref", "image", "vm_state", "task_state", "host", "uuid",
		"sort_dir", "all_tenants", "soft_deleted", "deleted", "status", "marker",
		"block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices",
	}
	regexParams = []string{
		"kernel_id", "ramdisk_id", "hostname", "key_name", "power_state", "node", "flavor", "reservation_id", "launched_at",
		"terminated_at", "availability_zone", "name", "display_name", "description", "display_description", "locked_by",
		"root_device_name", "config_drive", "access_ip_v4", "access_ip_v6", "auto_disk_config", "progress", "ip", "ip6", "created_at",
	}
	joinedParams = []string{"block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices"}
	tagParams    = []string{"tags", "tags-any", "not-tags", "not-tags-any"}
)

func listSchema(v rest.Version) []schema.Field {
	keys := slices.Concat(sortKeys, ignoredSortKeys)
	fields := []schema.Field{
		schema.Opt("sort_key", schema.Params(schema.Schema{schema.Type("string"), schema.Enum(keys...)})...),
		schema.Opt("limit", schema.Params(schema.Natural())...),
		schema.Opt("changes-since", schema.Params(schema.Schema{schema.Type("string"), schema.Time()})...),
	}
	for _, name := range plainParams {
		fields = append(fields, schema.Opt(name, schema.Params(schema.String())...))
	}
	for _, name := range regexParams {
		fields = append(fields, schema.Opt(name, schema.Params(schema.Schema{schema.Type("string"), schema.Regex()})...))
	}
	if v.AtLeast(2, 26) {
		for _, name := range tagParams {
			fields = append(fields, schema.Opt(name, schema.Params(schema.Schema{schema.Type("string"), schema.Regex()})...))
		}
	}
	if v.AtLeast(2, 66) {
		fields = append(fields, schema.Opt("changes-before", schema.Params(schema.Schema{schema.Type("string"), schema.Time()})...))
	}
	if v.AtLeast(2, 73) {
		fields = append(fields, schema.Opt("locked", schema.Params(schema.Boolean())...))
	}
	return fields
}

// serverQuery is what a list of servers is to have.
type serverQuery struct {
	cell cell.InstanceQuery
	// flavor, ip and more are looked at after the rows were read.
	after []func(objects.Instance) bool
	// none says that nothing can fit.
	none bool
	n    int
}

func (s *Service) serverList(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	return s.listServers(ctx, r, "servers", "index", func(page []objects.Instance) (any, error) {
		p, views := at(r, "servers"), make([]any, len(page))
		for n, i := range page {
			views[n] = struct {
				ID    string `json:"id"`
				Name  string `json:"name"`
				Links []link `json:"links"`
			}{i.UUID(), i.DisplayName(), p.links(i.UUID())}
		}
		return views, nil
	})
}

func (s *Service) serverDetail(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	return s.listServers(ctx, r, "servers/detail", "detail", func(page []objects.Instance) (any, error) {
		v, err := s.viewer(ctx, r, true, page...)
		if err != nil {
			return nil, err
		}
		views := make([]*serverView, len(page))
		for n, i := range page {
			views[n] = v.server(i)
		}
		return views, nil
	})
}

func (s *Service) listServers(ctx context.Context, r *rest.Request, collection, policy string, views func([]objects.Instance) (any, error)) (*rest.Response, error) {
	rules := schema.Open(listSchema(r.Version)...)
	if r.Version.AtLeast(2, 75) {
		rules = schema.Ignoring(hiddenParams, listSchema(r.Version)...)
	}
	if err := query(r, rules); err != nil {
		return nil, err
	}
	q, err := s.serverQuery(ctx, r, policy)
	if err != nil {
		return nil, err
	}
	page, err := s.page(ctx, q)
	if err != nil {
		return nil, err
	}
	list, err := views(page)
	if err != nil {
		return nil, err
	}
	out := map[string]any{"servers": list}
	if next := at(r, collection).next(r, len(page), q.n, func() string { return page[len(page)-1].UUID() }); next != nil {
		out["servers_links"] = next
	}
	return rest.OK(out)
}

// page reads the instances of a query.
func (s *Service) page(ctx context.Context, q serverQuery) ([]objects.Instance, error) {
	if q.none || q.n == 0 {
		return nil, nil
	}
	if len(q.after) == 0 {
		q.cell.Limit = q.n // otherwise not all that is read is shown
	}
	all, err := s.o.Cell.ListInstances(ctx, q.cell)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return nil, badRequest("marker [%s] not found", q.cell.Marker)
	case errors.Is(err, errdefs.ErrInvalid):
		return nil, rest.Errorf(400, "").Because(err)
	case err != nil:
		return nil, err
	}
	if len(q.after) > 0 {
		all = slices.DeleteFunc(all, func(i objects.Instance) bool {
			return slices.ContainsFunc(q.after, func(fits func(objects.Instance) bool) bool { return !fits(i) })
		})
	}
	return all[:min(len(all), q.n)], nil
}

// userFilters are the filters that are not only for administrators.
func userFilters(v rest.Version) []string {
	out := []string{"reservation_id", "name", "status", "image", "flavor", "ip", "changes-since", "all_tenants"}
	if v.AtLeast(2, 5) {
		out = append(out, "ip6")
	}
	if v.AtLeast(2, 26) {
		out = append(out, tagParams...)
	}
	if v.AtLeast(2, 66) {
		out = append(out, "changes-before")
	}
	if v.AtLeast(2, 73) {
		out = append(out, "locked")
	}
	if v.AtLeast(2, 83) {
		out = append(out, "availability_zone", "config_drive", "key_name", "created_at", "launched_at", "terminated_at",
			"power_state", "task_state", "vm_state", "progress", "user_id")
	}
	if v.AtLeast(2, 90) {
		out = append(out, "hostname")
	}
	return out
}

// serverQuery makes a query of the parameters; those that the caller may not
// use, or that nobody knows, are not heeded.
func (s *Service) serverQuery(ctx context.Context, r *rest.Request, policy string) (serverQuery, error) {
	q := serverQuery{n: limit(r), cell: cell.InstanceQuery{
		Match: map[string][]any{}, Regexp: map[string]string{}, Deleted: cell.LiveAndSoft, Marker: r.Params().Get("marker"),
	}}
	params, allowed := map[string]string{}, userFilters(r.Version)
	for name, values := range r.Params() {
		if len(values) > 0 && (r.Caller.Admin() || slices.Contains(allowed, name)) {
			params[name] = values[len(values)-1]
		}
	}
	for _, name := range joinedParams {
		if _, ok := params[name]; ok {
			return q, badRequest("Invalid filter field: %s.", name)
		}
	}
	if err := q.scope(r, params, policy); err != nil {
		return q, err
	}
	if err := q.states(r, params, s.words); err != nil {
		return q, err
	}
	if err := q.times(params); err != nil {
		return q, err
	}
	if err := q.fields(params); err != nil {
		return q, err
	}
	if id, ok := params["flavor"]; ok {
		f, err := s.flavor(ctx, id)
		q.none = q.none || err != nil // unknown, or the list says so later
		if err == nil {
			q.cell.Match["instance_type_id"] = []any{f.ID}
		}
	}
	return q, q.order(r)
}

// scope is whose servers are listed.
func (q *serverQuery) scope(r *rest.Request, params map[string]string, policy string) error {
	all := false
	if v, ok := params["all_tenants"]; ok {
		all = v == ""
		if v != "" {
			known := false
			if all, known = schema.ParseBool(v); !known {
				return badRequest("Unrecognized value '%s', acceptable values are: '0', '1', 'f', 'false', 'n', 'no', 'off', 'on', 't', 'true', 'y', 'yes'", v)
			}
		}
	}
	if all {
		if err := allow(r.Caller.Admin(), "servers:"+policy+":get_all_tenants"); err != nil {
			return err
		}
		for _, name := range []string{"project_id", "tenant_id"} {
			if p := params[name]; p != "" {
				q.cell.Match["project_id"] = []any{p}
			}
		}
		return nil
	}
	q.cell.Match["project_id"] = []any{r.Caller.ProjectID}
	return nil
}

// states are the filters of status and of deleted servers.
func (q *serverQuery) states(r *rest.Request, params map[string]string, words stateWords) error {
	_, since := params["changes-since"]
	_, before := params["changes-before"]
	if since || before {
		q.cell.Deleted = cell.Everything
	}
	if v, ok := params["deleted"]; ok {
		q.cell.Deleted = cell.LiveAndSoft
		if yes, _ := schema.ParseBool(v); yes {
			q.cell.Deleted = cell.OnlyDeleted
		}
	}
	if v, ok := params["vm_state"]; ok {
		q.cell.Match["vm_state"] = []any{v}
	}
	if v, ok := params["task_state"]; ok {
		q.cell.Match["task_state"] = []any{v}
	}
	asked := r.Params()["status"]
	if len(asked) == 0 {
		return nil
	}
	vm, tasks := words.states(asked)
	if len(vm) == 0 {
		if r.Version.AtLeast(2, 38) {
			return badRequest("Invalid status value")
		}
		q.none = true
		return nil
	}
	q.cell.Match["vm_state"] = vm
	if tasks != nil {
		q.cell.Match["task_state"] = tasks
	}
	if len(vm) == 1 && vm[0] == vmDeleted {
		if !r.Caller.Admin() {
			return forbidden("Only administrators may list deleted instances")
		}
		q.cell.Deleted = cell.OnlyDeleted
	}
	return nil
}

func (q *serverQuery) times(params map[string]string) error {
	if v, ok := params["changes-since"]; ok {
		q.cell.ChangedSince, _ = schema.ParseTime(v) // the schema says so
	}
	if v, ok := params["changes-before"]; ok {
		q.cell.ChangedBefore, _ = schema.ParseTime(v)
		if !q.cell.ChangedSince.IsZero() && q.cell.ChangedBefore.Before(q.cell.ChangedSince) {
			return badRequest("The value of changes-since must be less than or equal to changes-before.")
		}
	}
	return nil
}

// fields are the filters on fields of instances.
func (q *serverQuery) fields(params map[string]string) error {
	names := map[string]string{"name": "display_name", "description": "display_description", "image": "image_ref"}
	for name, v := range params {
		column := name
		if other, ok := names[name]; ok {
			column = other
		}
		switch column {
		case "image_ref", "host", "uuid", "user_id":
			q.cell.Match[column] = []any{v}
		case "display_name", "display_description", "hostname", "key_name", "node", "reservation_id", "availability_zone", "kernel_id",
			"ramdisk_id", "root_device_name", "config_drive", "launched_at", "terminated_at", "created_at", "locked_by",
			"power_state", "progress", "launch_index", "access_ip_v4", "access_ip_v6":
			q.cell.Regexp[column] = v
		case "locked":
			yes, _ := schema.ParseBool(v)
			q.cell.Match["locked"] = []any{yes}
		case "ip", "ip6":
			fits, err := hasAddress(v, column == "ip6")
			if err != nil {
				return err
			}
			q.after = append(q.after, fits)
		case "tags":
			q.cell.Tags = strings.Split(v, ",")
		case "tags-any":
			q.cell.AnyTags = strings.Split(v, ",")
		case "not-tags":
			q.cell.NotTags = strings.Split(v, ",")
		case "not-tags-any":
			q.cell.NotAnyTags = strings.Split(v, ",")
		}
	}
	return nil
}

// hasAddress fits instances with a fixed or floating address that matches.
func hasAddress(expr string, v6 bool) (func(objects.Instance) bool, error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, badRequest("Invalid filter field: ip.")
	}
	matches := func(ip objects.VIFIP) bool {
		a, err := netip.ParseAddr(ip.Address)
		return err == nil && a.Is6() == v6 && re.MatchString(ip.Address)
	}
	return func(i objects.Instance) bool {
		info, err := i.NetworkInfo()
		if err != nil {
			return false
		}
		for _, vif := range info {
			for _, subnet := range vif.Network.Subnets {
				for _, ip := range subnet.IPs {
					if matches(ip) || slices.ContainsFunc(ip.FloatingIPs, matches) {
						return true
					}
				}
			}
		}
		return false
	}, nil
}

// order is what the list is sorted by.
func (q *serverQuery) order(r *rest.Request) error {
	keys, dirs := r.Params()["sort_key"], r.Params()["sort_dir"]
	for n, key := range keys {
		if slices.Contains(ignoredSortKeys, any(key)) && (key != "locked" || !r.Version.AtLeast(2, 73)) {
			continue
		}
		if (key == "host" || key == "node") && !r.Caller.Admin() {
			return forbidden("Only administrators can sort servers by %s", key)
		}
		dir := "asc"
		if n < len(dirs) {
			dir = dirs[n]
		} else if len(dirs) == 0 && n == 0 {
			dir = "desc"
		}
		if dir != "asc" && dir != "desc" {
			return badRequest("Unknown sort direction, must be 'desc' or 'asc'.")
		}
		q.cell.Sort = append(q.cell.Sort, cell.SortKey{Field: key, Descending: dir == "desc"})
	}
	if len(q.cell.Sort) == 0 && len(dirs) > 0 && dirs[0] == "asc" {
		q.cell.Sort = []cell.SortKey{{Field: "created_at"}}
	}
	return nil
}
