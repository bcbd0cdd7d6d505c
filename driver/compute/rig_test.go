package compute_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/conductor/conductortest"
	"github.com/gantry-project/gantry/driver/fake"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/messaging/inproc"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	host = "cmp1"
	node = "cmp1-node"
)

// rig is a compute host on a bus with a conductor and an API client.
type rig struct {
	t       *testing.T
	db      *conductortest.Conductor
	drv     *fake.Driver
	m       *compute.Manager
	tracker *tracker
	ports   *ports
	images  *images
	notes   *notes
	// versioned are the versioned notifications
	versioned *notes
	api       *messaging.Client
	// conductor and caller are the manager's own.
	conductor compute.Conductor
	caller    messaging.Caller
	opt       compute.Options
	consoles  *consoles
	serve     func(topic, name string, endpoints []messaging.Endpoint)
}

// newRig starts everything; the test's end stops it and looks for leaks.
func newRig(t *testing.T, set ...func(*compute.Options)) *rig {
	t.Helper()
	r := &rig{
		t: t, db: conductortest.New(), drv: fake.New(), tracker: &tracker{claims: map[string]bool{}, allocations: map[string]bool{}},
		ports: &ports{made: map[string]string{}, more: map[string]objects.NetworkInfo{}}, images: &images{m: map[string]*image{}}, notes: &notes{}, versioned: &notes{}, consoles: &consoles{open: map[string]int{}}, opt: compute.DefaultOptions(host),
	}
	for _, f := range set {
		f(&r.opt)
	}
	r.consoles.drv = r.drv
	broker := inproc.NewBroker()
	client := func() *messaging.Client {
		c := messaging.NewClient(inproc.New(broker), messaging.ClientOptions{Log: zerolog.Nop()})
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		return c
	}
	serve := func(topic, name string, eps []messaging.Endpoint) {
		s, err := messaging.NewServer(inproc.New(broker), messaging.ServerOptions{
			Topics: []string{topic}, Host: name, Endpoints: eps, Log: zerolog.Nop(), Grace: 10 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx) }()
		<-s.Ready()
		t.Cleanup(func() { cancel(); <-done })
	}
	r.serve = serve
	serve("conductor", "controller", r.db.Endpoints())
	serve("scheduler", "controller", r.db.SchedulerEndpoints())
	r.caller = client()
	r.conductor = conductor.New(r.caller, host)
	r.m = r.managerWith(r.conductor)
	serve("compute", host, r.m.Endpoints())
	r.api = client()
	return r
}

// managerWith returns a manager on the rig's host with another conductor.
func (r *rig) managerWith(c compute.Conductor) *compute.Manager { return r.managerOf(c, r.drv, r.opt) }

// managerOf returns a manager of any host.
func (r *rig) managerOf(c compute.Conductor, drv *fake.Driver, opt compute.Options) *compute.Manager {
	m := compute.New(compute.Deps{
		Driver: drv, Conductor: c, Tracker: r.tracker, Ports: r.ports, Images: r.images,
		Scheduler: conductor.NewScheduler(r.caller, opt.Host, zerolog.Nop()), Notifier: r.notes, Versioned: r.versioned, Peers: compute.NewPeers(r.caller), Consoles: r.consoles,
	}, opt, zerolog.Nop())
	r.t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			r.t.Errorf("Close: %v", err)
		}
	})
	return m
}

// context is that of a user's request, with an action recorded as the API does.
func (r *rig) context(uuidOf, action string) messaging.RequestContext {
	rc := messaging.NewRequestContext(map[string]json.RawMessage{
		"request_id": json.RawMessage(`"req-` + uuid.NewString() + `"`), "project_id": json.RawMessage(`"p1"`),
		"user_id": json.RawMessage(`"u1"`), "is_admin": json.RawMessage(`false`), "roles": json.RawMessage(`["member","reader"]`),
		"auth_token": json.RawMessage(`"token"`), "read_deleted": json.RawMessage(`"no"`),
	})
	r.db.AddAction(uuidOf, action, rc.RequestID())
	return rc
}

func target() messaging.Target {
	return messaging.Target{Topic: "compute", Server: host, Version: "6.0"}
}

// instance stores a new row as the API and the scheduler leave it.
func (r *rig) instance() *objects.Object {
	flavor := objects.New("Flavor")
	for k, v := range map[string]any{
		"id": 1, "name": "c1.tiny", "memory_mb": 64, "vcpus": 1, "root_gb": 1, "ephemeral_gb": 0, "swap": 0,
		"flavorid": "1", "rxtx_factor": 1.0, "disabled": false, "is_public": true, "extra_specs": map[string]string{},
	} {
		flavor.SetClean(k, v)
	}
	inst := objects.New("Instance")
	for k, v := range map[string]any{
		"project_id": "p1", "user_id": "u1", "image_ref": "img", "hostname": "web", "display_name": "web",
		"vm_state": "building", "task_state": "scheduling", "power_state": 0, "memory_mb": 64, "vcpus": 1, "root_gb": 1,
		"ephemeral_gb": 0, "flavor": flavor, "key_data": "ssh-ed25519 AAAA", "user_data": "IyEvYmluL3NoCg==",
		"availability_zone": "nova", "system_metadata": map[string]string{"image_os_shutdown_timeout": "1"},
		"metadata": map[string]string{"k": "v"}, "shutdown_terminate": false,
	} {
		inst.SetClean(k, v)
	}
	inst = r.db.AddInstance(inst)
	r.tracker.allocate(inst.String("uuid"))
	return inst
}

// buildArgs are the arguments of a build of inst.
func buildArgs(inst *objects.Object) map[string]any {
	return map[string]any{
		"instance": inst,
		"image": map[string]any{
			"id": "img", "name": "busybox", "disk_format": "raw", "container_format": "bare", "size": 7, "min_ram": 0,
			"min_disk": 0, "properties": map[string]any{"os_command_line": "/bin/true", "hw_vif_multiqueue_enabled": true},
		},
		"request_spec":      map[string]any{},
		"filter_properties": map[string]any{"limits": map[string]any{}, "retry": map[string]any{"num_attempts": 1, "hosts": [][]string{{host, node}}}},
		"admin_password":    "secret", "injected_files": [][]string{{"/etc/motd", "aGVsbG8K"}},
		"requested_networks": nil, "security_groups": []string{"default"}, "block_device_mapping": nil,
		"node": node, "limits": map[string]any{}, "host_list": []any{}, "accel_uuids": []string{},
	}
}

func (r *rig) cast(rc messaging.RequestContext, method string, args map[string]any) {
	r.t.Helper()
	if err := r.api.Cast(r.t.Context(), rc, target(), method, args); err != nil {
		r.t.Fatalf("cast %s: %v", method, err)
	}
}

func (r *rig) call(rc messaging.RequestContext, method string, args map[string]any, out any) error {
	r.t.Helper()
	return r.api.Call(r.t.Context(), rc, target(), method, args, out)
}

// row is the present row of the instance.
func (r *rig) row(inst *objects.Object) *objects.Object { return r.db.Instance(inst.String("uuid")) }

// wait polls until ok.
func (r *rig) wait(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			r.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// waitState waits for a vm state without a task and for the end of the event.
func (r *rig) waitState(inst *objects.Object, state string) *objects.Object {
	r.t.Helper()
	r.wait("vm state "+state, func() bool {
		row := r.row(inst)
		return row.String("vm_state") == state && row.IsNull("task_state")
	})
	r.settled(inst)
	return r.row(inst)
}

// settled waits until no event of the instance is open and nothing runs.
func (r *rig) settled(inst *objects.Object) {
	r.t.Helper()
	r.wait("events to close", func() bool {
		return !r.m.Busy(inst.String("uuid")) && !slices.ContainsFunc(r.db.Events(inst.String("uuid")), func(e conductortest.Event) bool { return e.Result == "" })
	})
}

// active returns a running instance.
func (r *rig) active() *objects.Object {
	r.t.Helper()
	inst := r.instance()
	r.cast(r.context(inst.String("uuid"), "create"), "build_and_run_instance", buildArgs(inst))
	return r.waitState(inst, "active")
}

// ask sets the task as the API does and casts the method.
func (r *rig) ask(inst *objects.Object, action, task, method string, more map[string]any) {
	r.t.Helper()
	uuidOf := inst.String("uuid")
	rc := r.context(uuidOf, action)
	r.db.Update(uuidOf, func(row objects.Instance) { row.Set("task_state", task) })
	args := map[string]any{"instance": r.row(inst)}
	for k, v := range more {
		args[k] = v
	}
	r.cast(rc, method, args)
}

// nothingLeft fails the test when a host or service holds something.
func (r *rig) nothingLeft() {
	r.t.Helper()
	if left := r.drv.Host().Residue(); len(left) != 0 {
		r.t.Errorf("left on the host: %q", left)
	}
	if n := r.ports.count(); n != 0 {
		r.t.Errorf("%d ports left", n)
	}
	if c := r.tracker.claimed(); len(c) != 0 {
		r.t.Errorf("claims left: %v", c)
	}
}

// tracker is a resource tracker that knows who holds what.
type tracker struct {
	mu          sync.Mutex
	claims      map[string]bool
	allocations map[string]bool
	err         error
	failed      []bool
	enabled     bool
	// own are processors that claims give, one each.
	own []int
}

func (x *tracker) allocate(uuidOf string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.allocations[uuidOf] = true
}

func (x *tracker) claimed() []string { return x.keys(x.claims) }

func (x *tracker) allocated() []string { return x.keys(x.allocations) }

func (x *tracker) keys(m map[string]bool) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []string
	for k := range m {
		out = append(out, k)
	}
	return out
}

func (x *tracker) Claim(_ context.Context, _ messaging.RequestContext, inst *objects.Object, req compute.ClaimRequest) (func(context.Context), error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.err; err != nil {
		x.err = nil
		return nil, err
	}
	if req.Node != node {
		return nil, fmt.Errorf("node %s: %w", req.Node, errdefs.ErrInvalid)
	}
	id := inst.String("uuid")
	x.claims[id] = true
	if len(x.own) > 0 && req.Took != nil {
		req.Took(objects.NewPinned(id, 0, 64, x.own[:1], "").Wire())
		x.own = x.own[1:]
	}
	return func(context.Context) {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.claims, id)
	}, nil
}

func (x *tracker) Drop(_ context.Context, _ messaging.RequestContext, inst *objects.Object) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.claims, inst.String("uuid"))
	delete(x.allocations, inst.String("uuid"))
	return nil
}

func (x *tracker) ClaimMove(ctx context.Context, rc messaging.RequestContext, _, mig *objects.Object, req compute.ClaimRequest) (func(context.Context), error) {
	return x.Claim(ctx, rc, mig, req)
}

func (x *tracker) CountMove(inst, mig *objects.Object) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if inst.String("vm_state") != "resized" && inst.String("task_state") == "" || mig.String("status") == "reverted" {
		delete(x.claims, mig.String("uuid"))
	}
}

// RevertMove moves the allocation of the migration to the instance.
func (x *tracker) RevertMove(_ context.Context, _ messaging.RequestContext, inst, mig *objects.Object) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.allocations[mig.String("uuid")] {
		delete(x.allocations, mig.String("uuid"))
		x.allocations[inst.String("uuid")] = true
	}
	return nil
}

func (x *tracker) DropMove(ctx context.Context, rc messaging.RequestContext, mig *objects.Object) error {
	return x.Drop(ctx, rc, mig)
}

func (x *tracker) Leave(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) error {
	return x.Drop(ctx, rc, inst)
}

func (x *tracker) BuildEnded(_ context.Context, _ string, failed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failed = append(x.failed, failed)
}

func (x *tracker) ended() []bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.failed)
}

func (x *tracker) SetHostEnabled(_ context.Context, _ messaging.RequestContext, enabled bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.enabled = enabled
	return nil
}

// ports is a network service with one port for each instance.
type ports struct {
	mu        sync.Mutex
	made      map[string]string              // port by instance
	more      map[string]objects.NetworkInfo // further ports by instance
	err       error
	refreshed int
	stall     chan struct{}
	kind, tag string // VIF type of further ports; the last tag
}

func (p *ports) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.made)
}

func (p *ports) refreshes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refreshed
}

func (p *ports) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func (p *ports) take() error {
	err := p.err
	p.err = nil
	return err
}

func portOf(uuidOf string) string { return "port-" + uuidOf[:8] }

func (p *ports) vifs(uuidOf string) objects.NetworkInfo {
	var out objects.NetworkInfo
	if p.made[uuidOf] != "" {
		out = append(out, objects.VIF{ID: p.made[uuidOf], Address: "fa:16:3e:00:00:01", Type: "bridge"})
	}
	return append(out, p.more[uuidOf]...)
}

func (p *ports) Allocate(ctx context.Context, _ messaging.RequestContext, req compute.AllocateRequest) (objects.NetworkInfo, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stall != nil {
		select {
		case <-p.stall:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := p.take(); err != nil {
		return nil, err
	}
	id := req.Instance.String("uuid")
	p.made[id] = portOf(id)
	for _, n := range req.Networks.Objects("objects") {
		if tag := n.String("tag"); tag != "" {
			nic := objects.New("NetworkInterfaceMetadata")
			nic.Set("mac", p.vifs(id)[0].Address)
			nic.Set("tags", []string{tag})
			all := objects.New("InstanceDeviceMetadata")
			all.Set("devices", []*objects.Object{nic})
			req.Instance.SetClean("device_metadata", all)
		}
	}
	return p.vifs(id), nil
}

func (p *ports) Deallocate(_ context.Context, _ messaging.RequestContext, inst *objects.Object, _ objects.NetworkInfo) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.take(); err != nil {
		return err
	}
	delete(p.made, inst.String("uuid"))
	return nil
}

func (p *ports) Refresh(_ context.Context, _ messaging.RequestContext, inst *objects.Object) (objects.NetworkInfo, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refreshed++
	if err := p.take(); err != nil {
		return nil, err
	}
	return p.vifs(inst.String("uuid")), nil
}

func (p *ports) Cached(_ context.Context, _ messaging.RequestContext, inst *objects.Object) (objects.NetworkInfo, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.vifs(inst.String("uuid")), nil
}

func (p *ports) Attach(_ context.Context, _ messaging.RequestContext, req compute.AttachRequest) (objects.NetworkInfo, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.take(); err != nil {
		return nil, err
	}
	id := req.Instance.String("uuid")
	vif := objects.VIF{
		ID: cmp.Or(req.PortID, "new-"+req.NetworkID+req.Address), Address: fmt.Sprintf("fa:16:3e:00:01:%02x", len(p.more[id])), Type: p.kind,
		PreserveOnDelete: req.PortID != "",
	}
	p.more[id] = append(p.more[id], vif)
	p.tag = req.Tag
	return p.vifs(id), nil
}

func (p *ports) Detach(_ context.Context, _ messaging.RequestContext, inst *objects.Object, _ objects.NetworkInfo, port string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.take(); err != nil {
		return err
	}
	id := inst.String("uuid")
	if p.made[id] == port {
		delete(p.made, id)
	}
	p.more[id] = slices.DeleteFunc(p.more[id], func(v objects.VIF) bool { return v.ID == port })
	return nil
}

func (p *ports) AddAddress(_ context.Context, _ messaging.RequestContext, inst *objects.Object, network string) (objects.NetworkInfo, error) {
	return p.readdress(inst, network)
}

func (p *ports) RemoveAddress(_ context.Context, _ messaging.RequestContext, inst *objects.Object, address string) (objects.NetworkInfo, error) {
	return p.readdress(inst, address)
}

// readdress tells by the bridge's name what was asked for.
func (p *ports) readdress(inst *objects.Object, what string) (objects.NetworkInfo, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.take(); err != nil {
		return nil, err
	}
	out := p.vifs(inst.String("uuid"))
	out[0].Network.Label = what
	return out, nil
}

// lose makes all further ports of the instance go, as when Neutron's user
// deletes them.
func (p *ports) lose(uuidOf string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.more, uuidOf)
}

// image is a record in Glance.
type image struct {
	disk, container string
	properties      map[string]string
	content         []byte
	active          bool
	boot            driver.Image // what StatImage says; without an ID it has no data
	backup          [2]string    // instance and type
	made            int
}

// images is an image service.
type images struct {
	mu  sync.Mutex
	m   map[string]*image
	err error
}

func (s *images) add(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[id] = &image{}
}

func (s *images) get(id string) *image {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[id] == nil {
		return nil
	}
	got := *s.m[id]
	return &got
}

// serve adds an image that can be booted.
func (s *images) serve(img driver.Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[img.ID] = &image{active: true, boot: img}
}

// backup adds the record of a backup, as the API does.
func (s *images) backup(id, instance, kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[id] = &image{backup: [2]string{instance, kind}, made: len(s.m)}
}

// oneSecond has all images but the first made at once.
func (s *images) oneSecond() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, img := range s.m {
		img.made = min(img.made, 1)
	}
}

func (s *images) Backups(_ context.Context, _ driver.Credentials, instance, kind string) ([]compute.Backup, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []compute.Backup
	for id, img := range s.m {
		if img.backup == [2]string{instance, kind} {
			list = append(list, compute.Backup{ID: id, Created: time.Unix(int64(img.made), 0), Active: img.active})
		}
	}
	slices.SortFunc(list, func(a, b compute.Backup) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(b.ID, a.ID))
	})
	return list, s.err
}

func (s *images) StatImage(_ context.Context, _ driver.Credentials, id string) (driver.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[id] == nil || s.m[id].boot.ID == "" {
		return driver.Image{}, fmt.Errorf("image %s: %w", id, errdefs.ErrNotFound)
	}
	return s.m[id].boot, nil
}

func (s *images) SetFormats(_ context.Context, _ driver.Credentials, id, disk, container string, properties map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[id] == nil {
		return fmt.Errorf("image %s: %w", id, errdefs.ErrNotFound)
	}
	s.m[id].disk, s.m[id].container, s.m[id].properties = disk, container, properties
	return nil
}

func (s *images) Upload(_ context.Context, _ driver.Credentials, id string, content io.Reader) error {
	data, err := io.ReadAll(content)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		return fmt.Errorf("upload %s: %w", id, err)
	case s.err != nil:
		return s.err
	case s.m[id] == nil:
		return fmt.Errorf("image %s: %w", id, errdefs.ErrNotFound)
	case s.m[id].disk == "":
		return errors.New("formats are not set")
	}
	s.m[id].content, s.m[id].active = data, true
	return nil
}

func (s *images) Delete(_ context.Context, _ driver.Credentials, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, id)
	return nil
}

func (s *images) Active(_ context.Context, _ driver.Credentials, id string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[id] == nil {
		return false, fmt.Errorf("image %s: %w", id, errdefs.ErrNotFound)
	}
	return s.m[id].active, nil
}
