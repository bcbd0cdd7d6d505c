package placement_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/placement"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// suite runs against the double and, in functional_test.go, against a real
// placement: what the reporter promises and the double imitates is one list.
func suite(t *testing.T, client placement.Requester) {
	for name, test := range map[string]func(*testing.T, world){
		"FirstAndSecondTime":  firstAndSecondTime,
		"ForeignThingsStay":   foreignThingsStay,
		"RatiosStay":          ratiosStay,
		"ClassesGo":           classesGo,
		"UnknownTraits":       unknownTraits,
		"NameTaken":           nameTaken,
		"SetTrait":            setTrait,
		"ConflictIsReadAgain": conflictIsReadAgain,
		"ConflictEveryTime":   conflictEveryTime,
		"Allocations":         allocations,
		"CarefulDelete":       carefulDelete,
		"OneProviderOfTwo":    oneProviderOfTwo,
		"ProviderInUse":       providerInUse,
		"AbsentThings":        absentThings,
	} {
		t.Run(name, func(t *testing.T) { test(t, world{client, placement.New(client)}) })
	}
}

// world is one placement service, seen raw and through the reporter.
type world struct {
	raw placement.Requester
	*placement.Reporter
}

func (w world) do(t *testing.T, method, path string, body, into any) {
	t.Helper()
	if err := w.try(t.Context(), method, path, body, into); err != nil {
		t.Fatal(err)
	}
}

func (w world) try(ctx context.Context, method, path string, body, into any) error {
	return w.raw.Do(ctx, openstack.UserAuth{}, openstack.Request{
		Method: method, Path: path, Body: body, Into: into,
		Header: map[string]string{"OpenStack-API-Version": "placement 1.28", "Accept": "application/json"},
	})
}

// host is a wanted provider of its own, removed at the end of the test.
func (w world) host(t *testing.T) placement.Wanted {
	t.Helper()
	id := uuid.NewString()
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		held, err := w.Consumers(ctx, id)
		for _, c := range held {
			err = errors.Join(err, w.DeleteAllocations(ctx, c))
		}
		if err = errors.Join(err, w.DeleteProvider(ctx, id)); err != nil {
			t.Error(err)
		}
	})
	return placement.Wanted{
		UUID: id, Name: "gantry-test-" + id,
		Inventories: map[string]placement.Inventory{
			"VCPU":      {Total: 8, InitialRatio: 16},
			"MEMORY_MB": {Total: 16000, Reserved: 512, InitialRatio: 1.5},
			"DISK_GB":   {Total: 100},
		},
		Traits: []string{"COMPUTE_NODE", "COMPUTE_IMAGE_TYPE_RAW"},
		Owned:  placement.ServiceTraits(),
	}
}

func (w world) reconcile(t *testing.T, want placement.Wanted) placement.Result {
	t.Helper()
	res, err := w.Reconcile(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

type traitDoc struct {
	Generation int64    `json:"resource_provider_generation"`
	Traits     []string `json:"traits"`
}

func (w world) traitsOf(t *testing.T, id string) traitDoc {
	t.Helper()
	var d traitDoc
	w.do(t, "GET", "/resource_providers/"+id+"/traits", nil, &d)
	slices.Sort(d.Traits)
	return d
}

type inventoryDoc struct {
	Generation  int64                     `json:"resource_provider_generation"`
	Inventories map[string]map[string]any `json:"inventories"`
}

func (w world) inventoriesOf(t *testing.T, id string) inventoryDoc {
	t.Helper()
	var d inventoryDoc
	w.do(t, "GET", "/resource_providers/"+id+"/inventories", nil, &d)
	return d
}

// allocate lets a new consumer hold resources, as the scheduler does.
func (w world) allocate(t *testing.T, amounts map[string]placement.Resources) string {
	t.Helper()
	id := uuid.NewString()
	held := map[string]any{}
	for provider, r := range amounts {
		held[provider] = map[string]any{"resources": r}
	}
	w.do(t, "PUT", "/allocations/"+id, map[string]any{
		"allocations": held, "project_id": "p", "user_id": "u", "consumer_generation": nil,
	}, nil)
	t.Cleanup(func() {
		if err := w.DeleteAllocations(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
	})
	return id
}

func firstAndSecondTime(t *testing.T, w world) {
	h := w.host(t)
	if res := w.reconcile(t, h); !res.Created || !res.Inventories || !res.Traits {
		t.Errorf("first: %+v", res)
	}
	before := w.traitsOf(t, h.UUID)
	if diff := cmp.Diff([]string{"COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_NODE"}, before.Traits); diff != "" {
		t.Error(diff)
	}
	want := map[string]any{"total": 16000., "reserved": 512., "min_unit": 1., "max_unit": 16000., "step_size": 1., "allocation_ratio": 1.5}
	if diff := cmp.Diff(want, w.inventoriesOf(t, h.UUID).Inventories["MEMORY_MB"]); diff != "" {
		t.Error(diff)
	}
	if res := w.reconcile(t, h); res.Changed() || w.traitsOf(t, h.UUID).Generation != before.Generation {
		t.Errorf("second: %+v", res)
	}
	h.Inventories["VCPU"] = placement.Inventory{Total: 16, AllocationRatio: 4}
	if res := w.reconcile(t, h); res.Created || res.Traits || !res.Inventories {
		t.Errorf("more CPUs: %+v", res)
	}
	if r, err := w.Ratios(t.Context(), h.UUID); err != nil || r["VCPU"] != 4 || r["DISK_GB"] != 1 {
		t.Error(r, err)
	}
}

func foreignThingsStay(t *testing.T, w world) {
	h := w.host(t)
	w.reconcile(t, h)
	w.do(t, "PUT", "/traits/CUSTOM_GANTRY_TEST_RACK", nil, nil)
	d := w.traitsOf(t, h.UUID)
	w.do(t, "PUT", "/resource_providers/"+h.UUID+"/traits", traitDoc{
		d.Generation,
		append(d.Traits, "CUSTOM_GANTRY_TEST_RACK", "HW_CPU_X86_AVX2", "COMPUTE_TRUSTED_CERTS"),
	}, nil)
	aggregate := uuid.NewString()
	w.do(t, "PUT", "/resource_providers/"+h.UUID+"/aggregates", map[string]any{
		"resource_provider_generation": w.traitsOf(t, h.UUID).Generation, "aggregates": []string{aggregate},
	}, nil)
	if res := w.reconcile(t, h); !res.Traits || res.Inventories {
		t.Errorf("%+v", res)
	}
	want := []string{"COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_NODE", "CUSTOM_GANTRY_TEST_RACK", "HW_CPU_X86_AVX2"}
	if diff := cmp.Diff(want, w.traitsOf(t, h.UUID).Traits); diff != "" {
		t.Errorf("ours that is not true goes, others' stay: %s", diff)
	}
	var got struct{ Aggregates []string }
	w.do(t, "GET", "/resource_providers/"+h.UUID+"/aggregates", nil, &got)
	if !slices.Equal(got.Aggregates, []string{aggregate}) {
		t.Error("the aggregate is lost")
	}
}

func ratiosStay(t *testing.T, w world) {
	h := w.host(t)
	w.reconcile(t, h)
	d := w.inventoriesOf(t, h.UUID)
	d.Inventories["VCPU"]["allocation_ratio"] = 2.3333333
	w.do(t, "PUT", "/resource_providers/"+h.UUID+"/inventories", d, nil)
	if res := w.reconcile(t, h); res.Changed() {
		t.Errorf("an operator's ratio was overwritten: %+v", res)
	}
	forced := h.Inventories["VCPU"]
	forced.AllocationRatio = 2.3333333
	h.Inventories["VCPU"] = forced
	if res := w.reconcile(t, h); res.Changed() {
		t.Errorf("the same ratio was written again: %+v", res)
	}
}

func classesGo(t *testing.T, w world) {
	h := w.host(t)
	h.Inventories["PCPU"] = placement.Inventory{Total: 4}
	h.Inventories["VGPU"] = placement.Inventory{Total: 2}
	w.reconcile(t, h)
	w.allocate(t, map[string]placement.Resources{h.UUID: {"PCPU": 1}})
	delete(h.Inventories, "PCPU")
	h.Inventories["VGPU"] = placement.Inventory{}
	h.Inventories["DISK_GB"] = placement.Inventory{Total: 200}
	_, err := w.Reconcile(t.Context(), h)
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "PCPU") {
		t.Errorf("a class in use: %v", err)
	}
	got := w.inventoriesOf(t, h.UUID).Inventories
	if got["PCPU"] == nil || got["DISK_GB"]["total"] != 200. {
		t.Errorf("the rest was not done: %v", got)
	}
}

func unknownTraits(t *testing.T, w world) {
	h := w.host(t)
	h.Traits = append(h.Traits, "COMPUTE_GANTRY_NEVER_HEARD_OF", "CUSTOM_GANTRY_TEST_NEW")
	res := w.reconcile(t, h)
	if diff := cmp.Diff([]string{"COMPUTE_GANTRY_NEVER_HEARD_OF"}, res.Unknown); diff != "" {
		t.Error(diff)
	}
	if !slices.Contains(w.traitsOf(t, h.UUID).Traits, "CUSTOM_GANTRY_TEST_NEW") {
		t.Error("the custom trait was not made")
	}
	if res := w.reconcile(t, h); res.Changed() || len(res.Unknown) != 1 {
		t.Errorf("second: %+v", res)
	}
}

func nameTaken(t *testing.T, w world) {
	h := w.host(t)
	w.reconcile(t, h)
	again := w.host(t)
	again.Name = h.Name
	_, err := w.Reconcile(t.Context(), again)
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), h.UUID) || !strings.Contains(err.Error(), "reinstalled") {
		t.Errorf("%v", err)
	}
}

func setTrait(t *testing.T, w world) {
	h := w.host(t)
	w.reconcile(t, h)
	for _, on := range []bool{true, true, false, false} {
		if err := w.SetTrait(t.Context(), h.UUID, placement.TraitDisabled, on); err != nil {
			t.Fatal(err)
		}
		if got := w.traitsOf(t, h.UUID).Traits; slices.Contains(got, placement.TraitDisabled) != on || len(got) < 2 {
			t.Errorf("%v: %v", on, got)
		}
	}
	if err := w.SetTrait(t.Context(), h.UUID, "COMPUTE_GANTRY_NEVER_HEARD_OF", true); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Error(err)
	}
	if err := w.SetTrait(t.Context(), uuid.NewString(), placement.TraitDisabled, true); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
}

// meddler changes a provider ahead of each of the first writes of a path.
type meddler struct {
	placement.Requester
	suffix string
	left   int
	meddle func()
}

func (m *meddler) Do(ctx context.Context, auth openstack.UserAuth, req openstack.Request) error {
	if req.Method == http.MethodPut && strings.Contains(req.Path, m.suffix) && m.left > 0 {
		m.left--
		m.meddle()
	}
	return m.Requester.Do(ctx, auth, req)
}

// bump raises a provider's generation by writing what is there.
func (w world) bump(t *testing.T, id string) func() {
	return func() {
		w.do(t, "PUT", "/resource_providers/"+id+"/inventories", w.inventoriesOf(t, id), nil)
	}
}

func conflictIsReadAgain(t *testing.T, w world) {
	h := w.host(t)
	w.reconcile(t, h)
	for _, suffix := range []string{"/inventories", "/traits"} {
		h.Inventories["VCPU"] = placement.Inventory{Total: h.Inventories["VCPU"].Total + 1}
		h.Traits = append(h.Traits, "CUSTOM_GANTRY_TEST_"+strings.ToUpper(suffix[1:]))
		m := &meddler{w.raw, h.UUID + suffix, 3, w.bump(t, h.UUID)}
		res, err := placement.New(m).Reconcile(t.Context(), h)
		if err != nil || !res.Changed() || m.left != 0 {
			t.Errorf("%s: %+v %v, %d left", suffix, res, err, m.left)
		}
	}
}

func conflictEveryTime(t *testing.T, w world) {
	h := w.host(t)
	w.reconcile(t, h)
	h.Inventories["VCPU"] = placement.Inventory{Total: 9}
	m := &meddler{w.raw, h.UUID + "/inventories", 100, w.bump(t, h.UUID)}
	if _, err := placement.New(m).Reconcile(t.Context(), h); !errors.Is(err, errdefs.ErrConflict) || m.left != 96 {
		t.Errorf("%v after %d tries", err, 100-m.left)
	}
}

func allocations(t *testing.T, w world) {
	h := w.host(t)
	w.reconcile(t, h)
	want := placement.Resources{"VCPU": 1, "MEMORY_MB": 64}
	id := w.allocate(t, map[string]placement.Resources{h.UUID: want})
	a, err := w.Allocations(t.Context(), id)
	if err != nil || a.ProjectID != "p" || a.UserID != "u" {
		t.Fatal(a, err)
	}
	if diff := cmp.Diff(map[string]placement.Resources{h.UUID: want}, a.Providers); diff != "" {
		t.Error(diff)
	}
	held, err := w.ProviderAllocations(t.Context(), h.UUID)
	if diff := cmp.Diff(map[string]placement.Resources{id: want}, held); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for range 2 {
		if err := w.DeleteAllocations(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if c, err := w.Consumers(t.Context(), h.UUID); err != nil || len(c) != 0 {
		t.Error(c, err)
	}
}

func carefulDelete(t *testing.T, w world) {
	h := w.host(t)
	w.reconcile(t, h)
	id := w.allocate(t, map[string]placement.Resources{h.UUID: {"VCPU": 1}})
	m := &meddler{w.raw, "/allocations/" + id, 1, func() {
		w.do(t, "PUT", "/allocations/"+id, map[string]any{
			"allocations": map[string]any{h.UUID: map[string]any{"resources": map[string]int{"VCPU": 2}}},
			"project_id":  "p", "user_id": "u", "consumer_generation": 1,
		}, nil)
	}}
	if err := placement.New(m).HealAllocation(t.Context(), id); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a changed allocation was removed: %v", err)
	}
	for range 2 {
		if err := w.HealAllocation(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if a, err := w.Allocations(t.Context(), id); err != nil || len(a.Providers) != 0 {
		t.Error(a, err)
	}
}

func oneProviderOfTwo(t *testing.T, w world) {
	ours, other := w.host(t), w.host(t)
	w.reconcile(t, ours)
	w.reconcile(t, other)
	id := w.allocate(t, map[string]placement.Resources{ours.UUID: {"VCPU": 1}, other.UUID: {"VCPU": 1}})
	for range 2 {
		if err := w.RemoveProvider(t.Context(), id, ours.UUID); err != nil {
			t.Fatal(err)
		}
	}
	a, err := w.Allocations(t.Context(), id)
	if diff := cmp.Diff(map[string]placement.Resources{other.UUID: {"VCPU": 1}}, a.Providers); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if err := w.RemoveProvider(t.Context(), id, other.UUID); err != nil {
		t.Error(err)
	}
	if a, err := w.Allocations(t.Context(), id); err != nil || len(a.Providers) != 0 {
		t.Error(a, err)
	}
}

func providerInUse(t *testing.T, w world) {
	h := w.host(t)
	w.reconcile(t, h)
	w.allocate(t, map[string]placement.Resources{h.UUID: {"VCPU": 1}})
	if err := w.DeleteProvider(t.Context(), h.UUID); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("%v", err)
	}
}

func absentThings(t *testing.T, w world) {
	ctx, id := t.Context(), uuid.NewString()
	if err := errors.Join(w.DeleteAllocations(ctx, id), w.HealAllocation(ctx, id), w.RemoveProvider(ctx, id, id), w.DeleteProvider(ctx, id)); err != nil {
		t.Error(err)
	}
	if c, err := w.Consumers(ctx, id); err != nil || len(c) != 0 {
		t.Error(c, err)
	}
	if r, err := w.Ratios(ctx, id); err != nil || len(r) != 0 {
		t.Error(r, err)
	}
	if _, err := w.ProviderAllocations(ctx, id); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
	if a, err := w.Allocations(ctx, id); err != nil || len(a.Providers) != 0 {
		t.Error(a, err)
	}
}
