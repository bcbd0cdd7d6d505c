package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/driver/messaging/amqp/amqptest"
	"github.com/gantry-project/gantry/internal/doctor"
	"github.com/gantry-project/gantry/internal/openstack/openstacktest"
)

const hush = "hush-hush"

// controlPlane is what a doctor asks, all well until a test changes it.
type controlPlane struct {
	broker   net.Listener
	keystone *openstacktest.Keystone
	server   *httptest.Server
	// answers are the bodies of services by their paths; a status is an answer too.
	answers map[string]any
	date    func() string
}

func newControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		(&amqptest.Broker{User: "gantry", Password: hush, VHost: "nova"}).Serve(l)
	}()
	p := &controlPlane{broker: l, keystone: &openstacktest.Keystone{Passwords: map[string]string{"nova": hush}}, answers: map[string]any{
		"/placement/":                   map[string]any{"versions": []any{}},
		"/network/":                     map[string]any{"versions": []any{}},
		"/image/":                       map[string]any{"versions": []any{}},
		"/placement/resource_providers": map[string]any{"resource_providers": []any{}},
		"/network/v2.0/extensions":      map[string]any{"extensions": []any{}},
		"/network/v2.0/agents": map[string]any{"agents": []any{
			map[string]any{"agent_type": "DHCP agent", "alive": false, "admin_state_up": true},
			map[string]any{"agent_type": "Linux bridge agent", "alive": true, "admin_state_up": true},
		}},
		"/image/v2/images":          map[string]any{"images": []any{}},
		"/compute/v2.1/os-services": map[string]any{"services": []any{map[string]any{"state": "up", "status": "enabled"}}},
	}}
	p.server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(func() { p.server.Close(); _ = l.Close(); <-served })
	p.keystone.Catalog = map[string]string{}
	for _, kind := range []string{"placement", "network", "image", "compute"} {
		p.keystone.Catalog[kind] = p.server.URL + "/" + kind
	}
	return p
}

func (p *controlPlane) serve(w http.ResponseWriter, r *http.Request) {
	if path, ok := strings.CutPrefix(r.URL.Path, "/identity"); ok {
		r.URL.Path = path
		p.keystone.ServeHTTP(w, r)
		return
	}
	if p.date != nil {
		w.Header()["Date"] = nil // none, unless one is set
		if date := p.date(); date != "" {
			w.Header().Set("Date", date)
		}
	}
	switch a := p.answers[r.URL.Path].(type) {
	case nil:
		http.NotFound(w, r)
	case chan struct{}: // somebody who never answers
		a <- struct{}{}
		<-r.Context().Done()
	case int:
		http.Error(w, "no: "+hush[:4], a)
	default:
		if p.keystone.User(r.Header.Get("X-Auth-Token")) == "" {
			http.Error(w, "no token", http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(a)
	}
}

// config is that of a service of the control plane.
func (p *controlPlane) config(t *testing.T, set ...string) *config.Config {
	t.Helper()
	over := []string{
		"DEFAULT.transport_url=rabbit://gantry:" + hush + "@" + p.broker.Addr().String() + "/nova",
		"DEFAULT.host=node-1", "DEFAULT.my_ip=127.0.0.1", "DEFAULT.state_path=" + t.TempDir(),
	}
	for _, section := range []string{"placement", "neutron", "glance", "service_user"} {
		over = append(over, section+".auth_url="+p.server.URL+"/identity", section+".username=nova", section+".password="+hush,
			section+".user_domain_name=Default", section+".project_name=service", section+".project_domain_name=Default")
	}
	cfg, err := config.Load(config.Sources{Overrides: append(over, set...)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// ask returns what the doctor finds around a service, by the names of checks.
func ask(t *testing.T, cfg *config.Config) map[string]doctor.Result {
	t.Helper()
	checks, done, err := surroundings(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	all := map[string]doctor.Result{}
	for _, r := range doctor.Together(t.Context(), &doctor.Host{}, checks) {
		all[r.Name] = r
		if ok := r.Level == doctor.OK; r.Found == "" || ok != (r.Costs == "") || ok != (r.Remedy == "") {
			t.Errorf("%+v", r)
		}
	}
	if said := fmt.Sprintf("%+v", all); strings.Contains(said, hush) {
		t.Errorf("it tells the password: %s", said)
	}
	return all
}

func TestDoctorOfAHealthyCloud(t *testing.T) {
	p := newControlPlane(t)
	all := ask(t, p.config(t, "service_user.send_service_user_token=true"))
	for _, r := range all {
		if r.Level != doctor.OK {
			t.Errorf("%+v", r)
		}
	}
	if len(all) != 8 || !strings.Contains(all["identity"].Found, "[service_user]") {
		t.Errorf("%+v", all)
	}
}

func TestDoctorOfASickCloud(t *testing.T) {
	answer := func(path string, a any) func(*controlPlane) {
		return func(p *controlPlane) { p.answers[path] = a }
	}
	agents := func(list ...map[string]any) func(*controlPlane) {
		return answer("/network/v2.0/agents", map[string]any{"agents": list})
	}
	services := func(list ...map[string]any) func(*controlPlane) {
		return answer("/compute/v2.1/os-services", map[string]any{"services": list})
	}
	for name, c := range map[string]struct {
		change func(*controlPlane)
		set    []string
		check  string
		want   doctor.Level
		found  string // part of it
	}{
		"no broker":             {func(p *controlPlane) { _ = p.broker.Close() }, nil, "broker", doctor.Fail, "connect"},
		"wrong vhost":           {nil, []string{"DEFAULT.transport_url=VHOST"}, "broker", doctor.Fail, "vhost not found"},
		"one of two brokers":    {nil, []string{"DEFAULT.transport_url=TWO"}, "broker", doctor.Warn, "127.0.0.1:1"},
		"wrong password":        {nil, []string{"neutron.password=" + hush + "x"}, "identity", doctor.Fail, "[neutron]"},
		"wrong for Neutron":     {nil, []string{"neutron.password=" + hush + "x"}, "neutron", doctor.Fail, "401"},
		"nobody for Nova":       {nil, []string{"neutron.password=" + hush + "x"}, "nova-service", doctor.Note, "401"},
		"not in the catalog":    {func(p *controlPlane) { delete(p.keystone.Catalog, "image") }, nil, "glance", doctor.Fail, "no endpoint"},
		"Placement fails":       {answer("/placement/resource_providers", 503), nil, "placement", doctor.Fail, "503"},
		"Glance is not there":   {nil, []string{"glance.api_servers=http://127.0.0.1:1"}, "glance", doctor.Fail, "refused"},
		"Neutron forbids":       {answer("/network/v2.0/extensions", 403), nil, "neutron", doctor.Fail, "403"},
		"no agent":              {agents(), nil, "neutron-agent", doctor.Warn, `"node-1"`},
		"another agent only":    {agents(map[string]any{"agent_type": "L3 agent", "alive": true, "admin_state_up": true}), nil, "neutron-agent", doctor.Warn, "none"},
		"a dead agent":          {agents(map[string]any{"agent_type": "Open vSwitch agent", "admin_state_up": true}), nil, "neutron-agent", doctor.Fail, "is dead"},
		"switched off":          {agents(map[string]any{"agent_type": "Open vSwitch agent", "alive": true}), nil, "neutron-agent", doctor.Fail, "is switched off"},
		"OVN":                   {agents(map[string]any{"agent_type": "OVN Controller agent", "alive": true, "admin_state_up": true}), nil, "neutron-agent", doctor.OK, "OVN"},
		"agents not to be seen": {answer("/network/v2.0/agents", 403), nil, "neutron-agent", doctor.Note, "may not ask"},
		"agents that fail":      {answer("/network/v2.0/agents", 500), nil, "neutron-agent", doctor.Warn, "500"},
		"no record":             {services(), nil, "nova-service", doctor.Note, "yet"},
		"down":                  {services(map[string]any{"state": "down", "status": "enabled"}), nil, "nova-service", doctor.Warn, "down"},
		"disabled":              {services(map[string]any{"state": "up", "status": "disabled", "disabled_reason": "repair"}), nil, "nova-service", doctor.Warn, "disabled repair"},
		"Nova not to be asked":  {answer("/compute/v2.1/os-services", 403), nil, "nova-service", doctor.Note, "may not ask"},
		"an old time":           {func(p *controlPlane) { p.date = func() string { return "Tue, 01 Jan 2019 00:00:00 GMT" } }, nil, "clock-offset", doctor.Fail, "-"},
		"no time":               {func(p *controlPlane) { p.date = func() string { return "soon" } }, nil, "clock-offset", doctor.Note, "soon"},
		"nobody for the time": {func(p *controlPlane) {
			p.answers["/placement/"], p.answers["/network/"], p.answers["/image/"] = 500, 503, 500
		}, nil, "clock-offset", doctor.Warn, "503"},
		"no Date":                {func(p *controlPlane) { p.date = func() string { return "" } }, nil, "clock-offset", doctor.Note, "no service"},
		"another tells the time": {answer("/network/", 500), nil, "clock-offset", doctor.OK, "towards glance"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newControlPlane(t)
			if c.change != nil {
				c.change(p)
			}
			at := p.broker.Addr().String()
			set := slices.Clone(c.set)
			for i := range set {
				set[i] = strings.NewReplacer(
					"=VHOST", "=rabbit://gantry:"+hush+"@"+at+"/other", "=TWO", "=rabbit://gantry:"+hush+"@127.0.0.1:1,gantry:"+hush+"@"+at+"/nova",
				).Replace(set[i])
			}
			all := ask(t, p.config(t, set...))
			if r := all[c.check]; r.Level != c.want || !strings.Contains(r.Found, c.found) {
				t.Errorf("%+v, want %s %q", r, c.want, c.found)
			}
			if strings.Contains(fmt.Sprint(all), hush) {
				t.Error("it tells a password")
			}
		})
	}
}

// TestDoctorOfASilentCloud ends when its context does, and the others have
// answered meanwhile.
func TestDoctorOfASilentCloud(t *testing.T) {
	p := newControlPlane(t)
	asked := make(chan struct{})
	p.answers["/placement/resource_providers"] = asked
	checks, done, err := surroundings(p.config(t))
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i, c := range checks {
		if c.Name != "placement" {
			continue
		}
		checks[i].Run = func(ctx context.Context, h *doctor.Host) (doctor.Level, string) {
			go func() { <-asked; cancel() }()
			return c.Run(ctx, h)
		}
		if r := doctor.Run(ctx, &doctor.Host{}, checks[i:i+1])[0]; r.Level != doctor.Fail {
			t.Errorf("%+v", r)
		}
	}
}

func TestClockOffset(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 900_000_000, time.UTC)
	for name, c := range map[string]struct {
		theirs time.Duration // from now
		took   time.Duration
		want   doctor.Level
		found  string
	}{
		"same second":    {0, 0, doctor.OK, "0s"},
		"next second":    {100 * time.Millisecond, 0, doctor.OK, "0s"},
		"a slow answer":  {40 * time.Second, time.Minute, doctor.OK, "0s"},
		"ahead":          {5 * time.Second, 0, doctor.Warn, "4s"},
		"behind":         {-5 * time.Second, 0, doctor.Warn, "-5s"},
		"far ahead":      {time.Minute, 0, doctor.Fail, "59s"},
		"behind an hour": {-time.Hour, time.Second, doctor.Fail, "-1h0m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			level, found := clockOffset(now.Add(c.theirs).Format(http.TimeFormat), now, now.Add(c.took))
			if level != c.want || found != c.found {
				t.Errorf("%s %s, want %s %s", level, found, c.want, c.found)
			}
		})
	}
}

// TestDoctorWithAConfiguration: what it says of the store counts, and what is
// wrong with it is an error of the configuration.
func TestDoctorWithAConfiguration(t *testing.T) {
	p := newControlPlane(t)
	cfg := p.config(t)
	r, err := Doctor(t.Context(), DoctorOptions{StorePath: "/nowhere", Config: cfg})
	names := map[string]doctor.Level{}
	for _, h := range r.Host {
		names[h.Name] = h.Level
	}
	if err != nil || !r.Healthy() || names["broker"] != doctor.OK || names["neutron-agent"] != doctor.OK || names["id-ranges"] == "" || names["packet-filter"] == "" {
		t.Errorf("%+v %v", r, err)
	}
	if left, err := filepath.Glob(filepath.Join(cfg.Default.StatePath, ".gantry-doctor-*")); err != nil || len(left) != 0 {
		t.Errorf("it left %v %v", left, err)
	}
	cfg.Default.TransportURL = "http://gantry:" + hush + "@x/"
	if _, err := Doctor(t.Context(), DoctorOptions{Config: cfg}); err == nil || strings.Contains(err.Error(), hush) || !strings.Contains(err.Error(), "transport_url") {
		t.Errorf("a broken transport_url: %v", err)
	}
}
