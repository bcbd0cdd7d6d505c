package placement

import (
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// nobody stands for the project and user of allocations that were made before
// they had to be named (placement's incomplete_consumer_project_id).
const nobody = "00000000-0000-0000-0000-000000000000"

// resources are amounts by class.
type resources map[string]int64

// consumer is a row of consumers.
type consumer struct {
	uuid, project, user string
	generation          int64
	kind                sql.NullString
}

// consumer returns one; nil when nothing is allocated to it.
func (o operation) consumer(id string) (*consumer, error) {
	c := &consumer{}
	err := o.tx.QueryRowContext(o.Context, "SELECT uuid, generation, project, user, type FROM consumers WHERE uuid = ?", id).
		Scan(&c.uuid, &c.generation, &c.project, &c.user, &c.kind)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // says that there is none
	}
	return c, err
}

// allocated is what a consumer has, by provider.
func (o operation) allocated(id string) (map[string]resources, error) {
	all := map[string]resources{}
	return all, o.each(func(rows *sql.Rows) error {
		var provider, class string
		var used int64
		err := rows.Scan(&provider, &class, &used)
		if all[provider] == nil {
			all[provider] = resources{}
		}
		all[provider][class] = used
		return err
	}, "SELECT provider, class, used FROM allocations WHERE consumer = ?", id)
}

func showAllocations(o operation) (*rest.Response, error) {
	id := o.PathValue("consumer")
	c, err := o.consumer(id)
	if err != nil {
		return nil, err
	}
	have, err := o.allocated(id)
	if err != nil {
		return nil, err
	}
	list := map[string]any{}
	for provider, res := range have {
		p, err := o.provider(provider)
		if err != nil {
			return nil, err
		}
		list[provider] = map[string]any{"generation": p.generation, "resources": res}
	}
	view := map[string]any{"allocations": list}
	if c != nil {
		if o.Version.AtLeast(1, 12) {
			view["project_id"], view["user_id"] = c.project, c.user
		}
		if o.Version.AtLeast(1, 28) {
			view["consumer_generation"] = c.generation
		}
		if o.Version.AtLeast(1, 38) {
			view["consumer_type"] = typeName(c.kind)
		}
	}
	return rest.OK(view)
}

func typeName(kind sql.NullString) string {
	if !kind.Valid {
		return "unknown"
	}
	return kind.String
}

func showProviderAllocations(o operation) (*rest.Response, error) {
	p, err := o.target()
	if err != nil {
		return nil, err
	}
	type one struct {
		Resources  resources `json:"resources"`
		Generation *int64    `json:"consumer_generation,omitempty"`
	}
	list := map[string]*one{}
	err = o.each(func(rows *sql.Rows) error {
		var id, class string
		var used, generation int64
		err := rows.Scan(&id, &generation, &class, &used)
		if list[id] == nil {
			list[id] = &one{Resources: resources{}}
			if o.Version.AtLeast(1, 28) {
				list[id].Generation = &generation
			}
		}
		list[id].Resources[class] = used
		return err
	}, "SELECT c.uuid, c.generation, a.class, a.used FROM allocations a JOIN consumers c ON c.uuid = a.consumer WHERE a.provider = ?", p.uuid)
	if err != nil {
		return nil, err
	}
	return rest.OK(map[string]any{"allocations": list, "resource_provider_generation": p.generation})
}

// claim is what a consumer is to have instead of what it has.
type claim struct {
	consumer, project, user string
	kind                    sql.NullString
	// counted says that generation must be the consumer's, nil for a new one.
	counted    bool
	generation *int64
	resources  map[string]resources // by provider
}

// claimBody is the JSON of a claim in all versions.
type claimBody struct {
	Allocations json.RawMessage     `json:"allocations"`
	Project     *string             `json:"project_id"`
	User        *string             `json:"user_id"`
	Generation  json.RawMessage     `json:"consumer_generation"`
	Type        *string             `json:"consumer_type"`
	Mappings    map[string][]string `json:"mappings"`
}

// claim checks the body of one consumer.
func (o operation) claim(id string, b claimBody) (c claim, err error) {
	if c.consumer, err = canonical(id); err != nil {
		return c, badRequest("Malformed consumer_uuid: %s", id)
	}
	c.project, c.user = nobody, nobody
	for _, f := range []struct {
		name  string
		since int
		have  bool
		must  bool
	}{
		{"project_id", 8, b.Project != nil, true},
		{"user_id", 8, b.User != nil, true},
		{"consumer_generation", 28, b.Generation != nil, true},
		{"mappings", 34, b.Mappings != nil, false},
		{"consumer_type", 38, b.Type != nil, true},
		{"allocations", 0, b.Allocations != nil, true},
	} {
		offered := o.Version.AtLeast(1, f.since)
		if f.have && !offered {
			return c, badRequest("JSON does not validate: Additional properties are not allowed ('%s' was unexpected)", f.name)
		}
		if f.must && offered && !f.have {
			return c, badRequest("JSON does not validate: '%s' is a required property", f.name)
		}
	}
	for _, f := range []struct {
		in  *string
		out *string
	}{{b.Project, &c.project}, {b.User, &c.user}} {
		if f.in != nil {
			if *f.in == "" || len(*f.in) > 255 {
				return c, badRequest("JSON does not validate: '%s' is too short or too long", *f.in)
			}
			*f.out = *f.in
		}
	}
	if b.Type != nil {
		if !plain(*b.Type) {
			return c, badRequest("JSON does not validate: '%s' does not match '^[A-Z0-9_]+$'", *b.Type)
		}
		c.kind = sql.NullString{String: *b.Type, Valid: true}
	}
	if c.counted = b.Generation != nil; c.counted {
		if err := json.Unmarshal(b.Generation, &c.generation); err != nil {
			return c, badRequest("JSON does not validate: %s is not of type 'integer', 'null'", b.Generation)
		}
	}
	c.resources, err = o.amounts(b.Allocations)
	return c, err
}

// amounts reads "allocations": a list before 1.12, then a map by provider.
func (o operation) amounts(raw json.RawMessage) (map[string]resources, error) {
	type one struct {
		Generation *int64    `json:"generation"`
		Resources  resources `json:"resources"`
	}
	byProvider := map[string]one{}
	if o.Version.AtLeast(1, 12) {
		if err := strictJSON(raw, &byProvider); err != nil {
			return nil, err
		}
	} else {
		var list []struct {
			Provider struct {
				UUID string `json:"uuid"`
			} `json:"resource_provider"`
			Resources resources `json:"resources"`
		}
		if err := strictJSON(raw, &list); err != nil {
			return nil, err
		}
		for _, l := range list {
			byProvider[l.Provider.UUID] = one{Resources: l.Resources}
		}
	}
	all := map[string]resources{}
	for id, a := range byProvider {
		id, err := canonical(id)
		if err != nil {
			return nil, badRequest("JSON does not validate: '%s' is not a 'uuid'", id)
		}
		if len(a.Resources) == 0 {
			return nil, badRequest("JSON does not validate: resources of %s do not have enough properties", id)
		}
		for class, n := range a.Resources {
			if n < 1 || n > most || !plain(class) {
				return nil, badRequest("JSON does not validate: %d of %s", n, class)
			}
		}
		all[id] = a.Resources
	}
	return all, nil
}

func strictJSON(raw json.RawMessage, v any) error {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badRequest("JSON does not validate: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

func replaceAllocations(o operation) (*rest.Response, error) {
	var b claimBody
	if err := o.strict(&b); err != nil {
		return nil, err
	}
	c, err := o.claim(o.PathValue("consumer"), b)
	if err != nil {
		return nil, err
	}
	if len(c.resources) == 0 && !c.counted {
		return nil, badRequest("JSON does not validate: allocations are empty")
	}
	if err := o.allocate([]claim{c}); err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func replaceManyAllocations(o operation) (*rest.Response, error) {
	var in map[string]claimBody
	if err := o.strict(&in); err != nil {
		return nil, err
	}
	if len(in) == 0 {
		return nil, badRequest("JSON does not validate: {} does not have enough properties")
	}
	claims, err := o.claims(in)
	if err != nil {
		return nil, err
	}
	if err := o.allocate(claims); err != nil {
		return nil, err
	}
	return rest.NoContent()
}

func (o operation) claims(in map[string]claimBody) ([]claim, error) {
	var claims []claim
	for _, id := range slices.Sorted(maps.Keys(in)) {
		c, err := o.claim(id, in[id])
		if err != nil {
			return nil, err
		}
		claims = append(claims, c)
	}
	return claims, nil
}

// allocate gives each consumer what its claim says instead of what it has, or
// fails and changes nothing.
func (o operation) allocate(claims []claim) error {
	changed := map[string]*provider{}
	for _, c := range claims {
		if err := o.release(c, changed); err != nil {
			return err
		}
	}
	for _, c := range claims {
		for id, res := range c.resources {
			p, err := o.provider(id)
			if err != nil {
				return badRequest("Allocation for resource provider '%s' that does not exist.", id).Because(err)
			}
			changed[p.uuid] = p
			if err := o.take(c.consumer, p, res); err != nil {
				return err
			}
		}
	}
	for _, p := range changed {
		if err := o.touch(p); err != nil {
			return err
		}
	}
	return nil
}

// release checks the consumer of c, takes away what it has and writes what it is
// from now on.
func (o operation) release(c claim, changed map[string]*provider) error {
	have, err := o.consumer(c.consumer)
	if err != nil {
		return err
	}
	next := int64(1)
	switch {
	case have != nil:
		if c.counted && (c.generation == nil || *c.generation != have.generation) {
			return conflict(codeConcurrent, "consumer generation conflict - expected %d but got %s", have.generation, number(c.generation))
		}
		next = have.generation + 1
		if !c.kind.Valid {
			c.kind = have.kind
		}
	case c.counted && c.generation != nil:
		return conflict(codeConcurrent, "consumer generation conflict - expected null but got %s", number(c.generation))
	}
	held, err := o.allocated(c.consumer)
	if err != nil {
		return err
	}
	for id := range held {
		if changed[id], err = o.provider(id); err != nil {
			return err
		}
	}
	if _, err := o.exec("DELETE FROM consumers WHERE uuid = ?", c.consumer); err != nil { // and its allocations
		return err
	}
	if len(c.resources) == 0 {
		return nil
	}
	_, err = o.exec("INSERT INTO consumers (uuid, generation, project, user, type) VALUES (?, ?, ?, ?, ?)", c.consumer, next, c.project, c.user, c.kind)
	return err
}

func number(n *int64) string {
	if n == nil {
		return "None"
	}
	text, _ := json.Marshal(*n) //nolint:errchkjson // a number
	return string(text)
}

// take allocates at one provider what its inventory allows.
func (o operation) take(id string, p *provider, wanted resources) error {
	have, err := o.inventories(p)
	if err != nil {
		return err
	}
	for class, n := range wanted {
		i, ok := have[class]
		if !ok {
			if missing, err := o.unknownClasses([]string{class}); err != nil {
				return err
			} else if len(missing) > 0 {
				return badRequest("Unable to allocate inventory for consumer %s: No such resource class %s.", id, class)
			}
			return conflict("", "Unable to allocate inventory: Inventory for '%s' on resource provider '%s' invalid.", class, p.uuid)
		}
		if !i.suits(n) {
			return conflict("", "Unable to allocate inventory: Unable to create allocation for '%s' on resource provider '%s'. The requested amount would violate inventory constraints.", class, p.uuid)
		}
		var used int64
		if err := o.tx.QueryRowContext(o.Context, "SELECT coalesce(sum(used), 0) FROM allocations WHERE provider = ? AND class = ?", p.uuid, class).Scan(&used); err != nil {
			return err
		}
		if used+n > i.capacity() {
			return conflict("", "Unable to allocate inventory: Unable to create allocation for '%s' on resource provider '%s'. The requested amount would exceed the capacity.", class, p.uuid)
		}
		if _, err := o.exec("INSERT INTO allocations VALUES (?, ?, ?, ?)", id, p.uuid, class, n); err != nil {
			return err
		}
	}
	return nil
}

func deleteAllocations(o operation) (*rest.Response, error) {
	id := o.PathValue("consumer")
	c, err := o.consumer(id)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, notFound("No allocations for consumer '%s'", id)
	}
	if err := o.allocate([]claim{{consumer: c.uuid}}); err != nil {
		return nil, err
	}
	return rest.NoContent()
}

// reshape replaces inventories and allocations in one step.
func reshape(o operation) (*rest.Response, error) {
	var in struct {
		Inventories map[string]struct {
			Generation  *int64                   `json:"resource_provider_generation"`
			Inventories map[string]inventoryBody `json:"inventories"`
		} `json:"inventories"`
		Allocations map[string]claimBody `json:"allocations"`
	}
	if err := o.strict(&in); err != nil {
		return nil, err
	}
	if len(in.Inventories) == 0 || in.Allocations == nil {
		return nil, badRequest("JSON does not validate: 'inventories' and 'allocations' are required properties")
	}
	claims, err := o.claims(in.Allocations)
	if err != nil {
		return nil, err
	}
	// what goes away is free first
	for _, c := range claims {
		if err := o.release(claim{consumer: c.consumer, counted: c.counted, generation: c.generation}, map[string]*provider{}); err != nil {
			return nil, err
		}
	}
	for id, wanted := range in.Inventories {
		p, err := o.provider(id)
		if err != nil {
			return nil, badRequest("Resource provider %s does not exist", id)
		}
		if wanted.Generation == nil || *wanted.Generation != p.generation {
			return nil, conflict(codeConcurrent, "resource provider generation conflict: expected %d", p.generation)
		}
		if err := o.setInventories(p, wanted.Inventories); err != nil {
			return nil, err
		}
	}
	for i := range claims {
		claims[i].counted = false
	}
	if err := o.allocate(claims); err != nil {
		return nil, err
	}
	return rest.NoContent()
}
