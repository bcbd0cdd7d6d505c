package rest

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestMicroversions(t *testing.T) {
	a := newAPI(Options{Microversions: &Microversions{
		Service: "compute", Min: Version{2, 1}, Max: Version{2, 93}, Legacy: "X-OpenStack-Nova-API-Version",
	}})
	a.HandleOpen("GET /v", func(_ context.Context, r *Request) (*Response, error) { return OK(r.Version.String()) })
	for _, c := range []struct {
		name, header, value string
		status              int
		body, told          string
	}{
		{"none", "X-Nothing", "", 200, `"2.1"`, "compute 2.1"},
		{"asked", "OpenStack-API-Version", "compute 2.53", 200, `"2.53"`, "compute 2.53"},
		{"one of several", "OpenStack-API-Version", "volume 3.1, Compute 2.9", 200, `"2.9"`, "compute 2.9"},
		{"of another service", "OpenStack-API-Version", "volume 3.1", 200, `"2.1"`, "compute 2.1"},
		{"older header", "X-OpenStack-Nova-API-Version", "2.60", 200, `"2.60"`, "compute 2.60"},
		{"latest", "OpenStack-API-Version", "compute latest", 200, `"2.93"`, "compute 2.93"},
		{"too new", "OpenStack-API-Version", "compute 2.94", 406, "406  Version 2.94 is not supported by the API. Minimum is 2.1 and maximum is 2.93.", "compute 2.94"},
		{"too old", "OpenStack-API-Version", "compute 2.0", 406, "406  Version 2.0 is not supported by the API. Minimum is 2.1 and maximum is 2.93.", "compute 2.0"},
		{"other major", "OpenStack-API-Version", "compute 3.1", 406, "406  Version 3.1 is not supported by the API. Minimum is 2.1 and maximum is 2.93.", "compute 3.1"},
		{"no version", "OpenStack-API-Version", "compute 2.x", 400, "400  API Version String 2.x is of invalid format. Must be of format MajorNum.MinorNum.", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := ask(a, "GET", "/v", "", c.header, c.value)
			if got := res.body; res.StatusCode != c.status || got != c.body {
				t.Errorf("%d %q", res.StatusCode, got)
			}
			if got := res.Header.Get("OpenStack-API-Version"); got != c.told {
				t.Errorf("told %q", got)
			}
			if c.told == "" {
				return
			}
			if got := res.Header.Get("X-OpenStack-Nova-API-Version"); "compute "+got != c.told {
				t.Errorf("told %q in the older header", got)
			}
			if got := strings.Join(res.Header.Values("Vary"), ","); got != "OpenStack-API-Version,X-OpenStack-Nova-API-Version" {
				t.Errorf("vary %q", got)
			}
		})
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, s := range []string{"2.93", "", ".", "2.", "02.1", "99999.1", "-1.2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := ParseVersion(s); err == nil && v.String() != s {
			t.Errorf("%q is read as %s", s, v)
		}
	})
}

func TestAtLeast(t *testing.T) {
	v := Version{2, 10}
	if !v.AtLeast(2, 9) || !v.AtLeast(2, 10) || v.AtLeast(2, 11) || v.AtLeast(3, 0) || !v.AtLeast(1, 99) {
		t.Error("wrong order")
	}
}

func TestLimit(t *testing.T) {
	for query, want := range map[string]int{"": 10, "limit=3": 3, "limit=30": 10, "limit=0": 0, "limit=-1": -1, "limit=x": -1} {
		r := &Request{Request: httptest.NewRequest("GET", "/?"+query, nil)}
		got, err := r.Limit(10)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v", query, got, err)
		}
	}
}

func TestPage(t *testing.T) {
	all := []string{"a", "b", "c"}
	for _, c := range []struct {
		marker   string
		limit    int
		want     string
		more, ok bool
	}{
		{"", 2, "ab", true, true},
		{"", 3, "abc", false, true},
		{"b", 2, "c", false, true},
		{"c", 2, "", false, true},
		{"a", 0, "", true, true},
		{"x", 2, "", false, false},
	} {
		page, more, ok := Page(all, func(s string) string { return s }, c.marker, c.limit)
		if strings.Join(page, "") != c.want || more != c.more || ok != c.ok {
			t.Errorf("after %q, %d: %q %v %v", c.marker, c.limit, page, more, ok)
		}
	}
	r := &Request{Request: httptest.NewRequest("GET", "http://h:1/?name=x&marker=old", nil)}
	if got := r.NextQuery("new"); got != "marker=new&name=x" {
		t.Errorf("next query %q", got)
	}
	if r.Params().Get("marker") != "old" {
		t.Error("NextQuery changed the query")
	}
	if r.Base() != "http://h:1" {
		t.Errorf("base %q", r.Base())
	}
}

func TestRoles(t *testing.T) {
	admin, member := &Caller{Roles: []string{"admin"}}, &Caller{ProjectID: "p", Roles: []string{"member"}}
	nobody := &Caller{}
	if !admin.Owns("p") || !member.Owns("p") || member.Owns("q") || member.Owns("") || nobody.Owns("") {
		t.Error("ownership")
	}
	if !admin.Member() || !member.Member() || nobody.Member() || member.Admin() {
		t.Error("roles")
	}
}
