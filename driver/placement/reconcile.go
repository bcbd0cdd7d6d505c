package placement

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Inventory is how much of one resource class a provider has, in the unit of
// the class (VCPU: CPUs, MEMORY_MB: MiB, DISK_GB: GiB).
type Inventory struct {
	Total, Reserved int64
	// MinUnit and StepSize default to 1, MaxUnit to Total.
	MinUnit, MaxUnit, StepSize int64
	// AllocationRatio is the operator's choice. 0 keeps the one that placement
	// has; a class that is new there starts with InitialRatio (default 1).
	AllocationRatio, InitialRatio float64
}

// Wanted is what placement shall say of a host.
type Wanted struct {
	// UUID is the compute node's, Name the hypervisor host name. An existing
	// provider keeps its name.
	UUID, Name string
	// Inventories by resource class. A class with a Total of 0 is left out.
	Inventories map[string]Inventory
	// Traits that are true.
	Traits []string
	// Owned are the traits that are taken away when they are not among Traits.
	// All others stay as they are.
	Owned []string
}

// Result says what a Reconcile did.
type Result struct {
	// Created, Inventories and Traits say what was written.
	Created, Inventories, Traits bool
	// Unknown are standard traits that this placement is too old to know;
	// they were left out.
	Unknown []string
}

// Changed reports whether anything was written.
func (r Result) Changed() bool { return r.Created || r.Inventories || r.Traits }

// Reconcile makes placement agree with w and writes only where it differs: the
// same w a second time writes nothing. After a conflict with another writer it
// reads again, four times at most.
//
// Resource classes that w does not have are removed, except CUSTOM_ ones,
// which are an operator's. One that has allocations stays, everything else is
// done, and the error is errdefs.ErrConflict. errdefs.ErrConflict is also the
// answer when another provider has the name; the text tells an operator what to
// do. On error placement may agree in part.
func (r *Reporter) Reconcile(ctx context.Context, w Wanted) (Result, error) {
	var res Result
	var stuck error
	err := again(ctx, func(ctx context.Context) error {
		p, err := r.find(ctx, w.UUID)
		if err != nil {
			return err
		}
		if p == nil {
			if p, err = r.create(ctx, w.UUID, w.Name); err != nil {
				return err
			}
			res.Created = true
		}
		if stuck, err = r.inventories(ctx, p, w, &res); err != nil {
			return err
		}
		return r.traits(ctx, p, w, &res)
	})
	if err == nil {
		err = stuck
	}
	if err != nil {
		return res, fmt.Errorf("reconcile provider %s: %w", w.UUID, err)
	}
	return res, nil
}

// stock is one inventory on the wire.
type stock struct {
	Total    int64   `json:"total"`
	Reserved int64   `json:"reserved"`
	Min      int64   `json:"min_unit"`
	Max      int64   `json:"max_unit"`
	Step     int64   `json:"step_size"`
	Ratio    float64 `json:"allocation_ratio"`
}

// same compares. Placement keeps ratios as single-precision numbers of the
// database, so that one may come back rounded.
func (s stock) same(o stock) bool {
	near := math.Abs(s.Ratio-o.Ratio) <= 1e-5*math.Abs(s.Ratio)
	s.Ratio, o.Ratio = 0, 0
	return near && s == o
}

type inventoryDoc struct {
	Generation  int64            `json:"resource_provider_generation"`
	Inventories map[string]stock `json:"inventories"`
}

// inventories makes them agree. stuck is the error about classes that should
// go and are in use.
func (r *Reporter) inventories(ctx context.Context, p *provider, w Wanted, res *Result) (stuck, err error) {
	path := "/resource_providers/" + p.UUID + "/inventories"
	var have inventoryDoc
	if err := r.do(ctx, http.MethodGet, path, nil, nil, &have); err != nil {
		return nil, fmt.Errorf("read inventories: %w", err)
	}
	p.Generation = have.Generation
	want, gone := planInventories(have.Inventories, w.Inventories)
	err = r.putInventories(ctx, path, p, have.Inventories, want, res)
	if code(err) == codeInUse {
		stuck = fmt.Errorf("resource classes %v have allocations and stay: %w", gone, errdefs.ErrConflict)
		for _, class := range gone {
			want[class] = have.Inventories[class]
		}
		err = r.putInventories(ctx, path, p, have.Inventories, want, res)
	}
	return stuck, err
}

func (r *Reporter) putInventories(ctx context.Context, path string, p *provider, have, want map[string]stock, res *Result) error {
	if maps.EqualFunc(have, want, stock.same) {
		return nil
	}
	var done inventoryDoc
	if err := r.do(ctx, http.MethodPut, path, nil, inventoryDoc{p.Generation, want}, &done); err != nil {
		return fmt.Errorf("write inventories: %w", err)
	}
	p.Generation, res.Inventories = done.Generation, true
	return nil
}

// planInventories returns what placement should have, given what it has, and
// the classes that go.
func planInventories(have map[string]stock, wanted map[string]Inventory) (want map[string]stock, gone []string) {
	want = map[string]stock{}
	for class, i := range wanted {
		if i.Total == 0 {
			continue
		}
		s := stock{
			Total: i.Total, Reserved: i.Reserved,
			Min: orElse(i.MinUnit, 1), Max: orElse(i.MaxUnit, i.Total), Step: orElse(i.StepSize, 1),
			Ratio: i.AllocationRatio,
		}
		if s.Ratio == 0 {
			s.Ratio = orElse(have[class].Ratio, orElse(i.InitialRatio, 1))
		}
		want[class] = s
	}
	for class, s := range have {
		if _, ok := want[class]; ok {
			continue
		}
		if _, named := wanted[class]; !named && strings.HasPrefix(class, "CUSTOM_") {
			want[class] = s
			continue
		}
		gone = append(gone, class)
	}
	slices.Sort(gone)
	return want, gone
}

func orElse[N int64 | float64](n, other N) N {
	if n == 0 {
		return other
	}
	return n
}

type traitDoc struct {
	Generation int64    `json:"resource_provider_generation"`
	Traits     []string `json:"traits"`
}

func (r *Reporter) traits(ctx context.Context, p *provider, w Wanted, res *Result) error {
	path := "/resource_providers/" + p.UUID + "/traits"
	var have traitDoc
	if err := r.do(ctx, http.MethodGet, path, nil, nil, &have); err != nil {
		return fmt.Errorf("read traits: %w", err)
	}
	want, added := planTraits(have.Traits, w.Traits, w.Owned)
	unknown, err := r.EnsureTraits(ctx, added)
	if err != nil {
		return err
	}
	res.Unknown = unknown
	want = slices.DeleteFunc(want, func(t string) bool { return slices.Contains(unknown, t) })
	slices.Sort(have.Traits)
	if slices.Equal(have.Traits, want) {
		return nil
	}
	var done traitDoc
	if err := r.do(ctx, http.MethodPut, path, nil, traitDoc{have.Generation, want}, &done); err != nil {
		return fmt.Errorf("write traits: %w", err)
	}
	p.Generation, res.Traits = done.Generation, true
	return nil
}

// planTraits returns the traits that there should be, sorted, and those of
// them that are new.
func planTraits(have, wanted, owned []string) (want, added []string) {
	set := map[string]bool{}
	for _, t := range have {
		set[t] = true
	}
	for _, t := range owned {
		delete(set, t)
	}
	for _, t := range wanted {
		set[t] = true
	}
	want = slices.Sorted(maps.Keys(set))
	if want == nil {
		want = []string{}
	}
	for _, t := range want {
		if !slices.Contains(have, t) {
			added = append(added, t)
		}
	}
	return want, added
}

// EnsureTraits makes the CUSTOM_ traits among names exist and returns the
// standard ones that this placement does not know, sorted.
func (r *Reporter) EnsureTraits(ctx context.Context, names []string) (unknown []string, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	var known traitDoc
	query := map[string][]string{"name": {"in:" + strings.Join(names, ",")}}
	if err := r.do(ctx, http.MethodGet, "/traits", query, nil, &known); err != nil {
		return nil, fmt.Errorf("look up traits: %w", err)
	}
	for _, name := range names {
		switch {
		case slices.Contains(known.Traits, name):
		case !strings.HasPrefix(name, "CUSTOM_"):
			unknown = append(unknown, name)
		default:
			if err := r.do(ctx, http.MethodPut, "/traits/"+name, nil, nil, nil); err != nil {
				return nil, fmt.Errorf("create trait %s: %w", name, err)
			}
		}
	}
	slices.Sort(unknown)
	return unknown, nil
}

// SetTrait adds one trait to a provider or takes it away and leaves the rest,
// for example COMPUTE_STATUS_DISABLED. errdefs.ErrNotFound if the provider is
// absent.
func (r *Reporter) SetTrait(ctx context.Context, uuid, trait string, on bool) error {
	err := again(ctx, func(ctx context.Context) error {
		w := Wanted{Owned: []string{trait}}
		if on {
			w.Traits = []string{trait}
		}
		var res Result
		if err := r.traits(ctx, &provider{UUID: uuid}, w, &res); err != nil {
			return err
		}
		if len(res.Unknown) > 0 {
			return errdefs.ErrUnsupported
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("set trait %s of provider %s: %w", trait, uuid, err)
	}
	return nil
}

// Ratios returns the allocation ratios that placement has, by resource class;
// none for an absent provider.
func (r *Reporter) Ratios(ctx context.Context, uuid string) (map[string]float64, error) {
	var have inventoryDoc
	err := r.do(ctx, http.MethodGet, "/resource_providers/"+uuid+"/inventories", nil, nil, &have)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return nil, fmt.Errorf("read inventories of provider %s: %w", uuid, err)
	}
	out := map[string]float64{}
	for class, s := range have.Inventories {
		out[class] = s.Ratio
	}
	return out, nil
}
