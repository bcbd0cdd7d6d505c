package cell

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// table is one kind of object in the database.
type table struct {
	name, object string
	// columns are the fields that are columns too, beside id and data.
	columns []string
	// without are fields of the object that are kept elsewhere or by nobody.
	without []string
}

// column is a field's value as SQLite keeps it.
func column(o *objects.Object, field string) any {
	switch v := o.Get(field).(type) {
	case string:
		return v
	case bool:
		if v {
			return 1
		}
		return 0
	case json.Number:
		return o.Int(field)
	}
	return nil
}

// encode is the JSON of all fields but the id, which is a column.
func encode(o *objects.Object) (string, error) {
	fields := make(map[string]any, 64)
	for _, name := range o.Fields() {
		if name != "id" {
			fields[name] = o.Get(name)
		}
	}
	raw, err := json.Marshal(fields)
	return string(raw), err
}

// decode is the inverse of encode. It reads the fields as a primitive of the
// object, which spares a copy of them.
func decode(object string, id int64, data string) (*objects.Object, error) {
	schema, _ := objects.Lookup(object)
	o := &objects.Object{}
	err := o.UnmarshalJSON([]byte(`{"nova_object.namespace":"nova","nova_object.name":"` + object +
		`","nova_object.version":"` + schema.Version + `","nova_object.data":` + data + `}`))
	if err != nil {
		return nil, fmt.Errorf("%s %d: %w: %w", object, id, errdefs.ErrCorrupt, err)
	}
	o.SetClean("id", id)
	return o, nil
}

// complete sets every field of a row that is not set, and the time of creation,
// and clears the marks.
func (t table) complete(o *objects.Object) {
	schema, _ := objects.Lookup(o.Name)
	for _, f := range schema.Fields {
		if !o.Has(f.Name) {
			o.SetClean(f.Name, empty(f))
		}
	}
	if _, ok := schema.Field("created_at"); ok && o.IsNull("created_at") {
		o.SetClean("created_at", time.Now())
	}
	t.strip(o)
}

// strip leaves in o what belongs to the row, unmarked.
func (t table) strip(o *objects.Object) {
	for _, f := range t.without {
		o.Unset(f)
	}
	o.ResetChanges()
}

// empty is what a field is when nobody has said otherwise.
func empty(f objects.Field) any {
	switch {
	case f.Nullable:
		return nil
	case f.Type == "b", f.Type == "fb":
		return false
	case f.Type == "i", f.Type == "f":
		return 0
	case f.Type == "s":
		return ""
	case strings.HasPrefix(f.Type, "M["):
		return map[string]any{}
	case strings.HasPrefix(f.Type, "L["), strings.HasPrefix(f.Type, "set["):
		return []any{}
	case strings.HasSuffix(f.Type, "List") && strings.HasPrefix(f.Type, "O:"):
		l := objects.New(f.Object())
		l.SetClean("objects", []any{})
		return l
	}
	return nil
}

// insert stores o, completes it and gives it its id.
func (t table) insert(ctx context.Context, tx *sql.Tx, o *objects.Object) error {
	o.Unset("id")
	t.complete(o)
	data, err := encode(o)
	if err != nil {
		return err
	}
	names, marks, args := make([]string, 0, len(t.columns)), "", make([]any, 0, len(t.columns)+1)
	for _, c := range t.columns {
		names, args = append(names, `"`+c+`"`), append(args, column(o, c))
		marks += "?, "
	}
	res, err := tx.ExecContext(ctx, "INSERT INTO "+t.name+" ("+strings.Join(append(names, "data"), ", ")+") VALUES ("+marks+"?)", append(args, data)...)
	if err != nil {
		return err
	}
	id, err := res.LastInsertId()
	if err != nil {
		return err
	}
	o.SetClean("id", id)
	return nil
}

// update writes the whole of o over the row of its id.
func (t table) update(ctx context.Context, tx *sql.Tx, o *objects.Object) error {
	data, err := encode(o)
	if err != nil {
		return err
	}
	set, args := "", make([]any, 0, len(t.columns)+2)
	for _, c := range t.columns {
		set += `"` + c + `" = ?, `
		args = append(args, column(o, c))
	}
	_, err = tx.ExecContext(ctx, "UPDATE "+t.name+" SET "+set+"data = ? WHERE id = ?", append(args, data, o.Int("id"))...)
	return err
}

// list returns the rows that tail selects ("WHERE host = ? ORDER BY id"), in
// its order.
func (t table) list(ctx context.Context, tx *sql.Tx, tail string, args ...any) (out []*objects.Object, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT id, data FROM "+t.name+" "+tail, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err has said it all
	for rows.Next() {
		var id int64
		var data string
		if err := rows.Scan(&id, &data); err != nil {
			return nil, err
		}
		o, err := decode(t.object, id, data)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, rows.Err()
}

// one returns the first row that tail selects; sql.ErrNoRows if there is none.
func (t table) one(ctx context.Context, tx *sql.Tx, tail string, args ...any) (*objects.Object, error) {
	rows, err := t.list(ctx, tx, tail+" LIMIT 1", args...)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, sql.ErrNoRows
	}
	return rows[0], nil
}

// list is table.list in a transaction of its own.
func (s *Store) list(ctx context.Context, t table, tail string, args ...any) (out []*objects.Object, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		out, err = t.list(ctx, tx, tail, args...)
		return err
	})
	return out, err
}

// one is table.one in a transaction of its own.
func (s *Store) one(ctx context.Context, t table, tail string, args ...any) (out *objects.Object, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		out, err = t.one(ctx, tx, tail, args...)
		return err
	})
	return out, err
}

// insert stores a copy of o and returns it, complete.
func (s *Store) insert(ctx context.Context, t table, o *objects.Object) (*objects.Object, error) {
	o = o.Clone()
	err := s.db.Write(ctx, func(tx *sql.Tx) error { return t.insert(ctx, tx, o) })
	return o, err
}

// change reads the row that tail selects, lets f change it and writes it with
// the time of the change.
func (s *Store) change(ctx context.Context, t table, f func(*objects.Object) error, tail string, args ...any) (o *objects.Object, err error) {
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		if o, err = t.one(ctx, tx, tail, args...); err != nil {
			return err
		}
		if err := f(o); err != nil {
			return err
		}
		o.SetClean("updated_at", time.Now())
		t.strip(o)
		return t.update(ctx, tx, o)
	})
	return o, err
}

// remove deletes rows for good; none is success.
func (s *Store) remove(ctx context.Context, t table, where string, args ...any) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM "+t.name+" WHERE "+where, args...)
		return err
	})
}

// apply sets the fields of changes in o; objects.Object.Set says what values
// are good.
func apply(o *objects.Object, changes map[string]any) {
	for name, value := range changes {
		o.SetClean(name, value)
	}
}
