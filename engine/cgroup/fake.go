package cgroup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Fake is a Tree in memory for tests of this package's users. It keeps the
// contract; processes exist as far as SetProcesses says. Safe for concurrent
// use.
type Fake struct {
	mu sync.Mutex
	// +checklocks:mu
	groups map[string]*fakeGroup // by path
	// changed is closed at the next change.
	// +checklocks:mu
	changed chan struct{}
}

type fakeGroup struct {
	f          *Fake
	name, path string

	limits    Limits
	processes int64
	frozen    bool
	oomKills  int64
}

// NewFake returns an empty Tree in memory.
func NewFake() *Fake {
	return &Fake{groups: map[string]*fakeGroup{}, changed: make(chan struct{})}
}

const fakeTree = "fake"

// get returns a group by its name. The caller holds the lock.
func (f *Fake) get(name string) *fakeGroup {
	path, _ := resolve(fakeTree, name)
	return f.groups[path]
}

// tell wakes who watches. The caller holds the lock.
func (f *Fake) tell() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// SetProcesses puts n processes into a group that exists.
func (f *Fake) SetProcesses(name string, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.get(name).processes = n
}

// AddOOMKill counts one process as killed for memory.
func (f *Fake) AddOOMKill(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.get(name).oomKills++
	f.tell()
}

// Limits returns what a group has, and whether it exists.
func (f *Fake) Limits(name string) (Limits, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.get(name)
	if g == nil {
		return Limits{}, false
	}
	return g.limits, true
}

// Create implements Tree.
func (f *Fake) Create(ctx context.Context, name string, limits Limits) (Group, error) {
	path, err := resolve(fakeTree, name)
	if err := errors.Join(ctx.Err(), err, limits.validate()); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.groups[path]; g != nil && g.processes > 0 {
		return nil, fmt.Errorf("create control group %s: it has %d processes: %w", name, g.processes, errdefs.ErrConflict)
	}
	g := &fakeGroup{f: f, name: name, path: path, limits: limits}
	f.groups[path] = g
	return g, nil
}

// Open implements Tree.
func (f *Fake) Open(ctx context.Context, name string) (Group, error) {
	path, err := resolve(fakeTree, name)
	if err := errors.Join(ctx.Err(), err); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.groups[path]; g != nil {
		return g, nil
	}
	return nil, fmt.Errorf("open control group %s: %w", name, errdefs.ErrNotFound)
}

// List implements Tree.
func (f *Fake) List(ctx context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for path := range f.groups {
		if name, ok := strings.CutPrefix(path, fakeTree+"/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, ctx.Err()
}

// Supports implements Tree: all that any kernel can do.
func (f *Fake) Supports(limit Limit) bool {
	return limit == LimitUnified || slices.ContainsFunc(meansOf, func(m means) bool { return m.limit == limit })
}

// Describe implements Tree.
func (f *Fake) Describe() string { return "fake" }
