package network

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gantry-project/gantry/internal/devcloud/sqldb"
)

//go:embed schema.sql
var schema string

// base is what all records have. Records are changed by nobody after they were
// put: who changes one puts a changed copy.
type base struct {
	ID          string
	Project     string
	Name        string   `json:",omitempty"`
	Description *string  `json:",omitempty"` // null for the rules of default groups
	Tags        []string `json:",omitempty"`
	Revision    int
	Created     time.Time
	Updated     time.Time
}

func (b *base) id() string    { return b.ID }
func (b *base) owner() string { return b.Project }

// record is any of the types of records, as a pointer.
type record interface {
	comparable
	id() string
	owner() string
}

// kind names a table in the database.
type kind string

const (
	kindNetwork  kind = "network"
	kindSubnet   kind = "subnet"
	kindPort     kind = "port"
	kindGroup    kind = "security_group"
	kindRule     kind = "security_group_rule"
	kindRouter   kind = "router"
	kindFloating kind = "floatingip"
	kindQuota    kind = "quota"
	kindAgent    kind = "agent"
	kindScope    kind = "address_scope"
	kindPool     kind = "subnetpool"
	kindAddress  kind = "address_group"
	kindPolicy   kind = "rbac_policy"
	kindTopology kind = "auto_allocated_topology"
)

// table is the records of one kind, and within a transaction what was done to
// them. Not safe for concurrent use.
type table[T record] struct {
	kind    kind
	base    map[string]T
	changed map[string]T // nil: removed
}

func (t *table[T]) get(id string) (T, bool) {
	if r, ok := t.changed[id]; ok {
		var none T
		return r, r != none
	}
	r, ok := t.base[id]
	return r, ok
}

// all lists records in no order.
func (t *table[T]) all() iter.Seq[T] {
	return func(yield func(T) bool) {
		var none T
		for id, r := range t.base {
			if _, done := t.changed[id]; !done && !yield(r) {
				return
			}
		}
		for _, r := range t.changed {
			if r != none && !yield(r) {
				return
			}
		}
	}
}

// where lists the records that match, in the order of their ids.
func (t *table[T]) where(match func(T) bool) []T {
	var out []T
	for r := range t.all() {
		if match(r) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b T) int { return cmpString(a.id(), b.id()) })
	return out
}

func (t *table[T]) has(match func(T) bool) bool {
	for r := range t.all() {
		if match(r) {
			return true
		}
	}
	return false
}

func (t *table[T]) put(r T) {
	if t.changed == nil {
		t.changed = map[string]T{}
	}
	t.changed[r.id()] = r
}

func (t *table[T]) del(id string) {
	var none T
	if t.changed == nil {
		t.changed = map[string]T{}
	}
	t.changed[id] = none
}

// overlay is an empty transaction above t.
func (t *table[T]) overlay() table[T] { return table[T]{kind: t.kind, base: t.base} }

func (t *table[T]) load(id, data string) error {
	var r T
	if err := json.Unmarshal([]byte(data), &r); err != nil {
		return fmt.Errorf("%s %s: %w", t.kind, id, err)
	}
	t.base[id] = r
	return nil
}

// store writes the changes in a fixed order.
func (t *table[T]) store(ctx context.Context, tx *sql.Tx) error {
	var none T
	for _, id := range slices.Sorted(maps.Keys(t.changed)) {
		r := t.changed[id]
		if r == none {
			if _, err := tx.ExecContext(ctx, "DELETE FROM records WHERE kind = ? AND id = ?", t.kind, id); err != nil {
				return err
			}
			continue
		}
		data, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO records (kind, id, data) VALUES (?, ?, ?)", t.kind, id, string(data)); err != nil {
			return err
		}
	}
	return nil
}

func (t *table[T]) publish(changed map[string]T) {
	var none T
	for id, r := range changed {
		if r == none {
			delete(t.base, id)
		} else {
			t.base[id] = r
		}
	}
}

// state is all tables: the published ones, or those of a transaction.
type state struct {
	now       time.Time
	networks  table[*network]
	subnets   table[*subnet]
	ports     table[*port]
	groups    table[*group]
	rules     table[*rule]
	routers   table[*router]
	floatings table[*floating]
	quotas    table[*quota]
	agents    table[*agent]

	scopes        table[*addressScope]
	pools         table[*subnetPool]
	addressGroups table[*addressGroup]
	policies      table[*policy]
	topologies    table[*topology]

	events []Event // to be sent after the commit
}

// anyTable is what state's tables have in common.
type anyTable interface {
	load(id, data string) error
	store(ctx context.Context, tx *sql.Tx) error
}

func (s *state) tables() map[kind]anyTable {
	return map[kind]anyTable{
		kindNetwork: &s.networks, kindSubnet: &s.subnets, kindPort: &s.ports, kindGroup: &s.groups, kindRule: &s.rules,
		kindRouter: &s.routers, kindFloating: &s.floatings, kindQuota: &s.quotas, kindAgent: &s.agents,
		kindScope: &s.scopes, kindPool: &s.pools, kindAddress: &s.addressGroups, kindPolicy: &s.policies, kindTopology: &s.topologies,
	}
}

func newTable[T record](k kind) table[T] { return table[T]{kind: k, base: map[string]T{}} }

func newState() *state {
	return &state{
		networks: newTable[*network](kindNetwork), subnets: newTable[*subnet](kindSubnet), ports: newTable[*port](kindPort),
		groups: newTable[*group](kindGroup), rules: newTable[*rule](kindRule), routers: newTable[*router](kindRouter),
		floatings: newTable[*floating](kindFloating), quotas: newTable[*quota](kindQuota), agents: newTable[*agent](kindAgent),
		scopes: newTable[*addressScope](kindScope), pools: newTable[*subnetPool](kindPool), addressGroups: newTable[*addressGroup](kindAddress),
		policies: newTable[*policy](kindPolicy), topologies: newTable[*topology](kindTopology),
	}
}

func (s *state) overlay() *state {
	return &state{
		now:      time.Now().UTC().Truncate(time.Second),
		networks: s.networks.overlay(), subnets: s.subnets.overlay(), ports: s.ports.overlay(), groups: s.groups.overlay(),
		rules: s.rules.overlay(), routers: s.routers.overlay(), floatings: s.floatings.overlay(), quotas: s.quotas.overlay(),
		agents: s.agents.overlay(), scopes: s.scopes.overlay(), pools: s.pools.overlay(), addressGroups: s.addressGroups.overlay(),
		policies: s.policies.overlay(), topologies: s.topologies.overlay(),
	}
}

func (s *state) publish(o *state) {
	s.networks.publish(o.networks.changed)
	s.subnets.publish(o.subnets.changed)
	s.ports.publish(o.ports.changed)
	s.groups.publish(o.groups.changed)
	s.rules.publish(o.rules.changed)
	s.routers.publish(o.routers.changed)
	s.floatings.publish(o.floatings.changed)
	s.quotas.publish(o.quotas.changed)
	s.agents.publish(o.agents.changed)
	s.scopes.publish(o.scopes.changed)
	s.pools.publish(o.pools.changed)
	s.addressGroups.publish(o.addressGroups.changed)
	s.policies.publish(o.policies.changed)
	s.topologies.publish(o.topologies.changed)
}

// made fills what a new record has; the caller has set Project.
func (s *state) made(b *base) {
	b.Created, b.Updated = s.now, s.now
}

// bumped marks a changed copy.
func (s *state) bumped(b *base) {
	b.Revision++
	b.Updated = s.now
}

// store is the state of a service and its database.
type store struct {
	db *sqldb.DB

	writing sync.Mutex   // held over a transaction that writes; before mu
	mu      sync.RWMutex // guards all
	all     *state
}

func openStore(ctx context.Context, path string) (*store, error) {
	db, err := sqldb.Open(ctx, path, schema)
	if err != nil {
		return nil, err
	}
	s := &store{db: db, all: newState()}
	tables := s.all.tables()
	err = db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, "SELECT kind, id, data FROM records")
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // rows.Err tells
		for rows.Next() {
			var k, id, data string
			if err := rows.Scan(&k, &id, &data); err != nil {
				return err
			}
			if t := tables[kind(k)]; t != nil {
				if err := t.load(id, data); err != nil {
					return err
				}
			}
		}
		return rows.Err()
	})
	if err != nil {
		_ = db.Close() // the first error tells more
		return nil, fmt.Errorf("read state of the network service: %w", err)
	}
	return s, nil
}

// read runs f on one state, which f must not change or keep.
func (s *store) read(f func(*state) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return f(s.all)
}

// write runs f alone on an overlay, and stores and publishes what it did when
// it returns nil. It returns the overlay, for what has to follow.
func (s *store) write(ctx context.Context, f func(*state) error) (*state, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	// Only writers publish, so the published state is ours to read.
	o := s.all.overlay()
	if err := f(o); err != nil {
		return nil, err
	}
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, t := range o.tables() {
			if err := t.store(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store state of the network service: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.publish(o)
	return o, nil
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
