package identity

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestNouns(t *testing.T) {
	for one, x := range map[string]struct {
		many, create, update, changed string // changed is in the answer to update
		taken                         bool   // the same create again is 409
	}{
		"user":    {"users", `{"name":"x","email":"a@b","password":"p"}`, `{"email":"c@d"}`, `"email":"c@d"`, true},
		"project": {"projects", `{"name":"x","tags":["a"],"kept":1}`, `{"description":"d"}`, `"kept":1`, true},
		"domain":  {"domains", `{"name":"x"}`, `{"enabled":false}`, `"enabled":false`, true},
		"group":   {"groups", `{"name":"x"}`, `{"description":"d"}`, `"description":"d"`, true},
		"role":    {"roles", `{"name":"x"}`, `{"name":"y"}`, `"name":"y"`, true},
		"service": {"services", `{"type":"x"}`, `{"enabled":false}`, `"enabled":false`, false},
		"region":  {"regions", `{"id":"x"}`, `{"description":"d"}`, `"description":"d"`, true},
	} {
		t.Run(one, func(t *testing.T) {
			c := newCloud(t)
			admin := c.admin()
			wrap := func(b string) string { return fmt.Sprintf(`{%q:%s}`, one, b) }
			a := c.want(201, admin, "POST", "/v3/"+x.many, wrap(x.create))
			id, _ := a.at(one, "id").(string)
			path := "/v3/" + x.many + "/" + id
			if self := a.at(one, "links", "self"); self != "http://cloud:5000"+path {
				t.Errorf("self %v", self)
			}
			if x.taken {
				b := c.want(409, admin, "POST", "/v3/"+x.many, wrap(x.create))
				if !strings.HasPrefix(b.message(), "Conflict occurred attempting to store ") {
					t.Errorf("%s", b.raw)
				}
			}
			if b := c.want(200, admin, "GET", path, ""); b.raw != a.raw {
				t.Errorf("made %s, is %s", a.raw, b.raw)
			}
			if !strings.Contains(c.want(200, admin, "GET", "/v3/"+x.many, "").raw, id) {
				t.Error("not in the list")
			}
			if b := c.want(200, admin, "PATCH", path, wrap(x.update)); !strings.Contains(b.raw, x.changed) {
				t.Errorf("%s", b.raw)
			}
			c.want(400, admin, "PATCH", path, wrap(`{}`))
			c.want(400, admin, "PATCH", path, wrap(`{"id":"other"}`))
			c.want(404, admin, "PATCH", path+"x", wrap(x.update))
			before := c.dump("grants") + c.dump("users") + c.dump("projects")
			for _, method := range []string{"PATCH", "DELETE"} {
				c.want(403, c.demo(), method, path, wrap(x.update))
			}
			c.want(403, c.demo(), "POST", "/v3/"+x.many, wrap(x.create))
			if after := c.dump("grants") + c.dump("users") + c.dump("projects"); after != before {
				t.Error("a refused request changed something")
			}
			c.want(204, admin, "DELETE", path, "")
			c.want(404, admin, "GET", path, "")
			c.want(404, admin, "DELETE", path, "")
		})
	}
}

func TestWrongInputIsRefusedInKeystonesWords(t *testing.T) {
	c := newCloud(t)
	admin := c.admin()
	before := c.dump("users") + c.dump("projects") + c.dump("endpoints")
	for _, x := range []struct{ path, body, want string }{
		{"users", `{"user":{"name":5}}`, "Invalid input for field 'name': 5 is not of type 'string'"},
		{"users", `{"user":{"name":" "}}`, `Invalid input for field 'name': ' ' does not match '[\\S]+'`},
		{"users", `{"user":{"name":""}}`, "Invalid input for field 'name': '' is too short"},
		{"users", `{"user":{}}`, "'name' is a required property"},
		{"users", `{}`, "'name' is a required property"},
		{"users", `{"user":[]}`, "[] is not of type 'object'"},
		{"users", `{"user":{"name":"x","password":7}}`, "Invalid input for field 'password': 7 is not of type 'string', 'null'"},
		{"users", `{"user":{"name":"x","options":{"a":1}}}`, "Invalid input for field 'options': Additional properties are not allowed ('a' was unexpected)"},
		{"users", `{"user":{"name":"x","domain_id":"nope"}}`, "Could not find domain: nope."},
		{"projects", `{"project":{"name":"x","parent_id":"nope"}}`, "Could not find project: nope."},
		{"projects", `{"project":{"name":"x","tags":["a,b"]}}`, "Invalid input for field 'tags/0': 'a,b' does not match '^[^,/]*$'"},
		{"projects", `{"project":{"name":"x","tags":["a","a"]}}`, "Invalid input for field 'tags': ['a', 'a'] has non-unique elements"},
		{"endpoints", `{"endpoint":{"service_id":"nope","interface":"public","url":"http://x"}}`, "Expecting to find endpoint service_id in service table. " + malformed},
		{"endpoints", `{"endpoint":{"service_id":"nope","interface":"x","url":"http://x"}}`, "Invalid input for field 'interface': 'x' is not one of ['admin', 'internal', 'public']"},
		{"endpoints", `{"endpoint":{"service_id":"nope","interface":"public","url":"http://x/$(y)s"}}`, "Cannot create an endpoint with an invalid URL: http://x/$(y)s."},
		{"regions", `{"region":{"id":"x","parent_region_id":"nope"}}`, "Could not find region: nope."},
	} {
		if a := c.do(admin, "POST", "/v3/"+x.path, x.body); a.status < 400 || a.status >= 500 || a.message() != x.want {
			t.Errorf("%s: %d %s", x.body, a.status, a.raw)
		}
	}
	if after := c.dump("users") + c.dump("projects") + c.dump("endpoints"); after != before {
		t.Error("something has changed")
	}
}

func TestWhatANonAdminSees(t *testing.T) {
	c := newCloud(t)
	demo, system := c.demo(), c.token("admin", "a-secret", `{"system":{"all":true}}`)
	self := c.ids.Users["demo"]
	for path, status := range map[string]int{
		"/v3/users": 403, "/v3/projects": 403, "/v3/domains": 403, "/v3/roles": 403, "/v3/role_assignments": 403, "/v3/services": 403,
		"/v3/endpoints": 403, "/v3/groups": 403, "/v3/regions": 200, "/v3/users/" + self: 200, "/v3/users/" + c.ids.Users["admin"]: 403,
		"/v3/users/nope": 403, "/v3/projects/" + c.ids.Projects["demo"]: 200, "/v3/projects/" + c.ids.Projects["admin"]: 403,
		"/v3/domains/default": 200, "/v3/roles/nope": 404, "/v3/users/" + self + "/projects": 200, "/v3/users/" + c.ids.Users["admin"] + "/projects": 403,
		"/v3/users/" + self + "/groups": 200, "/v3/users/" + self + "/application_credentials": 200, "/v3/role_inferences": 403,
		"/v3/users/" + c.ids.Users["admin"] + "/application_credentials": 403, "/v3/credentials": 200, "/v3/auth/domains": 200, "/v3/auth/system": 200,
	} {
		if a := c.do(demo, "GET", path, ""); a.status != status {
			t.Errorf("demo, %s: %d %s", path, a.status, a.raw)
		}
		if a := c.do(system, "GET", path, ""); a.status != 200 && a.status != 404 {
			t.Errorf("system, %s: %d %s", path, a.status, a.raw)
		}
		if a := c.do("", "GET", path, ""); a.status != 401 {
			t.Errorf("nobody, %s: %d %s", path, a.status, a.raw)
		}
	}
	a := c.want(200, demo, "GET", "/v3/auth/projects", "")
	if a.at("projects", 0, "name") != "demo" || a.at("projects", 1) != nil {
		t.Errorf("%s", a.raw)
	}
}

func TestFilters(t *testing.T) {
	c := newCloud(t)
	admin := c.admin()
	c.want(200, admin, "PATCH", "/v3/users/"+c.ids.Users["reader"], `{"user":{"enabled":false}}`)
	for query, want := range map[string]int{
		"": 4, "?name=demo": 1, "?name__contains=ad": 2, "?name__istartswith=DE": 1, "?enabled=false": 1, "?enabled": 3, "?domain_id=x": 0, "?foo=bar": 4, "?name__bogus=x": 4,
	} {
		if l, _ := c.want(200, admin, "GET", "/v3/users"+query, "").at("users").([]any); len(l) != want {
			t.Errorf("%s: %d", query, len(l))
		}
	}
}

func TestDomainsAreNoProjectsUnlessAskedFor(t *testing.T) {
	c := newCloud(t)
	admin := c.admin()
	c.want(201, admin, "POST", "/v3/roles", `{"role":{"name":"own","domain_id":"default"}}`)
	for path, want := range map[string]int{
		"/v3/projects": 3, "/v3/projects?is_domain=true": 1, "/v3/projects?name=Default": 0, "/v3/domains": 1, "/v3/roles": 4, "/v3/roles?domain_id=default": 1,
	} {
		a := c.want(200, admin, "GET", path, "")
		many, _, _ := strings.Cut(strings.TrimPrefix(path, "/v3/"), "?")
		if l, _ := a.at(many).([]any); len(l) != want {
			t.Errorf("%s: %d, want %d", path, len(l), want)
		}
	}
}

func TestImmutableAndImpliedRoles(t *testing.T) {
	c := newCloud(t)
	admin, a, m := c.admin(), c.role("admin"), c.role("member")
	c.want(403, admin, "DELETE", "/v3/roles/"+a, "")
	c.want(403, admin, "PATCH", "/v3/roles/"+a, `{"role":{"name":"x"}}`)
	r, _ := c.want(201, admin, "POST", "/v3/roles", `{"role":{"name":"boss"}}`).at("role", "id").(string)
	c.want(403, admin, "PUT", "/v3/roles/"+r+"/implies/"+a, "")
	c.want(201, admin, "PUT", "/v3/roles/"+r+"/implies/"+m, "")
	c.want(409, admin, "PUT", "/v3/roles/"+r+"/implies/"+m, "")
	c.want(201, admin, "PUT", "/v3/roles/"+m+"/implies/"+r, "") // a circle does no harm
	c.want(204, admin, "HEAD", "/v3/roles/"+r+"/implies/"+m, "")
	who, err := c.Caller(t.Context(), c.demo())
	if err != nil || !who.Has("boss") || !who.Has("reader") {
		t.Errorf("%+v, %v", who, err)
	}
	c.want(204, admin, "DELETE", "/v3/roles/"+r+"/implies/"+m, "")
	c.want(404, admin, "GET", "/v3/roles/"+r+"/implies/"+m, "")
	if l, _ := c.want(200, admin, "GET", "/v3/role_inferences", "").at("role_inferences").([]any); len(l) != 2 {
		t.Errorf("%v", l)
	}
}

func TestApplicationCredentials(t *testing.T) {
	c := newCloud(t)
	demo := c.demo()
	path := "/v3/users/" + c.ids.Users["demo"] + "/application_credentials"
	a := c.want(201, demo, "POST", path, `{"application_credential":{"name":"ci","roles":[{"name":"reader"}],"expires_at":"2026-01-02T03:34:05.386"}}`)
	id, _ := a.at("application_credential", "id").(string)
	secret, _ := a.at("application_credential", "secret").(string)
	if end := a.at("application_credential", "expires_at"); end != "2026-01-02T03:34:05.386000" {
		t.Errorf("ends at %v", end)
	}
	if strings.Contains(c.dump("application_credentials"), secret) || strings.Contains(c.want(200, demo, "GET", path+"/"+id, "").raw, "secret") {
		t.Error("the secret is told")
	}
	login := func(secret, more string) string {
		return fmt.Sprintf(`{"auth":{"identity":{"methods":["application_credential"],"application_credential":{"id":%q,"secret":%q}}%s}}`, id, secret, more)
	}
	b := c.want(201, "", "POST", "/v3/auth/tokens", login(secret, ""))
	token := b.header.Get("X-Subject-Token")
	who, err := c.Caller(t.Context(), token)
	if err != nil || who.Member() || !who.Has("reader") || who.ProjectName != "demo" || b.at("token", "expires_at") != "2026-01-02T03:34:05.000000Z" {
		t.Errorf("%+v, %v, %s", who, err, b.raw)
	}
	c.want(401, "", "POST", "/v3/auth/tokens", login("wrong", ""))
	c.want(401, "", "POST", "/v3/auth/tokens", login(secret, `,"scope":{"project":{"id":"x"}}`))
	c.want(403, "", "POST", "/v3/auth/tokens", fmt.Sprintf(`{"auth":{"identity":{"methods":["token"],"token":{"id":%q}}}}`, token))
	c.want(403, token, "POST", path, `{"application_credential":{"name":"more"}}`)
	c.want(403, token, "DELETE", path+"/"+id, "")
	c.want(409, demo, "POST", path, `{"application_credential":{"name":"ci"}}`)
	c.want(400, demo, "POST", path, `{"application_credential":{"name":"x","roles":[{"name":"admin"}]}}`)
	c.want(400, demo, "POST", path, `{"application_credential":{"name":"x","expires_at":"2020-01-01T00:00:00"}}`)
	c.want(400, demo, "POST", path, `{"application_credential":{"name":"x","expires_at":"soon"}}`)
	c.want(501, demo, "POST", path, `{"application_credential":{"name":"x","access_rules":[{"path":"/"}]}}`)
	c.want(403, c.admin(), "POST", path, `{"application_credential":{"name":"x"}}`)
	c.want(204, demo, "DELETE", path+"/"+id, "")
	if c.alive(token) {
		t.Error("the token outlived its credential")
	}

	c.want(201, demo, "POST", path, `{"application_credential":{"name":"own","secret":"mine"}}`)
	byName := fmt.Sprintf(`{"auth":{"identity":{"methods":["application_credential"],"application_credential":{"name":"own","secret":"mine","user":{"id":%q}}}}}`, c.ids.Users["demo"])
	c.want(201, "", "POST", "/v3/auth/tokens", byName)
	c.want(204, c.admin(), "DELETE", "/v3/projects/"+c.ids.Projects["demo"]+"/users/"+c.ids.Users["demo"]+"/roles/"+c.role("member"), "")
	c.want(401, "", "POST", "/v3/auth/tokens", byName)
}

func TestAssignments(t *testing.T) {
	c := newCloud(t)
	admin := c.admin()
	user, role := c.ids.Users["reader"], c.role("member")
	for target, name := range map[string]string{
		"/v3/projects/" + c.ids.Projects["admin"]: "scope.project.id=" + c.ids.Projects["admin"], "/v3/domains/default": "scope.domain.id=default", "/v3/system": "scope.system=all",
	} {
		path := target + "/users/" + user + "/roles"
		c.want(404, admin, "DELETE", path+"/"+role, "")
		c.want(404, admin, "HEAD", path+"/"+role, "")
		for range 2 {
			c.want(204, admin, "PUT", path+"/"+role, "")
		}
		c.want(204, admin, "HEAD", path+"/"+role, "")
		if l, _ := c.want(200, admin, "GET", path, "").at("roles").([]any); len(l) != 1 {
			t.Errorf("%s: %v", path, l)
		}
		if l, _ := c.want(200, admin, "GET", "/v3/role_assignments?user.id="+user+"&"+name, "").at("role_assignments").([]any); len(l) != 1 {
			t.Errorf("%s: %v", name, l)
		}
		c.want(204, admin, "DELETE", path+"/"+role, "")
		c.want(404, admin, "PUT", path+"/nope", "")
		c.want(403, c.demo(), "PUT", path+"/"+role, "")
	}
	for _, q := range []string{"user.id=a&group.id=b", "effective&group.id=b", "scope.project.id=a&scope.domain.id=b"} {
		c.want(400, admin, "GET", "/v3/role_assignments?"+q, "")
	}
}

func TestTags(t *testing.T) {
	c := newCloud(t)
	admin, path := c.admin(), "/v3/projects/"+c.ids.Projects["demo"]+"/tags"
	c.want(201, admin, "PUT", path+"/a%20b", "")
	c.want(400, admin, "PUT", path+"/a,b", "")
	c.want(204, c.demo(), "GET", path+"/a%20b", "")
	c.want(403, c.demo(), "DELETE", path, "")
	c.want(200, admin, "PUT", path, `{"tags":["x","y"]}`)
	c.want(404, admin, "DELETE", path+"/z", "")
	c.want(204, admin, "DELETE", path+"/x", "")
	if a := c.want(200, admin, "GET", path, ""); a.at("tags", 0) != "y" {
		t.Errorf("%s", a.raw)
	}
	c.want(200, admin, "PUT", path, `{"tags":["x","y"]}`)
	for query, want := range map[string]int{
		"tags=x": 1, "tags=x,y": 1, "tags=x,z": 0, "tags-any=x,z": 1, "tags-any=z": 0, "not-tags=x,y": 2, "not-tags=x,z": 3,
		"not-tags-any=y,z": 2, "not-tags-any=z": 3, "tags=x&not-tags-any=y": 0,
	} {
		if l, _ := c.want(200, admin, "GET", "/v3/projects?"+query, "").at("projects").([]any); len(l) != want {
			t.Errorf("%s: %d, want %d", query, len(l), want)
		}
	}
	c.want(204, admin, "DELETE", path, "")
}

func TestAssignmentsOfATree(t *testing.T) {
	c := newCloud(t)
	admin, user := c.admin(), c.ids.Users["reader"]
	parent := c.ids.Projects["demo"]
	child, _ := c.want(201, admin, "POST", "/v3/projects", `{"project":{"name":"child","parent_id":"`+parent+`"}}`).at("project", "id").(string)
	role, _ := c.want(201, admin, "POST", "/v3/roles", `{"role":{"name":"own","domain_id":"default"}}`).at("role", "id").(string)
	at := "/v3/projects/" + child + "/users/" + user + "/roles"
	c.want(204, admin, "PUT", at+"/"+role, "")
	if a := c.want(200, admin, "GET", at, ""); a.at("roles", 0, "id") != role {
		t.Errorf("a role of a domain is not in the list: %s", a.raw)
	}
	for query, want := range map[string]int{
		"scope.project.id=" + parent: 0, "include_subtree&scope.project.id=" + parent: 1, "include_subtree=1&include_names&scope.project.id=default": 1,
		"include_subtree=0&scope.project.id=" + parent: 0, "include_subtree&scope.project.id=" + child: 1, "include_subtree&scope.project.id=" + c.ids.Projects["admin"]: 0,
	} {
		a := c.want(200, admin, "GET", "/v3/role_assignments?user.id="+user+"&role.id="+role+"&"+query, "")
		if l, _ := a.at("role_assignments").([]any); len(l) != want {
			t.Errorf("%s: %s", query, a.raw)
		}
		if strings.Contains(query, "names") && a.at("role_assignments", 0, "role", "domain", "name") != "Default" {
			t.Errorf("%s: %s", query, a.raw)
		}
	}
	c.want(400, admin, "GET", "/v3/role_assignments?include_subtree", "")
	c.want(403, c.demo(), "GET", "/v3/role_assignments?include_subtree&scope.project.id="+parent, "")
}

// FuzzAPI throws requests at everything: never a 5xx (but 501), never a panic.
func FuzzAPI(f *testing.F) {
	for _, x := range []struct{ method, path, body string }{
		{"POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["password","token"],"password":{"user":{"name":"demo","domain":{"id":"default"},"password":"d-secret"}},"token":{"id":"x"}},"scope":{"project":{"id":"x"}}}}`},
		{"POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["application_credential"],"application_credential":{"id":"x","secret":"y"}},"scope":null}}`},
		{"POST", "/v3/users", `{"user":{"name":"x","options":{"lock_password":true},"enabled":null,"id":"y","extra":{"a":[1]}}}`},
		{"PATCH", "/v3/projects/default", `{"project":{"tags":["a"],"parent_id":null,"options":{"immutable":true}}}`},
		{"PUT", "/v3/projects/default/tags/a%2fb", ""},
		{"POST", "/v3/regions", `{"region":{"id":"a","parent_region_id":"a"}}`},
		{"POST", "/v3/endpoints", `{"endpoint":{"interface":"public","service_id":"x","url":"http://x/$(","region":7}}`},
		{"GET", "/v3/role_assignments?effective&include_names=1&scope.system=all", ""},
		{"GET", "/v3/users?name__icontains=%", ""},
		{"POST", "/v3/users/x/application_credentials", `{"application_credential":{"name":"x","roles":[{"id":"y"}],"expires_at":"9999-12-31T23:59:59Z"}}`},
	} {
		f.Add(x.method, x.path, x.body)
	}
	c := newCloud(f)
	token := c.admin()
	f.Fuzz(func(t *testing.T, method, path, body string) {
		if !strings.HasPrefix(path, "/") || !usable(method, path) {
			return
		}
		c.t = t
		a := c.do(token, method, path, body)
		if a.status >= 500 && a.status != 501 {
			t.Errorf("%s %s %s: %d %s", method, path, body, a.status, a.raw)
		}
	})
}

// usable reports whether a request can be made of these at all.
func usable(method, path string) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	httptest.NewRequest(method, "http://cloud:5000"+path, nil)
	return true
}
