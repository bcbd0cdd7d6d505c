package objects

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	keyName    = "nova_object.name"
	keySpace   = "nova_object.namespace"
	keyVersion = "nova_object.version"
	keyData    = "nova_object.data"
	keyChanges = "nova_object.changes"

	timeForm = "2006-01-02T15:04:05Z"

	// maxBytes bounds one value. A list of 500 instances with full user data
	// is 40 MiB; RabbitMQ 4 refuses messages above 16 MiB by default.
	maxBytes = 64 << 20
	// maxDepth bounds nesting. The deepest object of the registry needs 20.
	maxDepth = 100
)

// MarshalJSON returns the primitive, null for a nil object.
func (o *Object) MarshalJSON() ([]byte, error) {
	if o == nil {
		return []byte("null"), nil
	}
	return json.Marshal(o.primitive())
}

func (o *Object) primitive() map[string]any {
	fields := o.fields
	if fields == nil {
		fields = map[string]any{}
	}
	p := map[string]any{keyName: o.Name, keySpace: Namespace, keyVersion: o.Version, keyData: fields}
	if len(o.changed) > 0 {
		p[keyChanges] = o.Changes()
	}
	return p
}

// UnmarshalJSON reads a primitive.
func (o *Object) UnmarshalJSON(raw []byte) error {
	v, err := Decode(raw)
	if err != nil {
		return err
	}
	got, ok := v.(*Object)
	if !ok {
		return fmt.Errorf("decode object: not a versioned object: %w", errdefs.ErrInvalid)
	}
	*o = *got
	return nil
}

// Decode reads one JSON value; primitives of objects in it, at any depth,
// become *Object, numbers become json.Number. Objects of any name and version
// are read; Check and the views say whether they can be used. Malformed input,
// text after the value, more than 64 MiB or more than 100 levels are
// errdefs.ErrInvalid.
func Decode(raw []byte) (any, error) {
	if len(raw) > maxBytes {
		return nil, fmt.Errorf("decode value: %d bytes: %w", len(raw), errdefs.ErrInvalid)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("decode value: %w: %w", errdefs.ErrInvalid, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("decode value: text after its end: %w", errdefs.ErrInvalid)
	}
	return hydrate(v, 0)
}

// hydrate turns primitives into objects. Keys of metadata, image properties
// and hints are a tenant's choice and may be any of ours; their values are
// text. Only a map whose data is a map is therefore an object, and every other
// map stays what it is.
func hydrate(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("decode value: more than %d levels: %w", maxDepth, errdefs.ErrInvalid)
	}
	var err error
	switch t := v.(type) {
	case []any:
		for i := range t {
			if t[i], err = hydrate(t[i], depth+1); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		if _, named := t[keyName]; named {
			if _, ok := t[keyData].(map[string]any); ok {
				return hydrateObject(t, depth)
			}
		}
		for k := range t {
			if t[k], err = hydrate(t[k], depth+1); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func hydrateObject(p map[string]any, depth int) (*Object, error) {
	o := &Object{}
	o.Name, _ = p[keyName].(string)
	o.Version, _ = p[keyVersion].(string)
	space, _ := p[keySpace].(string)
	data, ok := p[keyData].(map[string]any)
	if o.Name == "" || o.Version == "" || space != Namespace || !ok {
		return nil, fmt.Errorf("decode object %q: malformed primitive: %w", o.Name, errdefs.ErrInvalid)
	}
	for k := range data {
		v, err := hydrate(data[k], depth+2)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", o.Name, k, err)
		}
		data[k] = v
	}
	o.fields = data
	changes, _ := p[keyChanges].([]any)
	for _, c := range changes {
		name, ok := c.(string)
		if !ok {
			return nil, fmt.Errorf("decode object %q: malformed changes: %w", o.Name, errdefs.ErrInvalid)
		}
		if _, set := data[name]; !set {
			continue // Nova ignores a mark without a value
		}
		if o.changed == nil {
			o.changed = make(map[string]struct{}, len(changes))
		}
		o.changed[name] = struct{}{}
	}
	return o, nil
}

// generic brings a Go value into the form that Object keeps.
func generic(v any) any {
	switch t := v.(type) {
	case nil, bool, string, json.Number:
		return v
	case int:
		return json.Number(strconv.Itoa(t))
	case int64:
		return json.Number(strconv.FormatInt(t, 10))
	case float64:
		return json.Number(strconv.FormatFloat(t, 'g', -1, 64))
	case time.Time:
		if t.IsZero() {
			return nil
		}
		return t.UTC().Format(timeForm)
	case *Object:
		if t == nil {
			return nil
		}
		return t
	case interface{ Wire() *Object }:
		return generic(t.Wire())
	case []any:
		return list(t)
	case []string:
		return list(t)
	case []*Object:
		return list(t)
	case map[string]any:
		return dict(t)
	case map[string]string:
		return dict(t)
	}
	panic(fmt.Sprintf("objects: a %T cannot be a field", v))
}

func list[T any](in []T) []any {
	out := make([]any, len(in))
	for i := range in {
		out[i] = generic(in[i])
	}
	return out
}

func dict[T any](in map[string]T) map[string]any {
	out := make(map[string]any, len(in))
	for k, v := range in {
		out[k] = generic(v)
	}
	return out
}

func parseTime(s string) time.Time {
	forms := []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999", "2006-01-02 15:04:05.999999Z07:00", "2006-01-02 15:04:05.999999"}
	for _, form := range forms {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}
