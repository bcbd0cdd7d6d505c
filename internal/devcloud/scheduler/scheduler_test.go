package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/placement"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/devcloud/scheduler"
	"github.com/gantry-project/gantry/internal/errdefs"
)

type admin struct{}

func (admin) Caller(context.Context, string) (*rest.Caller, error) {
	return &rest.Caller{Roles: []string{"admin"}}, nil
}

// world is a cell, a true placement and what the compute API knows.
type world struct {
	t         testing.TB
	cell      *cell.Store
	placement *placement.Service
	scheduler *scheduler.Scheduler

	mu    sync.Mutex
	group *objects.Object // +checklocks:mu
	zones map[string]string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, zones: map[string]string{}}
	var err error
	if w.cell, err = cell.Open(t.Context(), filepath.Join(t.TempDir(), "cell.db")); err != nil {
		t.Fatal(err)
	}
	if w.placement, err = placement.New(t.Context(), placement.Options{Path: filepath.Join(t.TempDir(), "placement.db"), Auth: admin{}, Log: zerolog.Nop()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.cell.Close(), w.placement.Close()); err != nil {
			t.Error(err)
		}
	})
	w.scheduler = scheduler.New(scheduler.Options{Placement: w.placement, Nodes: w.cell, Groups: w, Zones: w, Log: zerolog.Nop()})
	return w
}

func (w *world) Zones(context.Context) (map[string]string, error) { return w.zones, nil }

func (w *world) GroupOf(_ context.Context, instance string) (objects.InstanceGroup, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := objects.InstanceGroup{Object: w.group}
	if g.Object == nil || !slices.Contains(g.Members(), instance) {
		return g, errdefs.ErrNotFound
	}
	return g, nil
}

func (w *world) setGroup(policy string, most string, members ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.group = objects.New("InstanceGroup")
	w.group.Set("policy", policy)
	w.group.Set("members", members)
	if most != "" {
		w.group.Set("_rules", map[string]string{"max_server_per_host": most})
	}
}

func (w *world) put(path, body string) {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), "PUT", path, strings.NewReader(body))
	if strings.HasPrefix(path, "/resource_providers#") {
		r = httptest.NewRequestWithContext(w.t.Context(), "POST", "/resource_providers", strings.NewReader(body))
	}
	r.Header.Set("X-Auth-Token", "t")
	r.Header.Set("OpenStack-API-Version", "placement 1.39")
	a := httptest.NewRecorder()
	w.placement.Handler().ServeHTTP(a, r)
	if a.Code >= 300 {
		w.t.Fatalf("%s: %d %s", path, a.Code, a.Body)
	}
}

// node makes a compute host that is up, with that much memory.
func (w *world) node(name string, memoryMB int64, traits ...string) string {
	w.t.Helper()
	id := uuid.NewString()
	w.put("/resource_providers#", fmt.Sprintf(`{"uuid":%q,"name":%q}`, id, name))
	w.put("/resource_providers/"+id+"/inventories", fmt.Sprintf(
		`{"resource_provider_generation":0,"inventories":{"VCPU":{"total":16},"MEMORY_MB":{"total":%d},"DISK_GB":{"total":100}}}`, memoryMB))
	if len(traits) > 0 {
		w.put("/resource_providers/"+id+"/traits", `{"resource_provider_generation":1,"traits":["`+strings.Join(traits, `","`)+`"]}`)
	}
	s, err := w.cell.CreateService(w.t.Context(), objects.NewService(name, "nova-compute", "compute", 64))
	if err == nil {
		_, err = w.cell.SaveService(w.t.Context(), s.ID(), map[string]any{"report_count": 1})
	}
	n := objects.NewComputeNode(id, name, name)
	n.SetTotals(16, memoryMB, 100)
	n.SetUsage(objects.Usage{})
	n.SetHypervisor("docker", 1000, "")
	n.SetStats(map[string]string{"failed_builds": "0"})
	n.SetSupported(objects.NewHVSpec("x86_64", "docker", "exe"))
	if err == nil {
		_, err = w.cell.CreateComputeNode(w.t.Context(), n)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// service changes the compute service of a host.
func (w *world) service(name string, fields map[string]any) {
	w.t.Helper()
	all, err := w.cell.Services(w.t.Context(), cell.ServiceQuery{Host: name})
	if err == nil {
		_, err = w.cell.SaveService(w.t.Context(), all[0].ID(), fields)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// spec asks for 64 MiB; change may ask for more.
func spec(change func(objects.RequestSpec)) objects.RequestSpec {
	s := objects.RequestSpec{Object: objects.New("RequestSpec")}
	f := objects.New("Flavor")
	for k, v := range map[string]any{"memory_mb": 64, "vcpus": 1, "root_gb": 1, "ephemeral_gb": 0, "swap": 0} {
		f.Set(k, v)
	}
	s.Set("flavor", f)
	s.Set("project_id", "p")
	s.Set("user_id", "u")
	if change != nil {
		change(s)
	}
	return s
}

func set(field string, v any) func(objects.RequestSpec) {
	return func(s objects.RequestSpec) { s.Set(field, v) }
}

func extraSpecs(m map[string]string) func(objects.RequestSpec) {
	return func(s objects.RequestSpec) { s.Object.Object("flavor").Set("extra_specs", m) }
}

func image(field string, v any) func(objects.RequestSpec) {
	return func(s objects.RequestSpec) {
		p := objects.New("ImageMetaProps")
		p.Set(field, v)
		i := objects.New("ImageMeta")
		i.Set("properties", p)
		s.Set("image", i)
	}
}

// where selects for one new instance and returns the hosts, best first; none
// for no valid host.
func (w *world) where(s objects.RequestSpec) []string {
	w.t.Helper()
	id := uuid.NewString()
	out, err := w.scheduler.Select(w.t.Context(), scheduler.Request{Spec: s, Instances: []string{id}, Alternates: 9})
	if _, none := errors.AsType[*scheduler.NoValidHost](err); none {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.scheduler.Free(w.t.Context(), id); err != nil {
		w.t.Fatal(err)
	}
	return hostsOf(out[0])
}

func hostsOf(list []objects.Selection) (names []string) {
	for _, s := range list {
		names = append(names, s.ServiceHost())
	}
	return names
}

func TestHostsAreFilteredAndRanked(t *testing.T) {
	w := newWorld(t)
	w.node("big", 4096)
	w.node("small", 1024, "HW_CPU_X86_AVX2")
	w.node("tiny", 128)
	w.node("off", 8192)
	w.node("down", 8192)
	w.node("failing", 8192)
	w.service("off", map[string]any{"disabled": true})
	w.service("down", map[string]any{"last_seen_up": time.Now().Add(-2 * time.Minute)})
	nodes, err := w.cell.ComputeNodes(t.Context(), cell.NodeQuery{Host: "failing"})
	if err == nil {
		_, err = w.cell.SaveComputeNode(t.Context(), nodes[0].ID(), map[string]any{"stats": map[string]string{"failed_builds": "3"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	w.zones["small"] = "east"
	destination := objects.New("Destination")
	destination.Set("host", "small")
	retries, tried := objects.New("SchedulerRetries"), objects.New("ComputeNodeList")
	tried.Set("objects", []*objects.Object{objects.NewComputeNode("", "big", "big").Object})
	retries.Set("hosts", tried)
	for name, c := range map[string]struct {
		change func(objects.RequestSpec)
		want   []string
	}{
		"any":                  {nil, []string{"big", "small", "tiny", "failing"}},
		"memory":               {func(s objects.RequestSpec) { s.Object.Object("flavor").Set("memory_mb", 2048) }, []string{"big", "failing"}},
		"too much":             {func(s objects.RequestSpec) { s.Object.Object("flavor").Set("memory_mb", 1<<20) }, nil},
		"disk":                 {func(s objects.RequestSpec) { s.Object.Object("flavor").Set("swap", 1<<20) }, nil},
		"disk is a volume":     {func(s objects.RequestSpec) { s.Object.Object("flavor").Set("root_gb", 1000); s.Set("is_bfv", true) }, []string{"big", "small", "tiny", "failing"}},
		"zone":                 {set("availability_zone", "east"), []string{"small"}},
		"default zone":         {set("availability_zone", "nova"), []string{"big", "tiny", "failing"}},
		"unknown zone":         {set("availability_zone", "west"), nil},
		"forced":               {set("force_hosts", []string{"tiny"}), []string{"tiny"}},
		"forced node":          {set("force_nodes", []string{"tiny", "big"}), []string{"big", "tiny"}},
		"forced and down":      {set("force_hosts", []string{"down"}), nil},
		"requested":            {set("requested_destination", destination), []string{"small"}},
		"ignored":              {set("ignore_hosts", []string{"big", "tiny"}), []string{"small", "failing"}},
		"tried":                {set("retry", retries), []string{"small", "tiny", "failing"}},
		"architecture":         {image("hw_architecture", "amd64"), []string{"big", "small", "tiny", "failing"}},
		"other architecture":   {image("hw_architecture", "aarch64"), nil},
		"hypervisor":           {image("img_hv_type", "docker"), []string{"big", "small", "tiny", "failing"}},
		"other hypervisor":     {image("img_hv_type", "xen"), nil},
		"mode":                 {image("hw_vm_mode", "hvm"), nil},
		"trait":                {extraSpecs(map[string]string{"trait:HW_CPU_X86_AVX2": "required"}), []string{"small"}},
		"trait of the image":   {image("traits_required", []string{"HW_CPU_X86_AVX2"}), []string{"small"}},
		"forbidden trait":      {extraSpecs(map[string]string{"trait:HW_CPU_X86_AVX2": "forbidden"}), []string{"big", "tiny", "failing"}},
		"unknown trait":        {extraSpecs(map[string]string{"trait:CUSTOM_NO_SUCH": "required"}), nil},
		"resource":             {extraSpecs(map[string]string{"resources:VCPU": "17"}), nil},
		"resource not asked":   {extraSpecs(map[string]string{"resources:DISK_GB": "0"}), []string{"big", "small", "tiny", "failing"}},
		"resource nobody has":  {extraSpecs(map[string]string{"resources:FPGA": "1"}), nil},
		"extra specs, no word": {extraSpecs(map[string]string{"hw:mem_page_size": "any"}), []string{"big", "small", "tiny", "failing"}},
	} {
		if diff := cmp.Diff(c.want, w.where(spec(c.change))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestSelectionIsAnAllocation(t *testing.T) {
	w := newWorld(t)
	node := w.node("a", 256)
	ids := []string{uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()}
	out, err := w.scheduler.Select(t.Context(), scheduler.Request{Spec: spec(nil), Instances: ids})
	if err != nil || len(out) != 4 {
		t.Fatal(err)
	}
	s := out[0][0]
	if s.String("compute_node_uuid") != node || s.Node() != "a" || s.String("availability_zone") != "nova" || s.Object.Object("limits") == nil {
		t.Errorf("selection: %v", s.Object)
	}
	slices.Sort(ids)
	if got, err := w.placement.Consumers(t.Context(), node); err != nil || !slices.Equal(got, ids) {
		t.Errorf("consumers %v, %v", got, err)
	}
	late := uuid.NewString()
	_, err = w.scheduler.Select(t.Context(), scheduler.Request{Spec: spec(nil), Instances: []string{late}})
	if e, none := errors.AsType[*scheduler.NoValidHost](err); !none || !errors.Is(err, errdefs.ErrExhausted) || e.Error() != "No valid host was found. " {
		t.Errorf("a full host: %v", err)
	}
	if err := w.scheduler.Claim(t.Context(), spec(nil), late, s); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("an alternate that is full: %v", err)
	}
	if err := w.scheduler.Free(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	if err := w.scheduler.Claim(t.Context(), spec(nil), late, s); err != nil {
		t.Errorf("an alternate with room: %v", err)
	}
	if err := w.scheduler.Claim(t.Context(), spec(nil), late, objects.Selection{Object: objects.New("Selection")}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a selection without an allocation: %v", err)
	}
}

func TestAllOrNone(t *testing.T) {
	w := newWorld(t)
	node := w.node("a", 128)
	ids := []string{uuid.NewString(), uuid.NewString(), uuid.NewString()}
	_, err := w.scheduler.Select(t.Context(), scheduler.Request{Spec: spec(nil), Instances: ids})
	if e, none := errors.AsType[*scheduler.NoValidHost](err); !none || e.Error() != "No valid host was found. There are not enough hosts available." {
		t.Errorf("three where two fit: %v", err)
	}
	if got, err := w.placement.Consumers(t.Context(), node); err != nil || len(got) != 0 {
		t.Errorf("left: %v %v", got, err)
	}
}

func TestManyAtOnceFillTheHostsAndNoMore(t *testing.T) {
	w := newWorld(t)
	w.node("a", 320)
	w.node("b", 320)
	var won, lost int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			_, err := w.scheduler.Select(t.Context(), scheduler.Request{Spec: spec(nil), Instances: []string{uuid.NewString()}})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else {
				lost++
			}
		})
	}
	all.Wait()
	if won != 10 || lost != 6 {
		t.Errorf("%d got a host and %d none", won, lost)
	}
}

func TestServerGroups(t *testing.T) {
	for name, c := range map[string]struct {
		policy, most string
		want         []string // host of each of four members, "" for none
	}{
		"affinity":           {"affinity", "", []string{"a", "a", "a", "a"}},
		"anti-affinity":      {"anti-affinity", "", []string{"a", "b", "", ""}},
		"anti-affinity of 2": {"anti-affinity", "2", []string{"a", "a", "b", "b"}},
		"soft affinity":      {"soft-affinity", "", []string{"a", "a", "a", "a"}},
		"soft anti-affinity": {"soft-anti-affinity", "", []string{"a", "b", "a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.node("a", 8192)
			w.node("b", 4096)
			members := []string{uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()}
			w.setGroup(c.policy, c.most, members...)
			for n, id := range members {
				out, err := w.scheduler.Select(t.Context(), scheduler.Request{Spec: spec(nil), Instances: []string{id}})
				got := ""
				if err == nil {
					got = out[0][0].ServiceHost()
				}
				if got != c.want[n] {
					t.Errorf("member %d is on %q, want %q (%v)", n, got, c.want[n], err)
				}
			}
		})
	}
}

// TestAffinityToAFullHost: members are where nobody else fits any more.
func TestAffinityToAFullHost(t *testing.T) {
	w := newWorld(t)
	w.node("b", 128)
	a := w.node("a", 64)
	first, second := uuid.NewString(), uuid.NewString()
	w.setGroup("affinity", "", first, second)
	_, err := w.scheduler.Select(t.Context(), scheduler.Request{Spec: spec(set("force_hosts", []string{"a"})), Instances: []string{first}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := w.placement.Consumers(t.Context(), a); err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	if _, err := w.scheduler.Select(t.Context(), scheduler.Request{Spec: spec(nil), Instances: []string{second}}); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("a member apart from the others: %v", err)
	}
}

func TestWrongRequests(t *testing.T) {
	w := newWorld(t)
	w.node("a", 8192)
	for name, s := range map[string]objects.RequestSpec{
		"no flavor": {Object: objects.New("RequestSpec")},
		"amount":    spec(extraSpecs(map[string]string{"resources:VCPU": "many"})),
	} {
		if _, err := w.scheduler.Select(t.Context(), scheduler.Request{Spec: s, Instances: []string{uuid.NewString()}}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.scheduler.Select(ctx, scheduler.Request{Spec: spec(nil), Instances: []string{uuid.NewString()}}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestZoneOfAHost(t *testing.T) {
	w := newWorld(t)
	w.zones["a"] = "east"
	for name, want := range map[string]string{"a": "east", "b": scheduler.DefaultZone} {
		if got, err := w.scheduler.Zone(t.Context(), name); err != nil || got != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}

// BenchmarkSelect chooses for one instance among four hosts with forty
// instances.
func BenchmarkSelect(b *testing.B) {
	w := newWorld(b)
	for _, name := range []string{"a", "b", "c", "d"} {
		w.node(name, 1<<20)
	}
	choose := func(n int) []string {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = uuid.NewString()
		}
		if _, err := w.scheduler.Select(b.Context(), scheduler.Request{Spec: spec(nil), Instances: ids}); err != nil {
			b.Fatal(err)
		}
		return ids
	}
	choose(40)
	for b.Loop() {
		for _, id := range choose(1) {
			if err := w.scheduler.Free(b.Context(), id); err != nil {
				b.Fatal(err)
			}
		}
	}
}
