package conductor

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
)

// exact are the filters of InstanceList.get_by_filters that compare; others are
// regular expressions (nova/db/main/api.py, instance_get_all_by_filters_sort).
var exact = [...]string{
	"project_id", "user_id", "image_ref", "vm_state", "instance_type_id", "uuid", "host", "task_state", "locked",
}

// instancesByFilters is InstanceList.get_by_filters.
func (c *Conductor) instancesByFilters(ctx context.Context, in call) (any, error) {
	filters, ok := in.arg(0, "filters").(map[string]any)
	if !ok {
		return nil, builtin("ValueError", "filters is a %T", in.arg(0, "filters"))
	}
	attrs, given := in.attrs(5)
	if !given {
		attrs = []string{"info_cache", "security_groups", "metadata", "system_metadata"}
	}
	q := cell.InstanceQuery{Deleted: cell.LiveAndSoft, Match: map[string][]any{}, Regexp: map[string]string{}}
	if in.readsDeleted() {
		q.Deleted = cell.Everything
	}
	if !in.admin() {
		q.Match["project_id"] = []any{in.rc.ProjectID()}
	}
	soft, softGiven := filters["soft_deleted"].(bool)
	for name, v := range filters {
		switch {
		case name == "soft_deleted":
		case name == "deleted":
			deleted, _ := v.(bool)
			q.Deleted = endOf(deleted, soft, softGiven)
		case name == "hidden":
			q.Hidden, _ = v.(bool)
		case name == "changes-since":
			q.ChangedSince = timeOf(v)
		case name == "changes-before":
			q.ChangedBefore = timeOf(v)
		case slices.Contains(exact[:], name), name == "cleaned", isList(v):
			q.Match[name] = choice(v)
		default:
			if s, isText := v.(string); isText {
				q.Regexp[name] = s
			} else {
				q.Match[name] = choice(v)
			}
		}
	}
	return c.instances(ctx, q, attrs)
}

func endOf(deleted, soft, softGiven bool) cell.Deleted {
	switch {
	case deleted && softGiven && !soft:
		return cell.OnlyDeleted
	case deleted:
		return cell.Ended
	case soft:
		return cell.LiveAndSoft
	}
	return cell.Live
}

func isList(v any) bool { _, ok := v.([]any); return ok }

// choice are the values that a filter lets pass.
func choice(v any) []any {
	l, ok := v.([]any)
	if !ok {
		l = []any{v}
	}
	out := make([]any, 0, len(l))
	for _, e := range l {
		if n, isNumber := e.(json.Number); isNumber {
			i, _ := n.Int64()
			e = i
		}
		switch e.(type) {
		case nil, bool, string, int64:
			out = append(out, e)
		}
	}
	return out
}

func timeOf(v any) time.Time {
	o := objects.Object{}
	s, _ := v.(string)
	o.SetClean("t", s)
	return o.Time("t")
}

// texts is a text or a list of texts; nil when there is neither.
func texts(v any) []string {
	switch t := v.(type) {
	case string:
		return []string{t}
	case []any:
		out := make([]string, 0, len(t))
		for _, e := range t {
			if s, ok := e.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}
