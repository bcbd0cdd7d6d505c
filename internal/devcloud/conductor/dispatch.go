package conductor

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// call is one call of an object's method.
type call struct {
	rc     messaging.RequestContext
	obj    *objects.Object // what was sent, instance methods only
	args   []any
	kwargs map[string]any
}

// arg returns a positional argument, or else the keyword argument of that name.
func (in call) arg(i int, name string) any {
	if i < len(in.args) {
		return in.args[i]
	}
	return in.kwargs[name]
}

func (in call) text(i int, name string) string {
	s, _ := in.arg(i, name).(string)
	return s
}

func (in call) number(i int, name string) int64 {
	n, _ := in.arg(i, name).(json.Number)
	v, _ := n.Int64()
	return v
}

// admin reports whether the caller sees all projects.
func (in call) admin() bool { return string(in.rc.Fields()["is_admin"]) == "true" }

// changes are the marked fields of the object that was sent, with their values.
func (in call) changes() map[string]any {
	out := map[string]any{}
	for _, name := range in.obj.Changes() {
		out[name] = in.obj.Get(name)
	}
	return out
}

// classMethod answers a call of a class's method with its result.
type classMethod func(*Conductor, context.Context, call) (any, error)

// objectMethod answers a call of an object's method with the object as it is
// after, which is not changed any more, and the result. A nil object is as it
// was.
type objectMethod func(*Conductor, context.Context, call) (*objects.Object, any, error)

// classAction is object_class_action_versions.
func (c *Conductor) classAction(ctx context.Context, req *messaging.Request) (any, error) {
	var name, method string
	var versions map[string]string
	in := call{rc: req.Context}
	if err := arguments(req, &in, map[string]any{"objname": &name, "objmethod": &method, "object_versions": &versions}); err != nil {
		return nil, err
	}
	schema, ok := objects.Lookup(name)
	if !ok {
		return nil, versioned("UnsupportedObjectError", "Unsupported object type %s", name)
	}
	want, ok := versions[name]
	if !ok {
		return nil, builtin("KeyError", "'%s'", name)
	}
	if !serves(schema.Version, want) {
		return nil, versioned("IncompatibleObjectVersion", "Version %s of %s is not supported, supported version is %s", want, name, schema.Version)
	}
	m := classMethods()[name+"."+method]
	if m == nil {
		return nil, builtin("AttributeError", "type object '%s' has no attribute '%s'", name, method)
	}
	return m(c, ctx, in)
}

// objectAction is object_action.
func (c *Conductor) objectAction(ctx context.Context, req *messaging.Request) (any, error) {
	var sent objects.Object
	var method string
	in := call{rc: req.Context}
	if err := arguments(req, &in, map[string]any{"objinst": &sent, "objmethod": &method}); err != nil {
		return nil, err
	}
	if err := accept(&sent); err != nil {
		return nil, err
	}
	m := objectMethods()[sent.Name+"."+method]
	if m == nil {
		return nil, builtin("AttributeError", "'%s' object has no attribute '%s'", sent.Name, method)
	}
	in.obj = &sent
	after, result, err := m(c, ctx, in)
	if err != nil {
		return nil, err
	}
	return []any{updates(&sent, after), result}, nil
}

// backport is object_backport_versions. As all versions of one major have the
// same fields or more, it is to leave out the newer ones; we know none.
func (c *Conductor) backport(_ context.Context, req *messaging.Request) (any, error) {
	var o objects.Object
	var versions map[string]string
	if err := req.Arg("objinst", &o); err != nil {
		return nil, builtin("ValueError", "%v", err)
	}
	if err := req.Arg("object_versions", &versions); err != nil {
		return nil, builtin("ValueError", "%v", err)
	}
	if err := accept(&o); err != nil {
		return nil, err
	}
	want, ok := versions[o.Name]
	if !ok {
		return nil, builtin("KeyError", "'%s'", o.Name)
	}
	o.Version = want
	return &o, nil
}

// arguments decodes the arguments that every object method has and the given
// ones. What cannot be read is a ValueError.
func arguments(req *messaging.Request, in *call, named map[string]any) error {
	for name, into := range named {
		if err := req.Arg(name, into); err != nil {
			return builtin("ValueError", "%v", err)
		}
	}
	for name, set := range map[string]func(any) bool{
		"args":   func(v any) (ok bool) { in.args, ok = v.([]any); return ok },
		"kwargs": func(v any) (ok bool) { in.kwargs, ok = v.(map[string]any); return ok },
	} {
		v, err := objects.Decode(req.Args[name])
		if err != nil {
			return builtin("ValueError", "%s: %v", name, err)
		}
		if !set(v) {
			return builtin("ValueError", "%s is a %T", name, v)
		}
	}
	return nil
}

// accept checks an object that came in: its name and version, and that the
// fields that are kept hold what they should. Fields that we do not know are
// left out.
func accept(o *objects.Object) error {
	schema, ok := objects.Lookup(o.Name)
	if !ok {
		return versioned("UnsupportedObjectError", "Unsupported object type %s", o.Name)
	}
	if err := objects.Check(o); err != nil {
		return versioned("IncompatibleObjectVersion", "Version %s of %s is not supported, supported version is %s", o.Version, o.Name, schema.Version)
	}
	for _, name := range o.Fields() {
		f, ok := schema.Field(name)
		if !ok {
			o.Unset(name)
			continue
		}
		if !holds(f, o.Get(name)) {
			return builtin("ValueError", "field %s of %s cannot be %T", name, o.Name, o.Get(name))
		}
	}
	return nil
}

// holds reports whether a field may have that value. Nulls are let pass where
// Nova's own objects have them in fields that should have none.
func holds(f objects.Field, v any) bool {
	ok := true
	switch {
	case v == nil:
	case f.Type == "i":
		n, isNumber := v.(json.Number)
		_, err := n.Int64()
		ok = isNumber && err == nil
	case f.Type == "f":
		_, ok = v.(json.Number)
	case f.Type == "b":
		_, ok = v.(bool)
	case strings.HasPrefix(f.Type, "M["):
		_, ok = v.(map[string]any)
	case strings.HasPrefix(f.Type, "L["), strings.HasPrefix(f.Type, "set["):
		_, ok = v.([]any)
	case strings.HasPrefix(f.Type, "O:"):
		o, isObject := v.(*objects.Object)
		ok = isObject && o.Name == f.Object()
	case f.Type == "dt":
		ok = !timeOf(v).IsZero()
	case f.Type == "s", f.Type == "uuid", f.Type == "nwjson", strings.HasPrefix(f.Type, "e"):
		_, ok = v.(string)
	}
	return ok
}

// serves reports whether a class of version have can answer one who asks for
// version want: same major, minor not newer.
func serves(have, want string) bool {
	hMajor, hMinor, ok1 := version(have)
	wMajor, wMinor, ok2 := version(want)
	return ok1 && ok2 && hMajor == wMajor && wMinor <= hMinor
}

func version(s string) (major, minor int, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return major, minor, err1 == nil && err2 == nil
}

// updates is what object_action answers: every field that the method has
// changed or set, and obj_what_changed, which is nothing.
func updates(before, after *objects.Object) map[string]any {
	out := map[string]any{"obj_what_changed": []string{}}
	if after == nil {
		return out
	}
	for _, name := range after.Fields() {
		if !before.Has(name) || !same(before.Get(name), after.Get(name)) {
			out[name] = after.Get(name)
		}
	}
	return out
}

func same(a, b any) bool {
	switch a.(type) {
	case nil, string, bool, json.Number:
		switch b.(type) {
		case nil, string, bool, json.Number:
			return a == b
		}
		return false
	}
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// list is a list object of the given elements.
func list(name string, elements []*objects.Object) *objects.Object {
	o := objects.New(name)
	o.SetClean("objects", elements)
	return o
}

// plain are the objects of views.
func plain[V interface{ Wire() *objects.Object }](views []V) []*objects.Object {
	out := make([]*objects.Object, len(views))
	for i, v := range views {
		out[i] = v.Wire()
	}
	return out
}
