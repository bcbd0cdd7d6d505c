//go:build functional

package dashboard

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// leg is a part of a walk; the next ones are tried though it fails.
type leg struct {
	name string
	walk func()
}

func (b *browser) walk(t *testing.T, legs []leg) {
	t.Helper()
	for _, l := range legs {
		t.Run(l.name, func(t *testing.T) {
			b.t = t
			l.walk()
		})
	}
	b.t = t
}

// login signs a user in.
func (b *browser) login(user, password string) {
	b.t.Helper()
	b.open("/auth/login/")
	b.wants("Log in", "User Name")
	b.look("login")
	b.fill("#id_username", user)
	b.fill("#id_password", password)
	b.press("Sign In")
	b.until("logged in", `location.pathname !== '/auth/login/' && `+settled)
}

func TestATenantsWalk(t *testing.T) {
	p, h := start(t)
	b := tenant{startBrowser(t, h.url, "tenant")}
	b.login("demo", p.Password(t, "demo"))
	b.walk(t, []leg{
		{"overview", b.overview},
		{"key pair", b.keyPair},
		{"server group", b.serverGroup},
		{"security group", b.securityGroup},
		{"network", b.network},
		{"router", b.router},
		{"floating ip", b.floatingIP},
		{"images", b.images},
		{"launch", b.launch},
		{"instance", b.instance},
		{"floating ip of an instance", b.associate},
		{"metadata", b.metadata},
		{"security groups of an instance", b.editSecurityGroups},
		{"edit instance", b.editInstance},
		{"interface", b.interface1},
		{"resize", b.resize},
		{"snapshot", b.snapshot},
		{"power", b.power},
		{"topology", b.topology},
		{"usage", b.usage},
		{"create image", b.createImage},
		{"refusals", b.refusals},
		{"delete", b.delete},
		{"clean up", b.cleanUp},
		{"leave", b.leave},
	})
}

func TestAnOperatorsWalk(t *testing.T) {
	p, h := start(t)
	boot(t, p, "tenants")
	b := operator{startBrowser(t, h.url, "operator")}
	b.login("admin", p.Password(t, "admin"))
	b.walk(t, []leg{
		{"overview", b.overview},
		{"hypervisors", b.hypervisors},
		{"flavors", b.flavors},
		{"instances", b.instances},
		{"aggregates", b.aggregates},
		{"images", b.images},
		{"networks", b.networks},
		{"system", b.system},
		{"projects", b.projects},
		{"users", b.users},
		{"roles", b.roles},
		{"changes", b.changes},
		{"create network", b.createNetwork},
		{"quotas", b.quotas},
		{"members", b.members},
		{"others", b.others},
		{"sharing", b.sharing},
	})
}

// start starts a cloud and a Horizon for it. In the end neither may have complained.
func start(t *testing.T) (*cloudtest.Cloud, horizon) {
	t.Helper()
	state := filepath.Join(t.TempDir(), "state")
	p := cloudtest.Boot(t, state, "--debug")
	h := startHorizon(t, p.URL)
	t.Cleanup(func() {
		if said := h.said(t); said != "" {
			t.Errorf("Horizon says:\n%s", said)
		}
		for _, r := range refused(t, state+".log") {
			if !slices.ContainsFunc(meant, r.is) {
				t.Errorf("the cloud answered %+v", r)
			}
		}
	})
	return p, h
}

// refusal is a request that the cloud has refused.
type refusal struct {
	Status       int
	Method, Path string
	Error        string
}

// is reports whether r is of the kind of other.
func (r refusal) is(other refusal) bool {
	return r.Status == other.Status && r.Method == other.Method && strings.Contains(r.Path, other.Path) && strings.Contains(r.Error, other.Error)
}

// meant are the refusals that belong to the walks, each with its reason.
var meant = []refusal{
	// the compute host asks whether there is a provider from an earlier life
	{404, "GET", "/resource_providers/", "No resource provider with uuid"},
	// Horizon tries for a token of the domain after each login, and goes on without
	{401, "POST", "/v3/auth/tokens", "has no role there"},
	// the walk: a wrong password
	{401, "POST", "/v3/auth/tokens", "password"},
	// the walk: a rule that is there, a network in use
	{409, "POST", "/v2.0/security-group-rules", "Security group rule already exists"},
	{409, "DELETE", "/v2.0/networks/", "There are one or more ports still in use on the network"},
}

// refused reads the log of a cloud.
func refused(t *testing.T, path string) []refusal {
	t.Helper()
	log, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var all []refusal
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			refusal
			Message string
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err == nil && line.Message == "request" && line.Status >= 400 {
			all = append(all, line.refusal)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestATenantsChanges(t *testing.T) {
	p, h := start(t)
	boot(t, p, "changing")
	b := changer{startBrowser(t, h.url, "changes"), p.Password(t, "demo")}
	b.login("demo", b.password)
	b.walk(t, []leg{
		{"api access", b.apiAccess},
		{"network", b.network},
		{"port", b.port},
		{"router", b.router},
		{"import key", b.importKey},
		{"rules", b.rules},
		{"actions", b.actions},
		{"settings", b.settings},
	})
}

// boot makes an instance of the project demo.
func boot(t *testing.T, p *cloudtest.Cloud, name string) {
	t.Helper()
	c := p.As(t, "demo")
	pages, err := images.List(c.Image, nil).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := images.ExtractImages(pages)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	s, err := servers.Create(t.Context(), c.Compute, servers.CreateOpts{Name: name, ImageRef: list[0].ID, FlavorRef: "1", Networks: "auto"}, nil).Extract()
	if err != nil {
		t.Fatal(err)
	}
	cloudtest.Eventually(t, name+" runs", func() (bool, error) {
		s, err := servers.Get(t.Context(), c.Compute, s.ID).Extract()
		return err == nil && s.Status == "ACTIVE", err
	})
}
