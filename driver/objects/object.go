// Package objects is Nova's versioned objects as they stand on the wire.
//
// Every object is an Object: its name, the version it came with or is sent as,
// and its fields. Reading is tolerant: unknown fields of the same major version
// are kept and go out again unchanged. A field that is not set differs from one
// that is null. Typed views (Instance, Service, ComputeNode …), one file each
// and headed by the Nova file they follow, name the fields that gantry uses.
//
// Source: nova/objects/base.py and oslo_versionedobjects/base.py
// (NovaObjectSerializer, obj_to_primitive, obj_from_primitive).
//
// The package is a leaf: it imports no other package of ours except errdefs.
// Objects are not safe for concurrent change.
package objects

import (
	"encoding/json"
	"slices"
	"time"
)

// Namespace is the only object namespace that Nova uses.
const Namespace = "nova"

// Object is one versioned object.
//
// Values of fields are nil, bool, json.Number, string, *Object, []any or
// map[string]any, nested as on the wire. Object implements json.Marshaler and
// json.Unmarshaler with the primitive form of nova_object.*.
type Object struct {
	Name    string
	Version string

	fields  map[string]any
	changed map[string]struct{}
}

// Has reports whether the field is set, null included.
func (o *Object) Has(field string) bool {
	_, ok := o.fields[field]
	return ok
}

// IsNull reports whether the field is set to null or is not set.
func (o *Object) IsNull(field string) bool { return o.fields[field] == nil }

// Get returns the field's value, nil when it is null or not set.
func (o *Object) Get(field string) any { return o.fields[field] }

// Set sets the field and marks it as changed. Integers and floats become
// json.Number, time.Time becomes Nova's DateTime form, string slices and maps
// become their generic form, a view becomes its Object.
func (o *Object) Set(field string, value any) {
	o.SetClean(field, value)
	if o.changed == nil {
		o.changed = make(map[string]struct{})
	}
	o.changed[field] = struct{}{}
}

// SetClean sets the field without marking it.
func (o *Object) SetClean(field string, value any) {
	if o.fields == nil {
		o.fields = make(map[string]any)
	}
	o.fields[field] = generic(value)
}

// Unset removes the field and its mark.
func (o *Object) Unset(field string) {
	delete(o.fields, field)
	delete(o.changed, field)
}

// Changes returns the names of changed fields, sorted.
func (o *Object) Changes() []string {
	names := make([]string, 0, len(o.changed))
	for name := range o.changed {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ResetChanges clears all marks.
func (o *Object) ResetChanges() { o.changed = nil }

// Fields returns the names of the fields that are set, sorted.
func (o *Object) Fields() []string {
	names := make([]string, 0, len(o.fields))
	for name := range o.fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// String returns a string field, "" when null, not set or not a string.
func (o *Object) String(field string) string {
	s, _ := o.fields[field].(string)
	return s
}

// Int returns an integer field, 0 when null, not set or not an integer.
func (o *Object) Int(field string) int64 {
	n, _ := o.fields[field].(json.Number)
	i, err := n.Int64()
	if err != nil {
		f, _ := n.Float64()
		return int64(f)
	}
	return i
}

// Float returns a number field, 0 when null, not set or not a number.
func (o *Object) Float(field string) float64 {
	n, _ := o.fields[field].(json.Number)
	f, _ := n.Float64()
	return f
}

// Bool returns a boolean field, false when null or not set.
func (o *Object) Bool(field string) bool {
	b, _ := o.fields[field].(bool)
	return b
}

// Time returns a DateTime field, the zero time when null, not set or malformed.
func (o *Object) Time(field string) time.Time { return parseTime(o.String(field)) }

// Object returns a nested object, nil when null or not set.
func (o *Object) Object(field string) *Object {
	c, _ := o.fields[field].(*Object)
	return c
}

// Objects returns the elements of a nested list, whether the field holds a
// plain array of objects or a list object.
func (o *Object) Objects(field string) []*Object {
	switch v := o.fields[field].(type) {
	case *Object:
		return v.Objects("objects")
	case []any:
		out := make([]*Object, 0, len(v))
		for _, e := range v {
			if c, ok := e.(*Object); ok {
				out = append(out, c)
			}
		}
		return out
	}
	return nil
}

// Strings returns a string-to-string map field as a copy; null values become "".
func (o *Object) Strings(field string) map[string]string {
	m, _ := o.fields[field].(map[string]any)
	out := make(map[string]string, len(m))
	for k, v := range m {
		s, _ := v.(string)
		out[k] = s
	}
	return out
}

// Sparse returns a copy that holds only the named fields and the changed
// ones, which is enough for a save: conductor writes only what is changed.
func (o *Object) Sparse(keep ...string) *Object {
	out := &Object{Name: o.Name, Version: o.Version}
	for _, name := range keep {
		if v, ok := o.fields[name]; ok {
			out.SetClean(name, v)
		}
	}
	for name := range o.changed {
		out.Set(name, o.fields[name])
	}
	return out
}
