package compute

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/inproc"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/conductor"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Callers of the tests: token, user and project.
const (
	adminProject = "0123456789abcdef0123456789abcdef"
	demoProject  = "abcdef0123456789abcdef0123456789"
	host         = "host-1"
	activeImage  = "11111111-1111-4111-8111-111111111111"
	queuedImage  = "22222222-2222-4222-8222-222222222222"
	privateNet   = "33333333-3333-4333-8333-333333333333"
	freePort     = "44444444-4444-4444-8444-444444444444"
	otherNet     = "55555555-5555-4555-8555-555555555555"
)

type people map[string]*rest.Caller

func (p people) Caller(_ context.Context, token string) (*rest.Caller, error) {
	if c, ok := p[token]; ok {
		return c, nil
	}
	return nil, errdefs.ErrNotFound
}

func callers() people {
	one := func(user, project string, roles ...string) *rest.Caller {
		return &rest.Caller{UserID: user + "-id", UserName: user, ProjectID: project, ProjectName: project, Roles: roles, Token: user, Expires: time.Now().Add(time.Hour)}
	}
	return people{
		"admin":  one("admin", adminProject, "admin", "member", "reader"),
		"demo":   one("demo", demoProject, "member", "reader"),
		"second": one("second", demoProject, "member", "reader"),
		"reader": one("reader", demoProject, "reader"),
		"other":  one("other", "fedcba9876543210fedcba9876543210", "member", "reader"),
	}
}

func (p people) ProjectExists(_ context.Context, id string) (bool, error) {
	for _, c := range p {
		if c.ProjectID == id {
			return true, nil
		}
	}
	return false, nil
}

// images is an image service with a fixed shelf.
type images struct {
	mu    sync.Mutex
	made  []Image // +checklocks:mu
	fails error
	// deleted are ids.
	deleted []string // +checklocks:mu
}

func (s *images) DeleteImage(_ context.Context, _ *rest.Caller, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleted = append(s.deleted, id)
	return s.fails
}

func (*images) Image(_ context.Context, _ *rest.Caller, id string) (Image, error) {
	i := Image{ID: id, Name: "busybox", Status: "active", DiskFormat: "raw", ContainerFormat: "bare", Size: 1 << 20, Properties: map[string]string{"os_distro": "busybox"}}
	switch id {
	case activeImage:
		return i, nil
	case queuedImage:
		i.Status = "queued"
		return i, nil
	}
	return Image{}, errdefs.ErrNotFound
}

// Images knows none.
func (s *images) Images(context.Context, *rest.Caller, int, string) ([]Image, error) {
	return nil, nil
}

func (s *images) CreateImage(_ context.Context, _ *rest.Caller, i Image) (string, error) {
	if s.fails != nil {
		return "", s.fails
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i.ID = uuid.NewString()
	s.made = append(s.made, i)
	return i.ID, nil
}

// networks is a network service with a fixed topology.
type networks struct {
	mu    sync.Mutex
	ports []Port // +checklocks:mu
	all   []Network
}

func newNetworks() *networks {
	return &networks{
		all: []Network{
			{ID: privateNet, Name: "private", ProjectID: demoProject, Subnets: 1},
			{ID: otherNet, Name: "empty", ProjectID: demoProject, External: true},
		},
		ports: []Port{{
			ID: freePort, NetworkID: privateNet, ProjectID: demoProject, MAC: "fa:16:3e:00:00:01", Status: "DOWN",
			FixedIPs: []FixedIP{{"sub", netip.MustParseAddr("10.0.0.9")}}, Groups: []SecurityGroup{{ID: "sg1", Name: "default"}},
		}},
	}
}

func (n *networks) Networks(_ context.Context, _ *rest.Caller, ids ...string) ([]Network, error) {
	var out []Network
	for _, one := range n.all {
		if slices.Contains(ids, one.ID) || len(ids) == 0 && !one.External {
			out = append(out, one)
		}
	}
	return out, nil
}

func (n *networks) Ports(_ context.Context, _ *rest.Caller, q PortQuery) ([]Port, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Port
	for _, p := range n.ports {
		if slices.Contains(q.IDs, p.ID) || p.DeviceID != "" && slices.Contains(q.Servers, p.DeviceID) {
			out = append(out, p)
		}
	}
	return out, nil
}

func (n *networks) SecurityGroups(context.Context, *rest.Caller) ([]SecurityGroup, error) {
	return []SecurityGroup{{ID: "sg1", Name: "default"}, {ID: "sg2", Name: "web"}, {ID: "sg3", Name: "twin"}, {ID: "sg4", Name: "twin"}}, nil
}

func (n *networks) SetPortGroups(_ context.Context, _ *rest.Caller, port string, groups []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k := range n.ports {
		if n.ports[k].ID == port {
			n.ports[k].Groups = nil
			for _, g := range groups {
				n.ports[k].Groups = append(n.ports[k].Groups, SecurityGroup{ID: g, Name: map[string]string{"sg1": "default", "sg2": "web"}[g]})
			}
		}
	}
	return nil
}

// Ask answers nothing but what the network service refuses.
func (n *networks) Ask(_ context.Context, _ *rest.Caller, _, path string, _, _ any) error {
	e := rest.Errorf(http.StatusNotFound, "no %s", path)
	e.Type = "HTTPNotFound"
	return e
}

// members is a placement service that knows which providers are in aggregates.
type members struct {
	mu sync.Mutex
	in map[string]bool // +checklocks:mu; "PROVIDER AGGREGATE"
}

func (m *members) SetAggregate(_ context.Context, provider, aggregate string, member bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if delete(m.in, provider+" "+aggregate); member {
		m.in[provider+" "+aggregate] = true
	}
	return nil
}

func (m *members) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.in)
}

// tasks is a conductor that finds a host for everything at once.
type tasks struct {
	store *cell.Store
	// nowhere lets no instance find a host.
	nowhere bool
}

func (t *tasks) Build(ctx context.Context, _ messaging.RequestContext, b conductor.BuildRequest) error {
	for _, i := range b.Instances {
		if t.nowhere {
			return nil
		}
		info, err := json.Marshal([]objects.VIF{{ID: "p", Address: "fa:16:3e:00:00:02", Network: objects.VIFNetwork{
			Label: "private", Subnets: []objects.VIFSubnet{{
				CIDR: netip.MustParsePrefix("10.0.0.0/24"), Version: 4, IPs: []objects.VIFIP{{Address: "10.0.0.5", Type: "fixed", Version: 4}},
			}},
		}}})
		if err != nil {
			return err
		}
		if err := t.store.SaveInfoCache(ctx, i.UUID(), string(info)); err != nil {
			return err
		}
		_, err = t.store.SetInstance(ctx, i.UUID(), cell.Expect{}, map[string]any{
			"host": host, "node": host, "vm_state": vmActive, "task_state": nil, "power_state": 1, "launched_at": time.Now(),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tasks) Unshelve(ctx context.Context, _ messaging.RequestContext, id string, image map[string]any) error {
	if image["id"] != activeImage {
		return fmt.Errorf("image %v", image["id"])
	}
	_, err := t.store.SetInstance(ctx, id, cell.Expect{TaskState: []string{"unshelving"}}, map[string]any{"vm_state": vmActive, "task_state": nil, "host": host})
	return err
}

func (t *tasks) Resize(ctx context.Context, _ messaging.RequestContext, id string, flavor *objects.Object) error {
	i, err := t.store.Instance(ctx, id)
	if err != nil {
		return err
	}
	m := objects.New("Migration")
	for k, v := range map[string]any{
		"instance_uuid": id, "status": "finished", "migration_type": "resize", "source_compute": host, "dest_compute": host,
		"source_node": host, "dest_node": host,
	} {
		m.SetClean(k, v)
	}
	if _, err := t.store.CreateMigration(ctx, m); err != nil {
		return err
	}
	_, err = t.store.SetInstance(ctx, id, cell.Expect{TaskState: []string{"resize_prep"}}, map[string]any{
		"vm_state": vmResized, "task_state": nil, "flavor": flavor, "old_flavor": i.Flavor().Object, "vcpus": flavor.Int("vcpus"), "memory_mb": flavor.Int("memory_mb"),
	})
	return err
}

func (t *tasks) DeleteUnhosted(ctx context.Context, _ messaging.RequestContext, id string) error {
	_, err := t.store.DestroyInstance(ctx, id, cell.NoHost)
	return err
}

// computeHost serves compute's RPC and remembers what it was told.
type computeHost struct {
	store *cell.Store
	told  chan string
}

func (h *computeHost) serve(method string) messaging.Handler {
	return func(ctx context.Context, req *messaging.Request) (any, error) {
		select {
		case h.told <- method:
		default: // a fuzz target tells much and hears nothing
		}
		switch method {
		case "get_console_output":
			lines := "all"
			var n *int
			if err := req.Arg("tail_length", &n); err != nil {
				return nil, err
			}
			if n != nil {
				lines = fmt.Sprintf("last %d", *n)
			}
			return lines, nil
		case "get_host_uptime":
			return "up", nil
		case "set_host_enabled":
			return "enabled", nil
		case "get_serial_console":
			return map[string]any{"access_url": "ws://proxy/?token=x"}, nil
		case "get_vnc_console":
			return nil, messaging.NovaError("ConsoleTypeUnavailable", 400, "Unavailable console type novnc.")
		case "set_admin_password":
			var i objects.Instance
			if err := req.Arg("instance", &i); err != nil {
				return nil, err
			}
			if _, err := h.store.SetInstance(ctx, i.UUID(), cell.Expect{}, map[string]any{"task_state": nil}); err != nil {
				return nil, err
			}
			return nil, messaging.NovaError("SetAdminPasswdNotSupported", 400, "Set admin password is not supported")
		case "attach_interface":
			port, ip := "", ""
			if err := errors.Join(req.Arg("port_id", &port), req.Arg("requested_ip", &ip)); err != nil {
				return nil, err
			}
			switch {
			case port == freePort:
				return map[string]any{"id": port}, nil
			case port != "":
				return nil, messaging.NovaError("PortInUse", 409, "Port %s is still in use.", port)
			case ip != "":
				return nil, messaging.NovaError("InterfaceAttachFailed", 500, "Failed to attach network adapter device to x")
			}
			return nil, messaging.NovaError("AttachInterfaceNotSupported", 400, "Attaching interfaces is not supported by this host.")
		case "terminate_instance":
			var i objects.Instance
			if err := req.Arg("instance", &i); err != nil {
				return nil, err
			}
			_, err := h.store.DestroyInstance(ctx, i.UUID(), cell.AnyHost)
			return nil, err
		}
		return nil, nil
	}
}

// line is the way to compute hosts, which may be cut.
type line struct {
	*messaging.Client
	cut error
}

func (l *line) Cast(ctx context.Context, rc messaging.RequestContext, t messaging.Target, method string, args map[string]any) error {
	if l.cut != nil {
		return l.cut
	}
	return l.Client.Cast(ctx, rc, t, method, args)
}

// rig is the API with fakes around it.
type rig struct {
	t        *testing.T
	service  *Service
	cell     *cell.Store
	tasks    *tasks
	images   *images
	networks *networks
	told     *members
	host     *computeHost
	handler  http.Handler
	rpc      *line
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigIn(t, t.TempDir())
}

func newRigIn(t testing.TB, dir string) *rig {
	t.Helper()
	ctx := t.Context()
	store, err := cell.Open(ctx, filepath.Join(dir, "cell.db"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := Open(ctx, filepath.Join(dir, "api.db"))
	if err != nil {
		t.Fatal(err)
	}
	transport := inproc.New(inproc.NewBroker())
	client := messaging.NewClient(transport, messaging.ClientOptions{})
	r := &rig{cell: store, tasks: &tasks{store: store}, images: &images{}, networks: newNetworks(), told: &members{in: map[string]bool{}}, rpc: &line{Client: client}}
	r.t, _ = t.(*testing.T)
	r.host = &computeHost{store: store, told: make(chan string, 1000)}
	r.host.run(t, transport)
	everybody := callers()
	r.service = New(Options{
		Store: own, Auth: everybody, Cell: store, Tasks: r.tasks, RPC: r.rpc, Images: r.images, Networks: r.networks, Placement: r.told,
		Identity: everybody, ImagesURL: "http://images", Log: zerolog.Nop(),
	})
	r.handler = r.service.Handler()
	t.Cleanup(func() {
		if err := errors.Join(client.Close(context.WithoutCancel(ctx)), transport.Close(), own.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	r.addHost(t)
	return r
}

func (h *computeHost) run(t testing.TB, transport messaging.Transport) {
	t.Helper()
	table := map[string]messaging.Handler{}
	for _, m := range []string{
		"get_console_output", "get_host_uptime", "set_host_enabled", "get_serial_console", "get_vnc_console", "set_admin_password",
		"attach_interface", "detach_interface", "add_fixed_ip_to_instance", "remove_fixed_ip_from_instance", "rebuild_instance", "shelve_instance", "shelve_offload_instance", "backup_instance", "terminate_instance", "start_instance", "stop_instance", "pause_instance", "unpause_instance",
		"reboot_instance", "snapshot_instance", "suspend_instance", "rescue_instance", "unrescue_instance", "trigger_crash_dump", "external_instance_event", "restore_instance",
		"confirm_resize", "revert_resize",
	} {
		table[m] = h.serve(m)
	}
	server, err := messaging.NewServer(transport, messaging.ServerOptions{
		Topics: []string{computeTopic}, Host: host, Endpoints: []messaging.Endpoint{{Version: "6.5", Methods: table}}, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(context.WithoutCancel(t.Context())) }()
	<-server.Ready()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// addHost makes the records of a compute host that is up.
func (r *rig) addHost(t testing.TB) {
	t.Helper()
	svc, err := r.cell.CreateService(t.Context(), objects.NewService(host, computeBinary, "compute", 66))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.cell.SaveService(t.Context(), svc.ID(), map[string]any{"report_count": 1}); err != nil {
		t.Fatal(err)
	}
	node := objects.NewComputeNode(uuid.NewString(), host, host)
	node.SetHypervisor("gantry", 1000, `{"arch": "x86_64"}`)
	node.SetTotals(8, 16384, 100)
	node.Set("host_ip", "127.0.0.1")
	if _, err := r.cell.CreateComputeNode(t.Context(), node); err != nil {
		t.Fatal(err)
	}
}

// ask sends one request as the caller of that token, in a microversion.
func (r *rig) ask(token, version, method, path string, body any) *answer {
	r.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = bytes.NewReader([]byte(b))
	default:
		data, err := json.Marshal(b)
		if err != nil {
			r.t.Fatal(err)
		}
		in = bytes.NewReader(data)
	}
	req := httptest.NewRequest(method, path, in)
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	if version != "" {
		req.Header.Set("X-OpenStack-Nova-API-Version", version)
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return &answer{r.t, method + " " + path, w}
}

// answer is what a request got.
type answer struct {
	t    *testing.T
	what string
	*httptest.ResponseRecorder
}

// is demands a status.
func (a *answer) is(status int) *answer {
	a.t.Helper()
	if a.Code != status {
		a.t.Fatalf("%s: %d, want %d: %s", a.what, a.Code, status, a.Body)
	}
	return a
}

// says demands a fault with that text.
func (a *answer) says(status int, message string) {
	a.t.Helper()
	var body map[string]struct {
		Code    int
		Message string
	}
	if err := json.Unmarshal(a.Body.Bytes(), &body); err != nil {
		a.t.Fatalf("%s: %v: %s", a.what, err, a.Body)
	}
	f, ok := body[element(status)]
	if a.Code != status || !ok || f.Code != status || f.Message != message {
		a.t.Errorf("%s:\n got %d %s\nwant %d %s", a.what, a.Code, a.Body, status, message)
	}
}

// get walks into the body by keys and indices.
func (a *answer) get(path ...any) any {
	a.t.Helper()
	var v any
	if err := json.Unmarshal(a.Body.Bytes(), &v); err != nil {
		a.t.Fatalf("%s: %v: %s", a.what, err, a.Body)
	}
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, ok := v.(map[string]any)
			if _, has := m[p]; !ok || !has {
				a.t.Fatalf("%s: no %q in %s", a.what, p, a.Body)
			}
			v = m[p]
		case int:
			l, ok := v.([]any)
			if !ok || p >= len(l) {
				a.t.Fatalf("%s: no %d in %s", a.what, p, a.Body)
			}
			v = l[p]
		}
	}
	return v
}

// text is get for a string.
func (a *answer) text(path ...any) string {
	a.t.Helper()
	s, ok := a.get(path...).(string)
	if !ok {
		a.t.Fatalf("%s: %v is no text in %s", a.what, path, a.Body)
	}
	return s
}

// has demands a value in the body.
func (a *answer) has(want any, path ...any) *answer {
	a.t.Helper()
	if got := a.get(path...); fmt.Sprint(got) != fmt.Sprint(want) {
		a.t.Errorf("%s: %v is %v, want %v", a.what, path, got, want)
	}
	return a
}

// flavor makes a flavor and returns its id.
func (r *rig) flavor(name string) string {
	r.t.Helper()
	return r.ask("admin", "2.93", "POST", "/v2.1/flavors", map[string]any{"flavor": map[string]any{
		"name": name, "ram": 64, "vcpus": 1, "disk": 1,
	}}).is(200).text("flavor", "id")
}

// server makes a server as the caller and returns its id.
func (r *rig) server(token, name, flavor string) string {
	r.t.Helper()
	return r.ask(token, "2.93", "POST", "/v2.1/servers", map[string]any{"server": map[string]any{
		"name": name, "flavorRef": flavor, "imageRef": activeImage, "networks": "auto",
	}}).is(202).text("server", "id")
}

// hears demands that the host is told that.
func (r *rig) hears(method string) {
	r.t.Helper()
	select {
	case got := <-r.host.told:
		if got != method {
			r.t.Fatalf("host was told %s, want %s", got, method)
		}
	case <-time.After(2 * time.Minute):
		r.t.Fatalf("host was not told %s", method)
	}
}
