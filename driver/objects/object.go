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
// zed.txt names every object of the registry with its version and fields; New
// and Manifest follow it. Text under a tenant's control cannot make an object:
// see hydrate.
//
// The package is a leaf: it imports no other package of ours except errdefs.
// Objects are not safe for concurrent change.
package objects

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Namespace is the only object namespace that Nova uses.
const Namespace = "nova"

// Object is one versioned object.
//
// Values of fields are nil, bool, json.Number, string, *Object, []any or
// map[string]any, nested as on the wire. Object implements json.Marshaler and
// json.Unmarshaler with the primitive form of nova_object.*. The methods that
// read a field work on a nil Object, which has none.
type Object struct {
	Name    string
	Version string

	fields  map[string]any
	changed map[string]struct{}
}

// get reads one field; a nil object has none.
func (o *Object) get(field string) (any, bool) {
	if o == nil {
		return nil, false
	}
	v, ok := o.fields[field]
	return v, ok
}

// Has reports whether the field is set, null included.
func (o *Object) Has(field string) bool {
	_, ok := o.get(field)
	return ok
}

// IsNull reports whether the field is set to null or is not set.
func (o *Object) IsNull(field string) bool { return o.Get(field) == nil }

// Get returns the field's value, nil when it is null or not set.
func (o *Object) Get(field string) any {
	v, _ := o.get(field)
	return v
}

// Set sets the field and marks it as changed. Integers and floats become
// json.Number, time.Time becomes Nova's DateTime form (the zero time null),
// string slices and maps become their generic form, a view becomes its Object
// and a nil object null. Any other type panics: it is a mistake in the program.
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

// Changes returns the names of changed fields, sorted. A change inside a nested
// object does not mark the field that holds it.
func (o *Object) Changes() []string {
	names := make([]string, 0, len(o.changed))
	for name := range o.changed {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ResetChanges clears all marks, those of nested objects too.
func (o *Object) ResetChanges() {
	o.changed = nil
	for _, v := range o.fields {
		resetMarks(v)
	}
}

func resetMarks(v any) {
	switch t := v.(type) {
	case *Object:
		t.ResetChanges()
	case []any:
		for _, e := range t {
			resetMarks(e)
		}
	}
}

// Mark marks a field that is set as changed without touching its value. A field
// that is not set stays unmarked.
func (o *Object) Mark(field string) {
	if v, ok := o.fields[field]; ok {
		o.Set(field, v)
	}
}

// Clone returns a deep copy, marks included.
func (o *Object) Clone() *Object {
	if o == nil {
		return nil
	}
	return &Object{
		Name: o.Name, Version: o.Version,
		fields: cloneMap(o.fields), changed: maps.Clone(o.changed),
	}
}

func cloneMap(m map[string]any) map[string]any {
	if m == nil {
		return nil
	}
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = cloneValue(v)
	}
	return out
}

func cloneValue(v any) any {
	switch t := v.(type) {
	case *Object:
		return t.Clone()
	case map[string]any:
		return cloneMap(t)
	case []any:
		out := make([]any, len(t))
		for i := range t {
			out[i] = cloneValue(t[i])
		}
		return out
	}
	return v // the rest is immutable
}

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
	s, _ := o.Get(field).(string)
	return s
}

// Int returns an integer field, 0 when null, not set or not an integer.
func (o *Object) Int(field string) int64 {
	n, _ := o.Get(field).(json.Number)
	i, err := n.Int64()
	if err != nil {
		f, _ := n.Float64()
		return int64(f)
	}
	return i
}

// Float returns a number field, 0 when null, not set or not a number.
func (o *Object) Float(field string) float64 {
	n, _ := o.Get(field).(json.Number)
	f, _ := n.Float64()
	return f
}

// Bool returns a boolean field, false when null or not set.
func (o *Object) Bool(field string) bool {
	b, _ := o.Get(field).(bool)
	return b
}

// Time returns a DateTime field, the zero time when null, not set or malformed.
func (o *Object) Time(field string) time.Time { return parseTime(o.String(field)) }

// StringList returns a list or set of strings as a copy; other elements are left out.
func (o *Object) StringList(field string) []string {
	l, _ := o.Get(field).([]any)
	out := make([]string, 0, len(l))
	for _, e := range l {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// Object returns a nested object, nil when null or not set.
func (o *Object) Object(field string) *Object {
	c, _ := o.Get(field).(*Object)
	return c
}

// Objects returns the elements of a nested list, whether the field holds a
// plain array of objects or a list object.
func (o *Object) Objects(field string) []*Object {
	switch v := o.Get(field).(type) {
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
	m, _ := o.Get(field).(map[string]any)
	out := make(map[string]string, len(m))
	for k, v := range m {
		s, _ := v.(string)
		out[k] = s
	}
	return out
}

// Sparse returns an object that holds only the named fields and the changed
// ones, which is enough for a save: conductor writes only what is changed. It
// shares nested values with o.
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
