package identity

import "testing"

func TestInheritedRolesHoldBelow(t *testing.T) {
	c := newCloud(t)
	admin, user := c.admin(), c.ids.Users["reader"]
	parent, role := c.ids.Projects["demo"], c.role("member")
	child, _ := c.want(201, admin, "POST", "/v3/projects", `{"project":{"name":"child","parent_id":"`+parent+`"}}`).at("project", "id").(string)
	inChild := passwordBody("reader", "r-secret", `{"project":{"id":"`+child+`"}}`)
	group, _ := c.want(201, admin, "POST", "/v3/groups", `{"group":{"name":"g"}}`).at("group", "id").(string)
	c.want(204, admin, "PUT", "/v3/groups/"+group+"/users/"+user, "")
	for _, at := range []string{
		"/projects/" + parent + "/users/" + user, "/domains/default/users/" + user, "/projects/" + parent + "/groups/" + group, "/domains/default/groups/" + group,
	} {
		roles := "/v3/OS-INHERIT" + at + "/roles"
		path := roles + "/" + role + "/inherited_to_projects"
		c.want(404, admin, "GET", path, "")
		c.want(403, c.demo(), "PUT", path, "")
		c.want(401, "", "POST", "/v3/auth/tokens", inChild)
		for range 2 {
			c.want(204, admin, "PUT", path, "")
		}
		c.want(204, admin, "HEAD", path, "")
		if at[1] == 'p' {
			c.want(404, admin, "GET", roles+"/inherited_to_projects", "")
		} else if l, _ := c.want(200, admin, "GET", roles+"/inherited_to_projects", "").at("roles").([]any); len(l) != 1 {
			t.Errorf("%s: %v", roles, l)
		}
		if l, _ := c.want(200, admin, "GET", "/v3"+at+"/roles", "").at("roles").([]any); len(l) != 0 && at[1] == 'd' {
			t.Errorf("%s: it holds there too: %v", at, l)
		}
		a := c.want(200, admin, "GET", "/v3/role_assignments?scope.OS-INHERIT:inherited_to=projects", "")
		if a.at("role_assignments", 0, "scope", "OS-INHERIT:inherited_to") != "projects" {
			t.Errorf("%s", a.raw)
		}
		token := c.want(201, "", "POST", "/v3/auth/tokens", inChild).header.Get("X-Subject-Token")
		a = c.want(200, admin, "GET", "/v3/role_assignments?effective&user.id="+user+"&scope.project.id="+child, "")
		if l, _ := a.at("role_assignments").([]any); len(l) == 0 {
			t.Errorf("%s: not in what is effective: %s", at, a.raw)
		}
		c.want(204, admin, "DELETE", path, "")
		c.want(404, admin, "DELETE", path, "")
		if c.alive(token) {
			t.Errorf("%s: a token outlives the role", at)
		}
	}
	c.want(404, admin, "PUT", "/v3/OS-INHERIT/projects/"+parent+"/users/"+user+"/roles/nope/inherited_to_projects", "")
	c.want(404, admin, "PUT", "/v3/OS-INHERIT/system/users/"+user+"/roles/"+role+"/inherited_to_projects", "")
}
