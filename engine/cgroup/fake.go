package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Fake is a Tree in memory for tests of this package's users. It keeps the
// contract; processes exist as far as SetProcesses says. Safe for concurrent
// use.
type Fake struct {
	mu     sync.Mutex
	groups map[string]*fakeGroup
}

type fakeGroup struct {
	f         *Fake
	name      string
	limits    Limits
	processes int64
	frozen    bool
	oomKills  int64
}

// NewFake returns an empty Tree in memory.
func NewFake() *Fake { return &Fake{groups: map[string]*fakeGroup{}} }

// SetProcesses puts n processes into a group that exists.
func (f *Fake) SetProcesses(name string, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[name].processes = n
}

// AddOOMKill counts one process as killed for memory.
func (f *Fake) AddOOMKill(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[name].oomKills++
}

// Limits returns what a group has, and whether it exists.
func (f *Fake) Limits(name string) (Limits, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g, ok := f.groups[name]
	if !ok {
		return Limits{}, false
	}
	return g.limits, true
}

// Create implements Tree.
func (f *Fake) Create(ctx context.Context, name string, limits Limits) (Group, error) {
	if err := errors.Join(ctx.Err(), validName(name), limits.validate()); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.groups[name]; g != nil && g.processes > 0 {
		return nil, fmt.Errorf("create control group %s: it has %d processes: %w", name, g.processes, errdefs.ErrConflict)
	}
	g := &fakeGroup{f: f, name: name, limits: limits}
	f.groups[name] = g
	return g, nil
}

// Open implements Tree.
func (f *Fake) Open(ctx context.Context, name string) (Group, error) {
	if err := errors.Join(ctx.Err(), validName(name)); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.groups[name]; g != nil {
		return g, nil
	}
	return nil, fmt.Errorf("open control group %s: %w", name, errdefs.ErrNotFound)
}

// List implements Tree.
func (f *Fake) List(ctx context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name := range f.groups {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, ctx.Err()
}

// Describe implements Tree.
func (f *Fake) Describe() string { return "fake" }

// do runs fn on the group that exists now under the name.
func (g *fakeGroup) do(ctx context.Context, op string, fn func(*fakeGroup) error) error {
	g.f.mu.Lock()
	defer g.f.mu.Unlock()
	err := ctx.Err()
	if now := g.f.groups[g.name]; now == nil {
		err = errdefs.ErrNotFound
	} else if err == nil {
		err = fn(now)
	}
	if err != nil {
		return fmt.Errorf("%s control group %s: %w", op, g.name, err)
	}
	return nil
}

// JoinFiles returns a file that takes what is written; who joined is told by
// SetProcesses.
func (g *fakeGroup) JoinFiles() ([]*os.File, error) {
	g.f.mu.Lock()
	defer g.f.mu.Unlock()
	if g.f.groups[g.name] == nil {
		return nil, fmt.Errorf("join control group %s: %w", g.name, errdefs.ErrNotFound)
	}
	file, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	return []*os.File{file}, err
}

func (g *fakeGroup) Update(ctx context.Context, limits Limits) error {
	if err := limits.validate(); err != nil {
		return fmt.Errorf("update control group %s: %w", g.name, err)
	}
	return g.do(ctx, "update", func(g *fakeGroup) error {
		devices := g.limits.Devices
		g.limits = limits
		if limits.Devices == nil {
			g.limits.Devices = devices
		}
		return nil
	})
}

func (g *fakeGroup) Stats(ctx context.Context) (s Stats, err error) {
	err = g.do(ctx, "read", func(g *fakeGroup) error { s.Pids = g.processes; return nil })
	return s, err
}

func (g *fakeGroup) Freeze(ctx context.Context) error {
	return g.do(ctx, "freeze", func(g *fakeGroup) error { g.frozen = true; return nil })
}

func (g *fakeGroup) Thaw(ctx context.Context) error {
	return g.do(ctx, "thaw", func(g *fakeGroup) error { g.frozen = false; return nil })
}

func (g *fakeGroup) Frozen(ctx context.Context) (is bool, err error) {
	err = g.do(ctx, "read state of", func(g *fakeGroup) error { is = g.frozen; return nil })
	return is, err
}

func (g *fakeGroup) Kill(ctx context.Context) error {
	err := g.do(ctx, "kill", func(g *fakeGroup) error { g.processes, g.frozen = 0, false; return nil })
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

func (g *fakeGroup) Delete(ctx context.Context) error {
	err := g.do(ctx, "delete", func(g *fakeGroup) error {
		if g.processes > 0 {
			return fmt.Errorf("it has %d processes: %w", g.processes, errdefs.ErrConflict)
		}
		delete(g.f.groups, g.name)
		return nil
	})
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// Processes numbers the processes of the fake from 1.
func (g *fakeGroup) Processes(ctx context.Context) (pids []int, err error) {
	err = g.do(ctx, "read", func(g *fakeGroup) error {
		for i := range int(g.processes) {
			pids = append(pids, i+1)
		}
		return nil
	})
	return pids, err
}

func (g *fakeGroup) OOMKills(ctx context.Context) (n int64, err error) {
	err = g.do(ctx, "read", func(g *fakeGroup) error { n = g.oomKills; return nil })
	return n, err
}
