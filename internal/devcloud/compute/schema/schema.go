// Package schema checks bodies and queries of requests as Nova does: the same
// rules, in the same order, refused in the same words.
//
// A Schema is a list of keywords of JSON schema (draft 4) that are looked at in
// order; the first that does not hold is the answer. The words are those of
// Python's jsonschema, with values written as Python writes them.
//
// Source: nova/api/validation/{__init__,validators,parameter_types}.py,
// jsonschema/_validators.py and _legacy_validators.py.
package schema

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
)

// Schema is an ordered list of rules. It is not changed after it was made.
type Schema []Keyword

// Keyword is one rule: nil when v holds to it.
type Keyword func(v any) *violation

// violation is the first rule that does not hold.
type violation struct {
	// path leads from the document to value.
	path []string
	// value is what the rule was looked at with.
	value   any
	message string
	// whole says that message is all there is to say (Nova's InvalidName).
	whole bool
}

func violated(v any, format string, args ...any) *violation {
	return &violation{value: v, message: fmt.Sprintf(format, args...)}
}

// in adds the step that leads to where the violation is.
func (x *violation) in(step string) *violation {
	x.path = append(x.path, step) // from the inside out
	return x
}

// check returns the first violation.
func (s Schema) check(v any) *violation {
	for _, k := range s {
		if x := k(v); x != nil {
			return x
		}
	}
	return nil
}

// With returns s with more rules behind its own.
func (s Schema) With(more ...Keyword) Schema { return append(slices.Clip(s), more...) }

// Body checks a decoded body. The text of the refusal is empty when it is good.
func (s Schema) Body(v any) string {
	x := s.check(v)
	switch {
	case x == nil:
		return ""
	case x.whole || len(x.path) == 0:
		return x.message
	}
	return fmt.Sprintf("Invalid input for field/attribute %s. Value: %s. %s", x.path[0], Text(x.value), x.message)
}

// Query checks the parameters of a query: each is a list of values. The text
// of the refusal is empty when they are good.
func (s Schema) Query(params map[string][]string) string {
	o := &Dict{Values: make(map[string]any, len(params))}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		list := make([]any, len(params[name]))
		for i, one := range params[name] {
			list[i] = one
		}
		o.Keys = append(o.Keys, name)
		o.Values[name] = list
	}
	x := s.check(o)
	switch {
	case x == nil:
		return ""
	case x.whole || len(x.path) == 0:
		return x.message
	}
	return fmt.Sprintf("Invalid input for query parameters %s. Value: %s. %s", x.path[len(x.path)-1], Text(x.value), x.message)
}

// Field is a property of an object.
type Field struct {
	name     string
	schema   Schema
	required bool
}

// Req is a property that must be there.
func Req(name string, keywords ...Keyword) Field { return Field{name, keywords, true} }

// Opt is a property that may be absent.
func Opt(name string, keywords ...Keyword) Field { return Field{name, keywords, false} }

// Object is an object with these properties and no others.
func Object(fields ...Field) Schema {
	return Open(fields...).With(closed(fields))
}

// Open is an object with these properties and any others.
func Open(fields ...Field) Schema {
	return Schema{Type("object"), properties(fields), required(fields)}
}

// Nullable is Object, or null.
func Nullable(fields ...Field) Schema {
	return Schema{Type("object", "null"), properties(fields), required(fields), closed(fields)}
}

// Ignoring is Object with keys besides that match a pattern.
func Ignoring(keys *lazyregexp.Regexp, fields ...Field) Schema {
	return Open(fields...).With(func(v any) *violation {
		o, ok := v.(*Dict)
		if !ok {
			return nil
		}
		extra := slices.DeleteFunc(others(o, fields), keys.MatchString)
		return unmatched(v, extra, keys.String())
	})
}

func properties(fields []Field) Keyword {
	return func(v any) *violation {
		o, ok := v.(*Dict)
		if !ok {
			return nil
		}
		for _, f := range fields {
			if one, ok := o.Values[f.name]; ok {
				if x := f.schema.check(one); x != nil {
					return x.in(f.name)
				}
			}
		}
		return nil
	}
}

func required(fields []Field) Keyword {
	return func(v any) *violation {
		o, ok := v.(*Dict)
		if !ok {
			return nil
		}
		for _, f := range fields {
			if _, ok := o.Values[f.name]; f.required && !ok {
				return violated(v, "%s is a required property", Repr(f.name))
			}
		}
		return nil
	}
}

func closed(fields []Field) Keyword {
	return func(v any) *violation {
		o, ok := v.(*Dict)
		if !ok {
			return nil
		}
		extra := others(o, fields)
		if len(extra) == 0 {
			return nil
		}
		names, verb := list(extra), "were"
		if len(extra) == 1 {
			verb = "was"
		}
		return violated(v, "Additional properties are not allowed (%s %s unexpected)", names, verb)
	}
}

// others are the keys that are no field.
func others(o *Dict, fields []Field) []string {
	return slices.DeleteFunc(slices.Clone(o.Keys), func(k string) bool {
		return slices.ContainsFunc(fields, func(f Field) bool { return f.name == k })
	})
}

// unmatched refuses keys that no pattern allows; nil without any.
func unmatched(v any, keys []string, pattern string) *violation {
	if len(keys) == 0 {
		return nil
	}
	verb := "do"
	if len(keys) == 1 {
		verb = "does"
	}
	return violated(v, "%s %s not match any of the regexes: %s", list(keys), verb, Repr(pattern))
}

func list(names []string) string {
	sorted := slices.Sorted(slices.Values(names))
	for i, n := range sorted {
		sorted[i] = Repr(n)
	}
	return strings.Join(sorted, ", ")
}
