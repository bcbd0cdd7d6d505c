package objects

import (
	"bytes"
	"encoding/json"
	"fmt"
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
)

// MarshalJSON returns the primitive.
func (o *Object) MarshalJSON() ([]byte, error) { return json.Marshal(o.primitive()) }

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

// Decode reads any JSON value; primitives of objects in it, at any depth,
// become *Object, numbers become json.Number.
func Decode(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("decode value: %w: %w", errdefs.ErrInvalid, err)
	}
	return hydrate(v)
}

func hydrate(v any) (any, error) {
	var err error
	switch t := v.(type) {
	case []any:
		for i := range t {
			if t[i], err = hydrate(t[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		if _, ok := t[keyName]; ok {
			return hydrateObject(t)
		}
		for k := range t {
			if t[k], err = hydrate(t[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func hydrateObject(p map[string]any) (*Object, error) {
	o := &Object{}
	o.Name, _ = p[keyName].(string)
	o.Version, _ = p[keyVersion].(string)
	space, _ := p[keySpace].(string)
	data, ok := p[keyData].(map[string]any)
	if o.Name == "" || o.Version == "" || space != Namespace || !ok {
		return nil, fmt.Errorf("decode object %q: malformed primitive: %w", o.Name, errdefs.ErrInvalid)
	}
	for k := range data {
		v, err := hydrate(data[k])
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
	case nil, bool, string, json.Number, *Object, []any, map[string]any:
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
	case []string:
		out := make([]any, len(t))
		for i := range t {
			out[i] = t[i]
		}
		return out
	case []*Object:
		out := make([]any, len(t))
		for i := range t {
			out[i] = t[i]
		}
		return out
	case map[string]string:
		out := make(map[string]any, len(t))
		for k, s := range t {
			out[k] = s
		}
		return out
	case interface{ Wire() *Object }:
		return t.Wire()
	}
	panic(fmt.Sprintf("objects: a %T cannot be a field", v))
}

func parseTime(s string) time.Time {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999", "2006-01-02 15:04:05.999999"} {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}
