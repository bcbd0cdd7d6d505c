package identity

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// record is something as the API shows it, without links.
type record map[string]any

func (r record) text(name string) string { s, _ := r[name].(string); return s }
func (r record) yes(name string) bool    { b, _ := r[name].(bool); return b }

// attr is one attribute of a noun, with a column of its name. Attributes that
// no noun knows are kept together in the column "extra".
type attr struct {
	name string
	rule rule
	// def is the value of a new one that says none.
	def any
	// fixed is what somebody is told who tries to change it, if it cannot be.
	fixed string
	// fixedStatus goes with it; 0 is 400.
	fixedStatus int
	// inner ones are not of the API: nobody sets or sees them.
	inner bool
}

// noun is a kind of thing with the usual five requests.
type noun struct {
	one, many string // "user", "users"
	table     string
	where     string // which rows of the table are of this kind
	label     string // "Could not find <label>: <id>."
	attrs     []attr
	also      map[string]rule // for attributes without a column
	required  []string
	filters   []string
	// unasked are filters of lists of all that do not name them.
	unasked url.Values
	// pass is a filter of its own.
	pass func(rec record, query url.Values) bool
	// known ones are no secret: 404 comes before 403.
	known bool
	// may allows what the default policies (see session.reads) do not.
	may func(who *session, verb, id string) bool
	// before is called in the transaction that makes, changes (old is what was)
	// or removes (now is nil) one; it refuses or completes.
	before func(ctx context.Context, tx *sql.Tx, who *session, old, now record) error
	// twice says what is told about one with a name that is taken.
	twice func(now record, fresh bool) error
	// show completes or hides attributes of the view.
	show func(v record)
	// ownID: whoever makes one may choose its id.
	ownID bool
	// password: it has one, which is not stored as it is said.
	password bool
	// withExtra: the answer to a change repeats the unknown attributes.
	withExtra bool
}

// shape is the rule for the body of a request.
func (n *noun) shape(fresh bool) rule {
	u := rule{types: []string{"object"}, props: map[string]rule{}}
	maps.Copy(u.props, n.also)
	for _, a := range n.attrs {
		if !a.inner {
			u.props[a.name] = a.rule
		}
	}
	if fresh {
		u.required = n.required
	}
	return u
}

func (n *noun) columns() string {
	names := make([]string, 0, len(n.attrs)+2)
	names = append(names, "id")
	for _, a := range n.attrs {
		names = append(names, a.name)
	}
	return strings.Join(append(names, "extra"), ", ")
}

// query reads the rows of a condition, by id.
func (n *noun) query(ctx context.Context, tx *sql.Tx, condition string, args ...any) (all []record, err error) {
	where := "1"
	if n.where != "" {
		where = n.where
	}
	if condition != "" {
		where += " AND (" + condition + ")"
	}
	rows, err := tx.QueryContext(ctx, "SELECT "+n.columns()+" FROM "+n.table+" WHERE "+where+" ORDER BY id", args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		r, err := n.scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

func (n *noun) scan(rows *sql.Rows) (record, error) {
	values := make([]any, len(n.attrs)+2)
	into := make([]any, len(values))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	r := record{}
	extra, _ := values[len(values)-1].(string)
	if err := json.Unmarshal([]byte(extra), &r); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", n.one, err, errdefs.ErrCorrupt)
	}
	r["id"] = values[0]
	for i, a := range n.attrs {
		v := values[i+1]
		switch a.rule.types[0] {
		case "boolean":
			if b, ok := v.(int64); ok {
				v = b != 0
			}
		case "array", "object":
			s, _ := v.(string)
			if err := json.Unmarshal([]byte(s), &v); err != nil {
				return nil, fmt.Errorf("%s: %w: %w", n.one, err, errdefs.ErrCorrupt)
			}
		}
		r[a.name] = v
	}
	return r, nil
}

// get reads one; 404 if there is none.
func (n *noun) get(ctx context.Context, tx *sql.Tx, id string) (record, error) {
	all, err := n.query(ctx, tx, "id = ?", id)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, notFound(n.label, id)
	}
	return all[0], nil
}

// row is the columns of a record.
func (n *noun) row(r record) ([]any, error) {
	extra := maps.Clone(r)
	delete(extra, "id")
	delete(extra, "links")
	values := []any{r["id"]}
	for _, a := range n.attrs {
		delete(extra, a.name)
		v := r[a.name]
		switch a.rule.types[0] {
		case "array", "object":
			b, err := json.Marshal(v)
			if err != nil {
				return nil, err
			}
			v = string(b)
		}
		values = append(values, v)
	}
	b, err := json.Marshal(extra)
	return append(values, string(b)), err
}

// create makes one of what was said, which shape let pass.
func (n *noun) create(ctx context.Context, tx *sql.Tx, who *session, said record) (record, error) {
	now := record{}
	for _, a := range n.attrs {
		now[a.name] = a.def
	}
	maps.Copy(now, said)
	if !n.ownID || now.text("id") == "" {
		now["id"] = newID()
	}
	if n.before != nil {
		if err := n.before(ctx, tx, who, nil, now); err != nil {
			return nil, err
		}
	}
	values, err := n.row(now)
	if err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO "+n.table+" ("+n.columns()+") VALUES (?"+strings.Repeat(", ?", len(values)-1)+")", values...)
	return now, err
}

// update changes one.
func (n *noun) update(ctx context.Context, tx *sql.Tx, who *session, id string, said record) (record, error) {
	old, err := n.get(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	for _, a := range n.attrs {
		if v, ok := said[a.name]; ok && a.fixed != "" && v != old[a.name] {
			if a.fixedStatus != 0 {
				return nil, rest.Errorf(a.fixedStatus, "%s", a.fixed)
			}
			return nil, invalid("%s", a.fixed)
		}
	}
	now := maps.Clone(old)
	maps.Copy(now, said)
	now["id"] = id
	if n.before != nil {
		if err := n.before(ctx, tx, who, old, now); err != nil {
			return nil, err
		}
	}
	values, err := n.row(now)
	if err != nil {
		return nil, err
	}
	set := strings.ReplaceAll(n.columns(), ", ", " = ?, ") + " = ?"
	_, err = tx.ExecContext(ctx, "UPDATE "+n.table+" SET "+set+" WHERE id = ?", append(values, id)...)
	return now, err
}

// remove deletes one.
func (n *noun) remove(ctx context.Context, tx *sql.Tx, who *session, id string) error {
	old, err := n.get(ctx, tx, id)
	if err != nil {
		return err
	}
	if n.before != nil {
		if err := n.before(ctx, tx, who, old, nil); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM "+n.table+" WHERE id = ?", id)
	return err
}

// newID is a UUID without dashes, as Keystone has them.
func newID() string { return strings.ReplaceAll(uuid.NewString(), "-", "") }
