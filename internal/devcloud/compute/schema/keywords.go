package schema

import (
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gantry-project/gantry/internal/devcloud/lazyregexp"
)

// Type is the keyword of that name: one of the types of JSON, "integer" and
// "null" among them.
func Type(names ...string) Keyword {
	reprs := make([]string, len(names))
	for i, n := range names {
		reprs[i] = Repr(n)
	}
	words := strings.Join(reprs, ", ")
	return func(v any) *violation {
		for _, n := range names {
			if isType(v, n) {
				return nil
			}
		}
		return violated(v, "%s is not of type %s", Repr(v), words)
	}
}

func isType(v any, name string) bool {
	switch v := v.(type) {
	case nil:
		return name == "null"
	case bool:
		return name == "boolean"
	case string:
		return name == "string"
	case []any:
		return name == "array"
	case *Dict:
		return name == "object"
	case json.Number:
		return name == "number" || name == "integer" && !strings.ContainsAny(v.String(), ".eE")
	}
	return false
}

// Enum allows these values: texts, booleans and nil.
func Enum(values ...any) Keyword {
	return func(v any) *violation {
		for _, one := range values {
			switch one.(type) {
			case nil, bool, string:
				if v == one {
					return nil
				}
			}
		}
		return violated(v, "%s is not one of %s", Repr(v), Repr(values))
	}
}

// MinLen and MaxLen bound texts, in characters.
func MinLen(n int) Keyword {
	return func(v any) *violation {
		if s, ok := v.(string); ok && utf8.RuneCountInString(s) < n {
			return violated(v, "%s is too short", Repr(v))
		}
		return nil
	}
}

// MaxLen is the counterpart of MinLen.
func MaxLen(n int) Keyword {
	return func(v any) *violation {
		if s, ok := v.(string); ok && utf8.RuneCountInString(s) > n {
			return violated(v, "%s is too long", Repr(v))
		}
		return nil
	}
}

// Pattern is for texts. shown is the pattern as Nova writes it, when Go's
// regular expressions need another form.
func Pattern(expr *lazyregexp.Regexp, shown string) Keyword {
	return func(v any) *violation {
		if s, ok := v.(string); ok && !expr.MatchString(s) {
			return violated(v, "%s does not match %s", Repr(v), Repr(shown))
		}
		return nil
	}
}

// value is a number, or a text that is one (Nova's _validate_minimum).
func value(v any) (*big.Float, string, bool) {
	var s string
	switch v := v.(type) {
	case json.Number:
		s = v.String()
	case string:
		s = strings.TrimSpace(v)
	default:
		return nil, "", false
	}
	if len(s) > 400 {
		return nil, "", false
	}
	f, _, err := big.ParseFloat(s, 10, 128, big.ToNearestEven)
	if err != nil {
		return nil, "", false
	}
	if trimmed := strings.TrimLeft(s, "0"); !strings.ContainsAny(s, ".eE") && trimmed != "" {
		s = trimmed
	}
	return f, number(json.Number(s)), true
}

// Min and Max bound numbers and texts that are numbers.
func Min(n int64) Keyword {
	limit := new(big.Float).SetInt64(n)
	return func(v any) *violation {
		if f, s, ok := value(v); ok && f.Cmp(limit) < 0 {
			return violated(v, "%s is less than the minimum of %d", s, n)
		}
		return nil
	}
}

// Max is the counterpart of Min.
func Max(n int64) Keyword {
	limit := new(big.Float).SetInt64(n)
	return func(v any) *violation {
		if f, s, ok := value(v); ok && f.Cmp(limit) > 0 {
			return violated(v, "%s is greater than the maximum of %d", s, n)
		}
		return nil
	}
}

// Above is an exclusive minimum of 0.
func Above() Keyword {
	return func(v any) *violation {
		if f, s, ok := value(v); ok && f.Sign() <= 0 {
			return violated(v, "%s is less than or equal to the minimum of 0", s)
		}
		return nil
	}
}

// Items is the rule for each element of an array.
func Items(each ...Keyword) Keyword {
	s := Schema(each)
	return func(v any) *violation {
		all, _ := v.([]any)
		for i, one := range all {
			if x := s.check(one); x != nil {
				return x.in(number(json.Number(itoa(i))))
			}
		}
		return nil
	}
}

// MinItems, MaxItems and Unique are for arrays.
func MinItems(n int) Keyword {
	return func(v any) *violation {
		if all, ok := v.([]any); ok && len(all) < n {
			return violated(v, "%s is too short", Repr(v))
		}
		return nil
	}
}

// MaxItems is the counterpart of MinItems.
func MaxItems(n int) Keyword {
	return func(v any) *violation {
		if all, ok := v.([]any); ok && len(all) > n {
			return violated(v, "%s is too long", Repr(v))
		}
		return nil
	}
}

// Unique refuses arrays that hold a value twice.
func Unique() Keyword {
	return func(v any) *violation {
		all, _ := v.([]any)
		seen := make(map[string]bool, len(all))
		for _, one := range all {
			r := Repr(one)
			if seen[r] {
				return violated(v, "%s has non-unique elements", Repr(v))
			}
			seen[r] = true
		}
		return nil
	}
}

// OneOf wants one of the schemas to hold. (That two do is for schemas that
// exclude one another no case.)
func OneOf(schemas ...Schema) Keyword {
	return func(v any) *violation {
		if slices.ContainsFunc(schemas, func(s Schema) bool { return s.check(v) == nil }) {
			return nil
		}
		return violated(v, "%s is not valid under any of the given schemas", Repr(v))
	}
}

// Map is an object whose keys match the pattern and whose values each have the
// rules; shown is the pattern as Nova writes it.
func Map(key *lazyregexp.Regexp, shown string, each ...Keyword) Schema {
	s := Schema(each)
	return Schema{Type("object"), func(v any) *violation {
		o, ok := v.(*Dict)
		if !ok {
			return nil
		}
		var extra []string
		for _, k := range o.Keys {
			if !key.MatchString(k) {
				extra = append(extra, k)
			} else if x := s.check(o.Values[k]); x != nil {
				return x.in(k)
			}
		}
		return unmatched(v, extra, shown)
	}}
}

// MinProps and MaxProps bound the number of an object's properties.
func MinProps(n int) Keyword {
	return func(v any) *violation {
		if o, ok := v.(*Dict); ok && len(o.Keys) < n {
			return violated(v, "%s does not have enough properties", Repr(v))
		}
		return nil
	}
}

// MaxProps is the counterpart of MinProps.
func MaxProps(n int) Keyword {
	return func(v any) *violation {
		if o, ok := v.(*Dict); ok && len(o.Keys) > n {
			return violated(v, "%s has too many properties", Repr(v))
		}
		return nil
	}
}
