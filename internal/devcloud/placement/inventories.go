package placement

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// inventory of one class. Amounts are in the unit of the class, MiB or GiB for
// instance.
type inventory struct {
	Total    int64   `json:"total"`
	Reserved int64   `json:"reserved"`
	MinUnit  int64   `json:"min_unit"`
	MaxUnit  int64   `json:"max_unit"`
	StepSize int64   `json:"step_size"`
	Ratio    float64 `json:"allocation_ratio"`
}

// capacity is what may be allocated.
func (i inventory) capacity() int64 { return int64(float64(i.Total-i.Reserved) * i.Ratio) }

// suits reports whether an amount keeps the rules of the inventory.
func (i inventory) suits(amount int64) bool {
	return amount >= i.MinUnit && amount <= i.MaxUnit && amount%i.StepSize == 0
}

// inventoryBody is the JSON of one; nil is the default.
type inventoryBody struct {
	Total      *int64   `json:"total"`
	Reserved   *int64   `json:"reserved"`
	MinUnit    *int64   `json:"min_unit"`
	MaxUnit    *int64   `json:"max_unit"`
	StepSize   *int64   `json:"step_size"`
	Ratio      *float64 `json:"allocation_ratio"`
	Class      *string  `json:"resource_class"`
	Generation *int64   `json:"resource_provider_generation"`
}

const (
	most      = math.MaxInt32
	mostRatio = 3.40282e+38
)

// inventory checks the values of b.
func (b inventoryBody) inventory(v rest.Version, class, provider string) (i inventory, err error) {
	i = inventory{MinUnit: 1, MaxUnit: most, StepSize: 1, Ratio: 1}
	if b.Total == nil {
		return i, badRequest("JSON does not validate: 'total' is a required property")
	}
	for _, f := range []struct {
		name  string
		in    *int64
		out   *int64
		least int64
	}{
		{"total", b.Total, &i.Total, 1},
		{"reserved", b.Reserved, &i.Reserved, 0},
		{"min_unit", b.MinUnit, &i.MinUnit, 1},
		{"max_unit", b.MaxUnit, &i.MaxUnit, 1},
		{"step_size", b.StepSize, &i.StepSize, 1},
	} {
		if f.in == nil {
			continue
		}
		if *f.in < f.least || *f.in > most {
			return i, badRequest("JSON does not validate: %d is out of the range of %s, %d to %d", *f.in, f.name, f.least, most)
		}
		*f.out = *f.in
	}
	if b.Ratio != nil {
		if i.Ratio = *b.Ratio; i.Ratio > mostRatio {
			return i, badRequest("JSON does not validate: %g is greater than the maximum of %g", i.Ratio, mostRatio)
		}
	}
	least, words := int64(1), "greater than or equal to total"
	if v.AtLeast(1, 26) {
		least, words = 0, "greater than total"
	}
	if i.capacity() < least {
		return i, badRequest("Unable to update inventory for resource provider %s: Invalid inventory for '%s' on resource provider '%s'. The reserved value is %s.", provider, class, provider, words)
	}
	return i, nil
}

const inventoryColumns = "total, reserved, min_unit, max_unit, step_size, ratio"

func (i *inventory) fields() []any {
	return []any{&i.Total, &i.Reserved, &i.MinUnit, &i.MaxUnit, &i.StepSize, &i.Ratio}
}

// inventories are those of a provider by class.
func (o operation) inventories(p *provider) (map[string]inventory, error) {
	all := map[string]inventory{}
	return all, o.each(func(rows *sql.Rows) error {
		var class string
		var i inventory
		err := rows.Scan(append([]any{&class}, i.fields()...)...)
		all[class] = i
		return err
	}, "SELECT class, "+inventoryColumns+" FROM inventories WHERE provider = ?", p.uuid)
}

func (o operation) putInventory(p *provider, class string, i inventory) error {
	_, err := o.exec("INSERT OR REPLACE INTO inventories (provider, class, "+inventoryColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		p.uuid, class, i.Total, i.Reserved, i.MinUnit, i.MaxUnit, i.StepSize, i.Ratio)
	return err
}

// dropInventory refuses what is allocated.
func (o operation) dropInventory(p *provider, class string) error {
	used, err := o.has("SELECT 1 FROM allocations WHERE provider = ? AND class = ?", p.uuid, class)
	if err != nil {
		return err
	}
	if used {
		return conflict(codeInUse, "update conflict: Inventory for '%s' on resource provider '%s' in use.", class, p.uuid)
	}
	_, err = o.exec("DELETE FROM inventories WHERE provider = ? AND class = ?", p.uuid, class)
	return err
}

func listInventories(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	return o.inventoriesView(p)
}

func (o operation) inventoriesView(p *provider) (*rest.Response, error) {
	all, err := o.inventories(p)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"resource_provider_generation": p.generation, "inventories": all})
}

func (o operation) inventoryView(p *provider, i inventory) map[string]any {
	return map[string]any{
		"total": i.Total, "reserved": i.Reserved, "min_unit": i.MinUnit, "max_unit": i.MaxUnit, "step_size": i.StepSize,
		"allocation_ratio": i.Ratio, "resource_provider_generation": p.generation,
	}
}

func showInventory(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	all, err := o.inventories(p)
	if err != nil {
		return nil, err
	}
	i, ok := all[o.PathValue("class")]
	if !ok {
		return nil, notFound("No inventory of class %s for %s", o.PathValue("class"), p.uuid)
	}
	return rest.OK(o.inventoryView(p, i))
}

// replaceInventories is PUT of all.
func replaceInventories(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	var in struct {
		Generation  *int64                   `json:"resource_provider_generation"`
		Inventories map[string]inventoryBody `json:"inventories"`
	}
	if err := o.strict(&in); err != nil {
		return nil, err
	}
	if in.Generation == nil || in.Inventories == nil {
		return nil, badRequest("JSON does not validate: 'resource_provider_generation' and 'inventories' are required properties")
	}
	if *in.Generation != p.generation {
		return nil, conflict(codeConcurrent, "resource provider generation conflict")
	}
	if err := o.setInventories(p, in.Inventories); err != nil {
		return nil, err
	}
	return o.inventoriesView(p)
}

// setInventories makes them all that p has.
func (o operation) setInventories(p *provider, wanted map[string]inventoryBody) error {
	next := map[string]inventory{}
	for class, body := range wanted {
		if missing, err := o.unknownClasses([]string{class}); err != nil {
			return err
		} else if len(missing) > 0 {
			return badRequest("Unknown resource class in inventory for resource provider %s: No such resource class %s.", p.uuid, class)
		}
		i, err := body.inventory(o.Version, class, p.uuid)
		if err != nil {
			return err
		}
		next[class] = i
	}
	have, err := o.inventories(p)
	if err != nil {
		return err
	}
	for class := range have {
		if _, stays := next[class]; !stays {
			if err := o.dropInventory(p, class); err != nil {
				return err
			}
		}
	}
	for class, i := range next {
		if err := o.putInventory(p, class, i); err != nil {
			return err
		}
	}
	return o.touch(p)
}

func createInventory(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	var in inventoryBody
	if err := o.strict(&in); err != nil {
		return nil, err
	}
	if in.Class == nil {
		return nil, badRequest("JSON does not validate: 'resource_class' is a required property")
	}
	if in.Generation != nil && *in.Generation != p.generation {
		return nil, conflict(codeConcurrent, "resource provider generation conflict")
	}
	if missing, err := o.unknownClasses([]string{*in.Class}); err != nil {
		return nil, err
	} else if len(missing) > 0 {
		return nil, badRequest("Unable to create inventory for resource provider %s: No such resource class %s.", p.uuid, *in.Class)
	}
	i, err := in.inventory(o.Version, *in.Class, p.uuid)
	if err != nil {
		return nil, err
	}
	if have, err := o.inventories(p); err != nil {
		return nil, err
	} else if _, there := have[*in.Class]; there {
		return nil, conflict(codeConcurrent, "Update conflict: %s is there already", *in.Class)
	}
	if err := errors.Join(o.putInventory(p, *in.Class, i), o.touch(p)); err != nil {
		return nil, err
	}
	return &rest.Response{
		Status: http.StatusCreated, Body: o.inventoryView(p, i),
		Header: http.Header{"Location": {fmt.Sprintf("%s/resource_providers/%s/inventories/%s", o.Base(), p.uuid, *in.Class)}},
	}, nil
}

func updateInventory(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	class := o.PathValue("class")
	var in inventoryBody
	if err := o.strict(&in); err != nil {
		return nil, err
	}
	if in.Generation == nil {
		return nil, badRequest("JSON does not validate: 'resource_provider_generation' is a required property")
	}
	if *in.Generation != p.generation {
		return nil, conflict(codeConcurrent, "resource provider generation conflict")
	}
	i, err := in.inventory(o.Version, class, p.uuid)
	if err != nil {
		return nil, err
	}
	if have, err := o.inventories(p); err != nil {
		return nil, err
	} else if _, there := have[class]; !there {
		return nil, badRequest("Unable to update inventory for resource provider %s: No inventory of class %s found.", p.uuid, class)
	}
	if err := errors.Join(o.putInventory(p, class, i), o.touch(p)); err != nil {
		return nil, err
	}
	return rest.OK(o.inventoryView(p, i))
}

func deleteInventory(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	class := o.PathValue("class")
	have, err := o.inventories(p)
	if err != nil {
		return nil, err
	}
	if _, there := have[class]; !there {
		return nil, notFound("No inventory of class %s found for delete: No inventory of class %s found for delete", class, class)
	}
	if err := errors.Join(o.dropInventory(p, class), o.touch(p)); err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func deleteInventories(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	if err := o.setInventories(p, nil); err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func showAggregates(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	return o.aggregatesView(p)
}

func (o operation) aggregatesView(p *provider) (*rest.Response, error) {
	list, err := o.column("SELECT aggregate FROM provider_aggregates WHERE provider = ? ORDER BY aggregate", p.uuid)
	if err != nil {
		return nil, err
	}
	view := map[string]any{"aggregates": list}
	if o.Version.AtLeast(1, 19) {
		view["resource_provider_generation"] = p.generation
	}
	return rest.OK(view)
}

func replaceAggregates(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	var in struct {
		Aggregates []string `json:"aggregates"`
		Generation *int64   `json:"resource_provider_generation"`
	}
	if counted := o.Version.AtLeast(1, 19); !counted {
		err = o.strict(&in.Aggregates)
	} else if err = o.strict(&in); err == nil {
		switch {
		case in.Generation == nil || in.Aggregates == nil:
			err = badRequest("JSON does not validate: 'aggregates' and 'resource_provider_generation' are required properties")
		case *in.Generation != p.generation:
			err = conflict(codeConcurrent, "Resource provider's generation already changed. Please update the generation and try again.")
		}
	}
	if err != nil {
		return nil, err
	}
	for i, id := range in.Aggregates {
		if in.Aggregates[i], err = canonical(id); err != nil || slices.Contains(in.Aggregates[:i], in.Aggregates[i]) {
			return nil, badRequest("JSON does not validate: '%s' is not a 'uuid', or not unique", id)
		}
	}
	if _, err := o.exec("DELETE FROM provider_aggregates WHERE provider = ?", p.uuid); err != nil {
		return nil, err
	}
	for _, id := range in.Aggregates {
		if _, err := o.exec("INSERT INTO provider_aggregates VALUES (?, ?)", p.uuid, id); err != nil {
			return nil, err
		}
	}
	if o.Version.AtLeast(1, 19) {
		if err := o.touch(p); err != nil {
			return nil, err
		}
	}
	return o.aggregatesView(p)
}

func showProviderTraits(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	return o.traitsView(p)
}

func (o operation) traitsView(p *provider) (*rest.Response, error) {
	list, err := o.column("SELECT trait FROM provider_traits WHERE provider = ? ORDER BY trait", p.uuid)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"traits": list, "resource_provider_generation": p.generation})
}

func replaceProviderTraits(o operation) (*rest.Response, error) {
	var in struct {
		Traits     []string `json:"traits"`
		Generation *int64   `json:"resource_provider_generation"`
	}
	if err := o.strict(&in); err != nil {
		return nil, err
	}
	if in.Traits == nil || in.Generation == nil {
		return nil, badRequest("JSON does not validate: 'traits' and 'resource_provider_generation' are required properties")
	}
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	if *in.Generation != p.generation {
		return nil, conflict(codeConcurrent, "Resource provider's generation already changed. Please update the generation and try again.")
	}
	if missing, err := o.unknownTraits(in.Traits); err != nil {
		return nil, err
	} else if len(missing) > 0 {
		return nil, badRequest("No such trait %s", joined(missing))
	}
	if err := o.setTraits(p, in.Traits); err != nil {
		return nil, err
	}
	return o.traitsView(p)
}

func (o operation) setTraits(p *provider, names []string) error {
	have, err := o.column("SELECT trait FROM provider_traits WHERE provider = ? ORDER BY trait", p.uuid)
	if err != nil {
		return err
	}
	next := slices.Compact(slices.Sorted(slices.Values(names)))
	if slices.Equal(have, next) {
		return nil // as there: the generation stays
	}
	if _, err := o.exec("DELETE FROM provider_traits WHERE provider = ?", p.uuid); err != nil {
		return err
	}
	for _, n := range next {
		if _, err := o.exec("INSERT INTO provider_traits VALUES (?, ?)", p.uuid, n); err != nil {
			return err
		}
	}
	return o.touch(p)
}

func deleteProviderTraits(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	if err := o.setTraits(p, nil); err != nil {
		return nil, err
	}
	return rest.NoContent()
}
