package identity

import (
	"strings"
	"testing"
)

func TestACatalogIsRestrictedToEndpoints(t *testing.T) {
	c := newCloud(t)
	admin, project := c.admin(), c.ids.Projects["demo"]
	one, _ := c.want(200, admin, "GET", "/v3/endpoints", "").at("endpoints", 0, "id").(string)
	path := "/v3/OS-EP-FILTER/projects/" + project + "/endpoints"
	at := path + "/" + one
	c.want(404, admin, "GET", at, "")
	c.want(404, admin, "DELETE", at, "")
	c.want(404, admin, "PUT", path+"/nope", "")
	c.want(404, admin, "PUT", "/v3/OS-EP-FILTER/projects/nope/endpoints/"+one, "")
	c.want(403, c.demo(), "PUT", at, "")
	before := c.want(200, c.demo(), "GET", "/v3/auth/catalog", "")
	c.want(204, admin, "PUT", at, "")
	c.want(409, admin, "PUT", at, "")
	c.want(204, admin, "HEAD", at, "")
	if l, _ := c.want(200, admin, "GET", path, "").at("endpoints").([]any); len(l) != 1 {
		t.Errorf("endpoints: %v", l)
	}
	if l, _ := c.want(200, admin, "GET", "/v3/OS-EP-FILTER/endpoints/"+one+"/projects", "").at("projects").([]any); len(l) != 1 {
		t.Errorf("projects: %v", l)
	}
	a := c.want(200, c.demo(), "GET", "/v3/auth/catalog", "")
	if l, _ := a.at("catalog").([]any); len(l) != 1 || !strings.Contains(a.raw, one) {
		t.Errorf("%s", a.raw)
	}
	c.want(204, admin, "DELETE", at, "")
	if a := c.want(200, c.demo(), "GET", "/v3/auth/catalog", ""); a.raw != before.raw {
		t.Errorf("%s", a.raw)
	}
}
