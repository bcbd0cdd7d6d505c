package schema

import (
	"errors"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// The words are those that Python's jsonschema 4.10 says through Nova 26.
func TestWords(t *testing.T) {
	flavor := Object(Req("flavor", Object(
		Req("name", Name()...), Req("ram", Size(1)...), Opt("public", Boolean()...), Opt("note", Type("string", "null"), MaxLen(3)),
		Opt("list", Type("array"), Items(Type("string"), Enum("a", "b")), MaxItems(2), Unique()), Opt("meta", Metadata()...),
		Opt("ref", OneOf(ID(), Null())))...))
	for name, c := range map[string]struct{ body, want string }{
		"good":               {`{"flavor": {"name": "a", "ram": "5", "public": "yes", "note": null, "list": ["a"], "meta": {"k": "v"}, "ref": null}}`, ""},
		"no object":          {`[]`, "[] is not of type 'object'"},
		"no key":             {`{}`, "'flavor' is a required property"},
		"another key":        {`{"flavor": {"name": "a", "ram": 1}, "b": 1, "a": 2}`, "Additional properties are not allowed ('a', 'b' were unexpected)"},
		"required":           {`{"flavor": {"name": "a"}}`, "Invalid input for field/attribute flavor. Value: {'name': 'a'}. 'ram' is a required property"},
		"properties first":   {`{"flavor": {"ram": 0}}`, "Invalid input for field/attribute ram. Value: 0. 0 is less than the minimum of 1"},
		"text of a number":   {`{"flavor": {"name": "a", "ram": "0"}}`, "Invalid input for field/attribute ram. Value: 0. 0 is less than the minimum of 1"},
		"no number":          {`{"flavor": {"name": "a", "ram": "x"}}`, "Invalid input for field/attribute ram. Value: x. 'x' does not match '^[0-9]+$'"},
		"float":              {`{"flavor": {"name": "a", "ram": 1.50}}`, "Invalid input for field/attribute ram. Value: 1.5. 1.5 is not of type 'integer', 'string'"},
		"boolean":            {`{"flavor": {"name": "a", "ram": true}}`, "Invalid input for field/attribute ram. Value: True. True is not of type 'integer', 'string'"},
		"too great":          {`{"flavor": {"name": "a", "ram": 2147483648}}`, "Invalid input for field/attribute ram. Value: 2147483648. 2147483648 is greater than the maximum of 2147483647"},
		"name":               {`{"flavor": {"name": " a", "ram": 1}}`, "An invalid 'name' value was provided. The name must be: printable characters. Can not start or end with whitespace."},
		"empty name":         {`{"flavor": {"name": "", "ram": 1}}`, "Invalid input for field/attribute name. Value: . '' is too short"},
		"quotes":             {`{"flavor": {"name": "a", "ram": 1, "note": "it's"}}`, `Invalid input for field/attribute note. Value: it's. "it's" is too long`},
		"index":              {`{"flavor": {"name": "a", "ram": 1, "list": ["a", "c"]}}`, "Invalid input for field/attribute 1. Value: c. 'c' is not one of ['a', 'b']"},
		"twice":              {`{"flavor": {"name": "a", "ram": 1, "list": ["a", "a"]}}`, "Invalid input for field/attribute list. Value: ['a', 'a']. ['a', 'a'] has non-unique elements"},
		"too many":           {`{"flavor": {"name": "a", "ram": 1, "list": ["a", "b", "a"]}}`, "Invalid input for field/attribute list. Value: ['a', 'b', 'a']. ['a', 'b', 'a'] is too long"},
		"key of metadata":    {`{"flavor": {"name": "a", "ram": 1, "meta": {"a/b": "c"}}}`, "Invalid input for field/attribute meta. Value: {'a/b': 'c'}. 'a/b' does not match any of the regexes: '^[a-zA-Z0-9-_:. ]{1,255}$'"},
		"value of metadata":  {`{"flavor": {"name": "a", "ram": 1, "meta": {"a": null}}}`, "Invalid input for field/attribute a. Value: None. None is not of type 'string'"},
		"none of the shapes": {`{"flavor": {"name": "a", "ram": 1, "ref": {"x": [1, "ü\n"]}}}`, `Invalid input for field/attribute ref. Value: {'x': [1, 'ü\n']}. {'x': [1, 'ü\n']} is not valid under any of the given schemas`},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := Decode([]byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if got := flavor.Body(v); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestQueries(t *testing.T) {
	rules := Object(Opt("limit", Params(Natural())...), Opt("once", One(String())...))
	for want, params := range map[string]map[string][]string{
		"": {"limit": {"1", "2"}, "once": {"x"}},
		"Invalid input for query parameters limit. Value: -1. '-1' does not match '^[0-9]*$'": {"limit": {"1", "-1"}},
		"Invalid input for query parameters once. Value: ['a', 'b']. ['a', 'b'] is too long":  {"once": {"a", "b"}},
		"Additional properties are not allowed ('other' was unexpected)":                      {"other": {"a"}},
	} {
		if got := rules.Query(params); got != want {
			t.Errorf("%v:\ngot  %s\nwant %s", params, got, want)
		}
	}
}

func TestDecodeKeepsOrderAndRefusesTheRest(t *testing.T) {
	v, err := Decode([]byte(`{"b": 1, "a": {"z": null, "y": true}, "b": 1e3}`))
	if err != nil || Repr(v) != "{'b': 1000.0, 'a': {'z': None, 'y': True}}" {
		t.Errorf("%s, %v", Repr(v), err)
	}
	for _, bad := range []string{"", "{", `{"a" 1}`, "[1,]", "{} {}", "nul", strings.Repeat("[", 100) + strings.Repeat("]", 100)} {
		if _, err := Decode([]byte(bad)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestFormats(t *testing.T) {
	for name, c := range map[string]struct {
		rule Keyword
		good []string
		bad  []string
	}{
		"uuid":   {UUID(), []string{"11111111-1111-4111-8111-111111111111", "11111111111141118111111111111111"}, []string{"", "x", "{11111111-1111-4111-8111-111111111111}", "urn:uuid:11111111-1111-4111-8111-111111111111"}},
		"ipv4":   {IPv4(), []string{"1.2.3.4"}, []string{"1.2.3", "::1", "x"}},
		"ipv6":   {IPv6(), []string{"::1"}, []string{"1.2.3.4", "fe80::1%eth0"}},
		"base64": {Base64(), []string{"", "YQ==", "YQ\n=="}, []string{"Y", "YQ="}},
		"time":   {Time(), []string{"2026-11-21T15:30:50Z", "2026-11-21", "2026-11-21T15:30:50+01:00", "2026-11-21 15:30:50"}, []string{"", "x", "2026-13-01"}},
		"regex":  {Regex(), []string{"^a.*"}, []string{"", "["}},
		"host":   {Hostname()[3], []string{"a1", "a-b"}, []string{"-a", "a.b", "a_"}},
	} {
		for _, s := range c.good {
			if x := c.rule(s); x != nil {
				t.Errorf("%s: %q: %s", name, s, x.message)
			}
		}
		for _, s := range c.bad {
			if c.rule(s) == nil {
				t.Errorf("%s: %q is accepted", name, s)
			}
		}
	}
}

// FuzzDecode holds that whatever is read can be written as Python does, and that
// rules never fail over it.
func FuzzDecode(f *testing.F) {
	rules := Object(Opt("a", Size(1)...), Opt("b", Metadata("null")...), Opt("c", Params(Tag())...), Opt("d", OneOf(Address(), ID())))
	for _, s := range []string{`{}`, `{"a": 1e999}`, `{"b": {"x": null}}`, `{"c": [1, "\u0000"]}`, `{"d": "1.2.3.4"}`, `[[[]]]`, `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Decode(data)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Error(err)
			}
			return
		}
		if text := Repr(v); text == "" {
			t.Errorf("%q is written as nothing", data)
		}
		rules.Body(v)
	})
}
