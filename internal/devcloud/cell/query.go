package cell

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Deleted says which instances a list has as to their end.
type Deleted int

const (
	// Live ones are neither deleted nor soft-deleted.
	Live Deleted = iota
	// LiveAndSoft ones are not deleted.
	LiveAndSoft
	// Ended ones are deleted or soft-deleted.
	Ended
	// OnlyDeleted ones are deleted for good.
	OnlyDeleted
	// Everything is no filter.
	Everything
)

// InstanceQuery selects instances. The zero value selects all live ones of all
// projects, newest first.
type InstanceQuery struct {
	Deleted Deleted
	// Match compares fields: each must have one of its values (string, bool,
	// int or int64; nil is null). No value at all selects nothing. Fields are
	// those of the Instance object that hold plain values.
	Match map[string][]any
	// Regexp compares fields with regular expressions, unanchored and without
	// regard to case. errdefs.ErrInvalid for what is none.
	Regexp map[string]string
	// Metadata are keys and values that must all be there.
	Metadata map[string]string
	// Tags must all be there, of AnyTags one; not all of NotTags, none of
	// NotAnyTags.
	Tags, AnyTags, NotTags, NotAnyTags []string
	// ChangedSince and ChangedBefore are inclusive; zero is no limit.
	ChangedSince, ChangedBefore time.Time
	// Hidden selects the hidden instances instead of the others.
	Hidden bool
	// Sort are fields, most significant first; created_at and id, in the
	// direction of the first, follow. Empty is newest first.
	Sort []SortKey
	// Marker is the uuid of the instance before the page, deleted or not; an
	// unknown one is errdefs.ErrNotFound.
	Marker string
	// Limit is the most that is returned; 0 is no limit.
	Limit int
}

// SortKey is a field of an instance and its direction.
type SortKey struct {
	Field      string
	Descending bool
}

// ListInstances returns the instances of a query in their order. Fields that
// no instance has are errdefs.ErrInvalid.
func (s *Store) ListInstances(ctx context.Context, q InstanceQuery) ([]objects.Instance, error) {
	b := &builder{}
	keys, err := q.sorted()
	if err == nil {
		err = b.filter(q)
	}
	patterns, compiled := q.patterns()
	if err = errors.Join(err, compiled); err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	var out []objects.Instance
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		if q.Marker != "" {
			marker, _, err := s.load(ctx, tx, q.Marker, "")
			if err != nil {
				return fmt.Errorf("marker %s: %w", q.Marker, err)
			}
			b.after(keys, marker)
		}
		tail := b.where() + " ORDER BY " + order(keys)
		if q.Limit > 0 && len(patterns) == 0 {
			tail += fmt.Sprintf(" LIMIT %d", q.Limit)
		}
		rows, err := s.loadAll(ctx, tx, tail, b.args)
		for _, o := range rows {
			if matches(o, patterns) && (q.Limit <= 0 || len(out) < q.Limit) {
				out = append(out, objects.Instance{Object: o})
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	return out, nil
}

// loadAll returns the shared objects of the rows that tail selects.
func (s *Store) loadAll(ctx context.Context, tx *sql.Tx, tail string, args []any) ([]*objects.Object, error) {
	rows, err := tx.QueryContext(ctx, "SELECT id, rev FROM instances"+tail, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err has said it all
	var ids []int64
	revs, found := map[int64]int64{}, map[int64]*objects.Object{}
	var missing []int64
	for rows.Next() {
		var id, rev int64
		if err := rows.Scan(&id, &rev); err != nil {
			return nil, err
		}
		ids, revs[id] = append(ids, id), rev
		if found[id] = s.memo.get(id, rev); found[id] == nil {
			missing = append(missing, id)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		loaded, err := instances.list(ctx, tx, "WHERE id IN (SELECT value FROM json_each(?))", array(missing))
		if err != nil {
			return nil, err
		}
		for _, o := range loaded {
			id := o.Int("id")
			found[id] = o
			s.memo.put(id, revs[id], o)
		}
	}
	out := make([]*objects.Object, len(ids))
	for n, id := range ids {
		out[n] = found[id]
	}
	return out, nil
}

// sorted returns the complete sort keys.
func (q InstanceQuery) sorted() ([]SortKey, error) {
	keys, down := slices.Clone(q.Sort), true
	if len(keys) > 0 {
		down = keys[0].Descending
	}
	for _, f := range []string{"created_at", "id"} {
		if !slices.ContainsFunc(keys, func(k SortKey) bool { return k.Field == f }) {
			keys = append(keys, SortKey{f, down})
		}
	}
	for _, k := range keys {
		if _, err := expression(k.Field); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func (q InstanceQuery) patterns() (map[string]*regexp.Regexp, error) {
	out := map[string]*regexp.Regexp{}
	for field, text := range q.Regexp {
		if _, err := expression(field); err != nil {
			return nil, err
		}
		re, err := regexp.Compile("(?i)" + text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", field, errdefs.ErrInvalid, err)
		}
		out[field] = re
	}
	return out, nil
}

func matches(o *objects.Object, patterns map[string]*regexp.Regexp) bool {
	for field, re := range patterns {
		v := o.Get(field)
		if b, ok := v.(bool); ok {
			v = column(o, field)
			_ = b
		}
		if v == nil || !re.MatchString(fmt.Sprint(v)) {
			return false
		}
	}
	return true
}

// expression is the SQL of a field that holds a plain value.
func expression(field string) (string, error) {
	if field == "id" || slices.Contains(instances.columns, field) {
		return field, nil
	}
	schema, _ := objects.Lookup("Instance")
	f, ok := schema.Field(field)
	if !ok || f.Object() != "" || strings.HasPrefix(f.Type, "M[") {
		return "", fmt.Errorf("no field %q to search: %w", field, errdefs.ErrInvalid)
	}
	return "json_extract(data, '$." + field + "')", nil
}

// builder collects the conditions of a query and their arguments.
type builder struct {
	conditions []string
	args       []any
}

func (b *builder) add(condition string, args ...any) {
	b.conditions = append(b.conditions, condition)
	b.args = append(b.args, args...)
}

func (b *builder) where() string {
	if len(b.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(b.conditions, " AND ")
}

const (
	hasTag  = "EXISTS (SELECT 1 FROM json_each(data, '$.tags.\"nova_object.data\".objects') t WHERE json_extract(t.value, '$.\"nova_object.data\".tag') IN (SELECT value FROM json_each(?)))"
	hasMeta = "EXISTS (SELECT 1 FROM json_each(data, '$.metadata') m WHERE m.key = ? AND m.value = ?)"
)

func (b *builder) filter(q InstanceQuery) error {
	switch q.Deleted {
	case Live:
		b.add("deleted = 0 AND vm_state IS NOT 'soft-delete'")
	case LiveAndSoft:
		b.add("deleted = 0")
	case Ended:
		b.add("(deleted = 1 OR vm_state = 'soft-delete')")
	case OnlyDeleted:
		b.add("deleted = 1")
	case Everything:
	}
	hidden := 0
	if q.Hidden {
		hidden = 1
	}
	b.add("hidden = ?", hidden)
	for _, field := range slices.Sorted(maps.Keys(q.Match)) {
		if err := b.match(field, q.Match[field]); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(q.Metadata)) {
		b.add(hasMeta, key, q.Metadata[key])
	}
	b.tags(q)
	if !q.ChangedSince.IsZero() {
		b.add("updated_at >= ?", stamp(q.ChangedSince))
	}
	if !q.ChangedBefore.IsZero() {
		b.add("updated_at <= ?", stamp(q.ChangedBefore))
	}
	return nil
}

func (b *builder) tags(q InstanceQuery) {
	for _, tag := range q.Tags {
		b.add(hasTag, array([]string{tag}))
	}
	if len(q.AnyTags) > 0 {
		b.add(hasTag, array(q.AnyTags))
	}
	if len(q.NotTags) > 0 {
		all := make([]string, len(q.NotTags))
		args := make([]any, len(q.NotTags))
		for i, tag := range q.NotTags {
			all[i], args[i] = hasTag, array([]string{tag})
		}
		b.add("NOT ("+strings.Join(all, " AND ")+")", args...)
	}
	if len(q.NotAnyTags) > 0 {
		b.add("NOT "+hasTag, array(q.NotAnyTags))
	}
}

func (b *builder) match(field string, values []any) error {
	e, err := expression(field)
	if err != nil {
		return err
	}
	choice := []string{"0"}
	var args []any
	var plain []any
	for _, v := range values {
		switch t := v.(type) {
		case nil:
			choice = append(choice, e+" IS NULL")
		case bool:
			choice = append(choice, e+" = "+map[bool]string{true: "1", false: "0"}[t])
		default:
			plain = append(plain, v)
		}
	}
	if len(plain) > 0 {
		choice, args = append(choice, e+" IN (SELECT value FROM json_each(?))"), append(args, array(plain))
	}
	b.add("("+strings.Join(choice, " OR ")+")", args...)
	return nil
}

// after keeps what comes behind the marker in the order of keys.
func (b *builder) after(keys []SortKey, marker *objects.Object) {
	var alternatives []string
	var args []any
	same, sameArgs := "", []any(nil)
	for _, k := range keys {
		e, _ := expression(k.Field) // sorted has checked it
		v := column(marker, k.Field)
		behind := e + " > ?"
		behindArgs := []any{v}
		switch {
		case v == nil && k.Descending:
			behind, behindArgs = "0", nil
		case v == nil:
			behind, behindArgs = e+" IS NOT NULL", nil
		case k.Descending:
			behind = "(" + e + " < ? OR " + e + " IS NULL)"
		}
		alternatives = append(alternatives, same+behind)
		args = append(append(args, sameArgs...), behindArgs...)
		same += e + " IS ? AND "
		sameArgs = append(sameArgs, v)
	}
	b.add("("+strings.Join(alternatives, " OR ")+")", args...)
}

func order(keys []SortKey) string {
	parts := make([]string, len(keys))
	for i, k := range keys {
		parts[i], _ = expression(k.Field) // sorted has checked it
		if k.Descending {
			parts[i] += " DESC"
		}
	}
	return strings.Join(parts, ", ")
}

// array is a JSON array for json_each.
func array[T any](values []T) string {
	raw, err := json.Marshal(values)
	if err != nil {
		return "[]" // no value here can do that
	}
	return string(raw)
}

// stamp is a time as it stands in columns.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// Usage is what instances take of a quota.
type Usage struct{ Instances, VCPUs, MemoryMB int64 }

// Usage counts what a project has, or a user in it unless that is empty.
// Soft-deleted instances are left out.
func (s *Store) Usage(ctx context.Context, project, user string) (u Usage, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		u, err = usage(ctx, tx, project, user)
		return err
	})
	return u, err
}

func usage(ctx context.Context, tx *sql.Tx, project, user string) (u Usage, err error) {
	err = tx.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(vcpus), 0), coalesce(sum(memory_mb), 0) FROM instances
		WHERE project_id = ? AND deleted = 0 AND vm_state IS NOT 'soft-delete' AND hidden = 0 AND (? = '' OR user_id = ?)`,
		project, user, user).Scan(&u.Instances, &u.VCPUs, &u.MemoryMB)
	return u, err
}
