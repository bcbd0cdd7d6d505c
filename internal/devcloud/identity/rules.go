package identity

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// rule is what a value of a request may be: the part of JSON schema that
// Keystone's own schemas use.
type rule struct {
	// types it may have: "string", "boolean", "object", "array", "null".
	types []string
	// min and max length of a string; max 0 is any.
	min, max int
	pattern  *lazyregexp.Regexp
	enum     []string
	// of objects
	props    map[string]rule
	required []string
	closed   bool // no other properties
	exactly  int  // so many properties; 0 is any
	// of arrays
	items *rule
	most  int // items; 0 is any
	once  bool
}

var (
	notBlank = lazyregexp.New(`[\S]+`)
	idShape  = lazyregexp.New(`^[a-zA-Z0-9-]+$`)
	urlShape = lazyregexp.New(`^[a-zA-Z0-9+.-]+:.+`)
	tagShape = lazyregexp.New(`^[^,/]*$`)

	anyString  = rule{types: []string{"string"}}
	nullString = rule{types: []string{"string", "null"}}
	boolean    = rule{types: []string{"boolean"}}
	nullBool   = rule{types: []string{"boolean", "null"}}
	name64     = rule{types: []string{"string"}, min: 1, max: 64, pattern: notBlank}
	name255    = rule{types: []string{"string"}, min: 1, max: 255, pattern: notBlank}
	idRule     = rule{types: []string{"string"}, min: 1, max: 64, pattern: idShape}
	nullID     = rule{types: []string{"string", "null"}, min: 1, max: 64, pattern: idShape}
	tagRule    = rule{types: []string{"string"}, min: 1, max: 255, pattern: tagShape}
	tagsRule   = rule{types: []string{"array"}, items: &tagRule, most: 80, once: true}
)

// check returns an error in Keystone's words if v is not as the rule says.
func (u rule) check(v any) error {
	if path, problem := u.problem("", v); problem != "" {
		if path != "" {
			return invalid("Invalid input for field '%s': %s", path, problem)
		}
		return invalid("%s", problem)
	}
	return nil
}

func (u rule) problem(path string, v any) (where, what string) {
	if len(u.types) > 0 && !slices.Contains(u.types, typeOf(v)) {
		return path, fmt.Sprintf("%s is not of type '%s'", rest.Repr(v), strings.Join(u.types, "', '"))
	}
	switch v := v.(type) {
	case string:
		return path, u.stringProblem(v)
	case []any:
		return u.arrayProblem(path, v)
	case map[string]any:
		return u.objectProblem(path, v)
	}
	return path, ""
}

func (u rule) stringProblem(v string) string {
	n := utf8.RuneCountInString(v)
	switch {
	case n < u.min:
		return rest.Repr(v) + " is too short"
	case u.max > 0 && n > u.max:
		return rest.Repr(v) + " is too long"
	case u.pattern != nil && !u.pattern.MatchString(v):
		return rest.Repr(v) + " does not match " + rest.Repr(u.pattern.String())
	case u.enum != nil && !slices.Contains(u.enum, v):
		return rest.Repr(v) + " is not one of ['" + strings.Join(u.enum, "', '") + "']"
	}
	return ""
}

func (u rule) arrayProblem(path string, v []any) (where, what string) {
	if u.most > 0 && len(v) > u.most {
		return path, rest.Repr(v) + " is too long"
	}
	for i, item := range v {
		if u.once && slices.ContainsFunc(v[:i], func(o any) bool { return rest.Repr(o) == rest.Repr(item) }) {
			return path, rest.Repr(v) + " has non-unique elements"
		}
		if u.items == nil {
			break
		}
		if where, what = u.items.problem(join(path, strconv.Itoa(i)), item); what != "" {
			return where, what
		}
	}
	return path, ""
}

func (u rule) objectProblem(path string, v map[string]any) (where, what string) {
	for _, name := range u.required {
		if _, ok := v[name]; !ok {
			return path, rest.Repr(name) + " is a required property"
		}
	}
	if u.exactly > 0 && len(v) < u.exactly {
		return path, rest.Repr(v) + " does not have enough properties"
	}
	if u.exactly > 0 && len(v) > u.exactly {
		return path, rest.Repr(v) + " has too many properties"
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		p, known := u.props[name]
		if !known {
			if u.closed {
				return path, fmt.Sprintf("Additional properties are not allowed (%s was unexpected)", rest.Repr(name))
			}
			continue
		}
		if where, what = p.problem(join(path, name), v[name]); what != "" {
			return where, what
		}
	}
	return path, ""
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}

func typeOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case bool:
		return "boolean"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return "number"
}
