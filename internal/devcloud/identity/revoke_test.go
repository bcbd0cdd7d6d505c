package identity

import (
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
)

func (c *cloud) count(table string) (n int) {
	c.t.Helper()
	if err := c.db.Read(c.t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRowContext(c.t.Context(), "SELECT count(*) FROM "+table).Scan(&n)
	}); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// dump is everything in a table as text.
func (c *cloud) dump(table string) string {
	c.t.Helper()
	var b strings.Builder
	err := c.db.Read(c.t.Context(), func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(c.t.Context(), "SELECT * FROM "+table)
		if err != nil {
			return err
		}
		defer rows.Close()
		names, err := rows.Columns()
		if err != nil {
			return err
		}
		for rows.Next() {
			into := make([]any, len(names))
			for i := range into {
				into[i] = new(sql.RawBytes)
			}
			if err := rows.Scan(into...); err != nil {
				return err
			}
			for _, v := range into {
				b.Write(*v.(*sql.RawBytes))
				b.WriteByte('\n')
			}
		}
		return rows.Err()
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return b.String()
}

func (c *cloud) role(name string) string {
	c.t.Helper()
	id, _ := c.want(200, c.admin(), "GET", "/v3/roles?name="+name, "").at("roles", 0, "id").(string)
	return id
}

func TestWhatEndsATokenEndsItAtOnce(t *testing.T) {
	for name, x := range map[string]struct {
		method, path, body string // of the admin; %u, %p and %r are demo's ids
		revives            string // a body that undoes it, after which the token stays dead
	}{
		"user disabled":    {"PATCH", "/v3/users/%u", `{"user":{"enabled":false}}`, `{"user":{"enabled":true}}`},
		"password set":     {"PATCH", "/v3/users/%u", `{"user":{"password":"other"}}`, ""},
		"user deleted":     {"DELETE", "/v3/users/%u", "", ""},
		"project disabled": {"PATCH", "/v3/projects/%p", `{"project":{"enabled":false}}`, `{"project":{"enabled":true}}`},
		"project deleted":  {"DELETE", "/v3/projects/%p", "", ""},
		"role removed":     {"DELETE", "/v3/projects/%p/users/%u/roles/%r", "", ""},
		"password changed": {"POST", "/v3/users/%u/password", `{"user":{"password":"other","original_password":"d-secret"}}`, ""},
		"domain disabled":  {"PATCH", "/v3/domains/default", `{"domain":{"enabled":false}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t)
			token, admin := c.demo(), c.admin()
			if !c.alive(token) {
				t.Fatal("not good to begin with")
			}
			path := strings.NewReplacer("%u", c.ids.Users["demo"], "%p", c.ids.Projects["demo"], "%r", c.role("member")).Replace(x.path)
			if a := c.do(admin, x.method, path, x.body); a.status >= 300 {
				t.Fatalf("%d %s", a.status, a.raw)
			}
			if c.alive(token) {
				t.Error("the token is still good")
			}
			if x.revives != "" {
				c.want(200, admin, x.method, path, x.revives)
				if c.alive(token) {
					t.Error("the token has come back")
				}
			}
		})
	}
}

func TestARoleThatIsRemovedIsMissingAtOnce(t *testing.T) {
	c := newCloud(t)
	user, project := c.ids.Users["admin"], c.ids.Projects["admin"]
	token, other := c.admin(), c.token("admin", "a-secret", `{"system":{"all":true}}`)
	c.want(204, other, "PUT", "/v3/projects/"+project+"/users/"+user+"/roles/"+c.role("reader"), "")
	c.want(204, other, "DELETE", "/v3/projects/"+project+"/users/"+user+"/roles/"+c.role("admin"), "")
	who, err := c.Caller(t.Context(), token)
	if err != nil || who.Admin() || !who.Has("reader") {
		t.Errorf("%+v, %v", who, err)
	}
	c.want(403, token, "GET", "/v3/users", "")
}

func TestGroupsGiveRoles(t *testing.T) {
	c := newCloud(t)
	admin, user := c.admin(), c.ids.Users["reader"]
	group, _ := c.want(201, admin, "POST", "/v3/groups", `{"group":{"name":"g"}}`).at("group", "id").(string)
	c.want(204, admin, "PUT", "/v3/projects/"+c.ids.Projects["admin"]+"/groups/"+group+"/roles/"+c.role("member"), "")
	c.want(401, "", "POST", "/v3/auth/tokens", passwordBody("reader", "r-secret", inProject("admin")))
	c.want(404, admin, "HEAD", "/v3/groups/"+group+"/users/"+user, "")
	c.want(204, admin, "PUT", "/v3/groups/"+group+"/users/"+user, "")
	c.want(204, admin, "HEAD", "/v3/groups/"+group+"/users/"+user, "")
	token := c.token("reader", "r-secret", inProject("admin"))
	who, err := c.Caller(t.Context(), token)
	if err != nil || !who.Member() || who.Admin() {
		t.Errorf("%+v, %v", who, err)
	}
	a := c.want(200, admin, "GET", "/v3/role_assignments?effective&include_names&user.id="+user+"&scope.project.id="+c.ids.Projects["admin"], "")
	if !strings.Contains(a.raw, "/groups/"+group+"/roles/") || a.at("role_assignments", 0, "user", "name") != "reader" || a.at("role_assignments", 1) == nil {
		t.Errorf("%s", a.raw)
	}
	c.want(204, admin, "DELETE", "/v3/groups/"+group+"/users/"+user, "")
	if c.alive(token) {
		t.Error("the token outlived the membership")
	}
	c.want(404, admin, "DELETE", "/v3/groups/"+group+"/users/"+user, "")
}

func TestAWrongPasswordIsForgottenWithTheRightOne(t *testing.T) {
	c := newCloud(t)
	for range 2 { // the second time from memory
		c.demo()
	}
	c.want(204, "", "POST", "/v3/users/"+c.ids.Users["demo"]+"/password", `{"user":{"password":"n","original_password":"d-secret"}}`)
	c.want(401, "", "POST", "/v3/auth/tokens", passwordBody("demo", "d-secret", ""))
	c.token("demo", "n", "")
	c.want(401, "", "POST", "/v3/users/"+c.ids.Users["demo"]+"/password", `{"user":{"password":"n","original_password":"d-secret"}}`)
	c.want(400, "", "POST", "/v3/users/"+c.ids.Users["demo"]+"/password", `{"user":{"password":"n"}}`)
	c.want(401, "", "POST", "/v3/users/nobody/password", `{"user":{"password":"n","original_password":"x"}}`)
}

func TestCallersBesideRevocation(t *testing.T) {
	c := newCloud(t)
	for i := range 10 {
		token := c.demo()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 20 {
					_, _ = c.Caller(t.Context(), token)
				}
			})
		}
		c.want(204, token, "DELETE", "/v3/auth/tokens", "", "X-Subject-Token", token)
		wg.Wait()
		if c.alive(token) {
			t.Fatalf("round %d: a revoked token is good", i)
		}
	}
}

func TestBootstrapMayBeRepeated(t *testing.T) {
	c := newCloud(t)
	before := c.dump("users") + c.dump("projects") + c.dump("roles") + c.dump("grants") + c.dump("services")
	endpoints := c.count("endpoints")
	again := request()
	again.Users[0].Password = "not taken"
	again.Services[1].URL = "http://127.0.0.1:1/v2.1"
	ids, err := c.Bootstrap(t.Context(), again)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(ids) != fmt.Sprint(c.ids) {
		t.Errorf("%v, was %v", ids, c.ids)
	}
	if after := c.dump("users") + c.dump("projects") + c.dump("roles") + c.dump("grants") + c.dump("services"); after != before {
		t.Errorf("changed from\n%s\nto\n%s", before, after)
	}
	if n := c.count("endpoints"); n != endpoints || !strings.Contains(c.dump("endpoints"), "http://127.0.0.1:1/v2.1") {
		t.Errorf("%d endpoints: %s", n, c.dump("endpoints"))
	}
	c.admin()
	again.Users[3].Password = "n-other"
	if _, err := c.Bootstrap(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	c.token("nova", "n-other", "")
	again.Users[3].Roles = map[string][]string{"service": {"king"}}
	if _, err := c.Bootstrap(t.Context(), again); err == nil {
		t.Error("a role that does not exist")
	}
}

func TestCatalogFollowsTheProject(t *testing.T) {
	c := newCloud(t)
	a := c.want(200, c.demo(), "GET", "/v3/auth/catalog", "")
	if !strings.Contains(a.raw, "http://127.0.0.1:8776/v3/"+c.ids.Projects["demo"]) {
		t.Errorf("%s", a.raw)
	}
	c.want(403, c.token("demo", "d-secret", `"unscoped"`), "GET", "/v3/auth/catalog", "")
}
