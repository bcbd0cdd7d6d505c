package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// cloud is a service with the users of a small cloud.
type cloud struct {
	*Service
	t     testing.TB
	ids   *Bootstrapped
	now   atomic.Int64 // seconds added to the clock
	start time.Time
}

func request() BootstrapRequest {
	return BootstrapRequest{
		Region: "RegionOne", Projects: []string{"admin", "demo", "service"},
		Users: []BootstrapUser{
			{Name: "admin", Password: "a-secret", Roles: map[string][]string{"admin": {"admin"}, "": {"admin"}}},
			{Name: "demo", Password: "d-secret", Project: "demo", Roles: map[string][]string{"demo": {"member"}}},
			{Name: "reader", Password: "r-secret", Roles: map[string][]string{"demo": {"reader"}}},
			{Name: "nova", Password: "n-generated", Generated: true, Project: "service", Roles: map[string][]string{"service": {"admin", "service"}}},
		},
		Services: []BootstrapService{
			{"identity", "keystone", "http://127.0.0.1:5000/v3"},
			{"compute", "nova", "http://127.0.0.1:8774/v2.1"},
			{"volumev3", "cinder", "http://127.0.0.1:8776/v3/$(project_id)s"},
		},
	}
}

func newCloud(t testing.TB) *cloud {
	t.Helper()
	c := &cloud{t: t, start: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	s, err := New(t.Context(), Options{
		Path: filepath.Join(t.TempDir(), "identity.db"), Cost: 4, TokenLife: time.Hour, Log: zerolog.Nop(),
		Now: func() time.Time { return c.start.Add(time.Duration(c.now.Load()) * time.Second) },
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Service = s
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if c.ids, err = s.Bootstrap(t.Context(), request()); err != nil {
		t.Fatal(err)
	}
	return c
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	raw    string
	body   record
}

// at walks the body: at("token", "user", "name").
func (a answer) at(path ...any) any {
	var v any = map[string]any(a.body)
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

func (a answer) message() string { s, _ := a.at("error", "message").(string); return s }

// do sends a request; token may be empty.
func (c *cloud) do(token, method, path, body string, header ...string) answer {
	c.t.Helper()
	r := httptest.NewRequest(method, "http://cloud:5000"+path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("X-Auth-Token", token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, r)
	res := w.Result()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header, raw: string(raw)}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") && len(raw) > 0 {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			c.t.Fatalf("%s %s: %v in %s", method, path, err, raw)
		}
	}
	return a
}

// want is do with the status that is to come.
func (c *cloud) want(status int, token, method, path, body string, header ...string) answer {
	c.t.Helper()
	a := c.do(token, method, path, body, header...)
	if a.status != status {
		c.t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, a.status, a.raw, status)
	}
	return a
}

func passwordBody(user, password, scope string) string {
	if scope != "" {
		scope = `,"scope":` + scope
	}
	return fmt.Sprintf(`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":%q,"password":%q,"domain":{"id":"default"}}}}%s}}`, user, password, scope)
}

func inProject(name string) string {
	return fmt.Sprintf(`{"project":{"name":%q,"domain":{"name":"Default"}}}`, name)
}

func (c *cloud) token(user, password, scope string) string {
	c.t.Helper()
	return c.want(201, "", "POST", "/v3/auth/tokens", passwordBody(user, password, scope)).header.Get("X-Subject-Token")
}

func (c *cloud) admin() string { return c.token("admin", "a-secret", inProject("admin")) }
func (c *cloud) demo() string  { return c.token("demo", "d-secret", inProject("demo")) }

// alive reports whether the token is good, by both ways to ask.
func (c *cloud) alive(token string) bool {
	c.t.Helper()
	_, err := c.Caller(c.t.Context(), token)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		c.t.Fatal(err)
	}
	a := c.do(token, "GET", "/v3/auth/projects", "")
	if (a.status == 200) != (err == nil) {
		c.t.Fatalf("Caller: %v, request: %d", err, a.status)
	}
	return err == nil
}

func TestDiscovery(t *testing.T) {
	c := newCloud(t)
	a := c.want(300, "", "GET", "/", "")
	if a.header.Get("Location") != "http://cloud:5000/v3/" || a.at("versions", "values", 0, "id") != "v3.14" {
		t.Errorf("%v %s", a.header, a.raw)
	}
	a = c.want(200, "", "GET", "/v3/", "")
	if a.at("version", "links", 0, "href") != "http://cloud:5000/v3/" || a.header.Get("Vary") != "X-Auth-Token" {
		t.Errorf("%v %s", a.header, a.raw)
	}
	a = c.want(404, "", "GET", "/v2.0", "")
	if !strings.HasPrefix(a.raw, "<!doctype html>") {
		t.Errorf("%s", a.raw)
	}
	c.want(405, "", "POST", "/v3", "")
}

func TestScopes(t *testing.T) {
	c := newCloud(t)
	for _, x := range []struct {
		name, user, scope string
		status            int
		roles             string // of the caller
		project           string
		system            bool
		catalog           bool
	}{
		{"project by name", "admin", inProject("admin"), 201, "admin member reader", "admin", false, true},
		{"project by id", "demo", fmt.Sprintf(`{"project":{"id":%q}}`, c.ids.Projects["demo"]), 201, "member reader", "demo", false, true},
		{"default project", "demo", "", 201, "member reader", "demo", false, true},
		{"unscoped by word", "demo", `"unscoped"`, 201, "", "", false, false},
		{"unscoped by object", "demo", `{"unscoped":{}}`, 201, "", "", false, false},
		{"no default project", "admin", "", 201, "", "", false, false},
		{"system", "admin", `{"system":{"all":true}}`, 201, "admin member reader", "", true, true},
		{"system without a role", "demo", `{"system":{"all":true}}`, 401, "", "", false, false},
		{"domain without a role", "demo", `{"domain":{"id":"default"}}`, 401, "", "", false, false},
		{"foreign project", "demo", inProject("admin"), 401, "", "", false, false},
		{"absent project", "demo", `{"project":{"id":"nope"}}`, 401, "", "", false, false},
		{"absent domain", "demo", `{"project":{"name":"demo","domain":{"id":"nope"}}}`, 401, "", "", false, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			c.t = t
			a := c.want(x.status, "", "POST", "/v3/auth/tokens", passwordBody(x.user, x.user[:1]+"-secret", x.scope))
			if x.status != 201 {
				if a.message() != "The request you have made requires authentication." || a.header.Get("Www-Authenticate") == "" {
					t.Errorf("%v %s", a.header, a.raw)
				}
				return
			}
			who, err := c.Caller(t.Context(), a.header.Get("X-Subject-Token"))
			if err != nil {
				t.Fatal(err)
			}
			have := map[string]bool{}
			for _, r := range who.Roles {
				have[r] = true
			}
			if len(have) != len(strings.Fields(x.roles)) || who.ProjectName != x.project || who.System != x.system || who.UserName != x.user || who.UserDomainName != "Default" {
				t.Errorf("caller %+v", who)
			}
			for _, r := range strings.Fields(x.roles) {
				if !have[r] {
					t.Errorf("role %s is missing in %v", r, who.Roles)
				}
			}
			if catalog, ok := a.at("token", "catalog").([]any); ok != x.catalog || ok && len(catalog) != 3 {
				t.Errorf("catalog %v", catalog)
			}
		})
	}
}

func TestMalformedRequestsForATokenAre400(t *testing.T) {
	c := newCloud(t)
	for body, want := range map[string]string{
		`{`:                        "Expecting to find valid JSON in request body. " + malformed,
		`[]`:                       "Expecting to find valid JSON in request body. " + malformed,
		`{}`:                       "Expecting to find auth in request body. " + malformed,
		`{"auth":{}}`:              "'identity' is a required property",
		`{"auth":[]}`:              "[] is not of type 'object'",
		`{"auth":{"identity":{}}}`: "Invalid input for field 'identity': 'methods' is a required property",
		`{"auth":{"identity":{"methods":"password"}}}`:                                                       "Invalid input for field 'identity/methods': 'password' is not of type 'array'",
		`{"auth":{"identity":{"methods":["password"]}}}`:                                                     "Expecting to find password in identity. " + malformed,
		`{"auth":{"identity":{"methods":["x"]}}}`:                                                            "Expecting to find x in identity. " + malformed,
		`{"auth":{"identity":{"methods":["password"],"password":{}}}}`:                                       "Expecting to find user in None. " + malformed,
		`{"auth":{"identity":{"methods":["password"],"password":{"user":{"password":"x"}}}}}`:                "Invalid input for field identity/password/user: id or name must be present.",
		`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"admin"}}}}}`:                "Expecting to find domain in user. " + malformed,
		`{"auth":{"identity":{"methods":["password"],"password":{"user":{"password":7}}}}}`:                  "Invalid input for field 'identity/password/user/password': 7 is not of type 'string'",
		`{"auth":{"identity":{"methods":["token"],"token":{}}}}`:                                             "Invalid input for field 'identity/token': 'id' is a required property",
		`{"auth":{"identity":{"methods":["application_credential"],"application_credential":{"name":"x"}}}}`: "Expecting to find user in application credential. " + malformed,
		passwordBody("demo", "d-secret", `{}`):                                                               "Expecting to find system, project, domain, OS-TRUST:trust or unscoped in scope. " + malformed,
		passwordBody("demo", "d-secret", `"all"`):                                                            "Expecting to find system, project, domain, OS-TRUST:trust or unscoped in scope. " + malformed,
		passwordBody("demo", "d-secret", `{"project":{"name":"demo"}}`):                                      "Expecting to find domain in project. " + malformed,
	} {
		if a := c.do("", "POST", "/v3/auth/tokens", body); a.status != 400 || a.message() != want || a.at("error", "title") != "Bad Request" {
			t.Errorf("%s: %d %s", body, a.status, a.raw)
		}
	}
	for _, body := range []string{
		passwordBody("demo", "wrong", ""), passwordBody("nobody", "d-secret", ""), `{"auth":{"identity":{"methods":[]}}}`,
		`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"demo","domain":{"id":"default"}}}}}}`,
		`{"auth":{"identity":{"methods":["external"],"external":{}}}}`,
	} {
		if a := c.do("", "POST", "/v3/auth/tokens", body); a.status != 401 {
			t.Errorf("%s: %d %s", body, a.status, a.raw)
		}
	}
}

func TestTokens(t *testing.T) {
	c := newCloud(t)
	admin, demo := c.admin(), c.demo()
	a := c.want(200, demo, "GET", "/v3/auth/tokens", "", "X-Subject-Token", demo)
	if a.header.Get("X-Subject-Token") != demo || a.at("token", "project", "name") != "demo" || a.at("token", "expires_at") != "2026-01-02T04:04:05.000000Z" {
		t.Errorf("%s", a.raw)
	}
	if c.want(200, demo, "GET", "/v3/auth/tokens?nocatalog", "", "X-Subject-Token", demo).at("token", "catalog") != nil {
		t.Error("a catalog though it was not asked for")
	}
	c.want(200, admin, "GET", "/v3/auth/tokens", "", "X-Subject-Token", demo)
	c.want(403, demo, "GET", "/v3/auth/tokens", "", "X-Subject-Token", admin)
	c.want(403, demo, "DELETE", "/v3/auth/tokens", "", "X-Subject-Token", admin)
	c.want(404, admin, "GET", "/v3/auth/tokens", "", "X-Subject-Token", "nonsense")
	c.want(404, admin, "GET", "/v3/auth/tokens", "")
	c.want(401, "", "GET", "/v3/auth/tokens", "", "X-Subject-Token", demo)

	body := fmt.Sprintf(`{"auth":{"identity":{"methods":["token"],"token":{"id":%q}},"scope":"unscoped"}}`, demo)
	c.now.Add(60)
	b := c.want(201, "", "POST", "/v3/auth/tokens", body)
	if b.at("token", "expires_at") != a.at("token", "expires_at") || b.at("token", "audit_ids", 1) != a.at("token", "audit_ids", 0) {
		t.Errorf("the new token is not of the old one: %s", b.raw)
	}
	if fmt.Sprint(b.at("token", "methods")) != "[token password]" {
		t.Errorf("methods %v", b.at("token", "methods"))
	}

	c.want(204, demo, "DELETE", "/v3/auth/tokens", "", "X-Subject-Token", demo)
	if c.alive(demo) {
		t.Error("a revoked token is good")
	}
	if !c.alive(b.header.Get("X-Subject-Token")) {
		t.Error("another token went with it")
	}
	c.now.Add(3600 - 60)
	if c.alive(admin) {
		t.Error("an expired token is good")
	}
	c.admin() // sweeps
	if n := c.count("tokens"); n != 1 {
		t.Errorf("%d tokens are stored", n)
	}
}

func TestTokensAreNotStored(t *testing.T) {
	c := newCloud(t)
	token := c.demo()
	for _, text := range []string{token, "d-secret"} {
		for _, table := range []string{"tokens", "users"} {
			rows := c.dump(table)
			if strings.Contains(rows, text) {
				t.Errorf("%q is in table %s", text, table)
			}
		}
	}
	if len(token) != 43 || c.demo() == token {
		t.Errorf("token %q", token)
	}
}
