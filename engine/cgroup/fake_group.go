package cgroup

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// do runs fn on the group that exists now under the name.
func (g *fakeGroup) do(ctx context.Context, op string, fn func(*fakeGroup) error) error {
	g.f.mu.Lock()
	defer g.f.mu.Unlock()
	err := ctx.Err()
	if now := g.f.groups[g.path]; now == nil {
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
	if g.f.groups[g.path] == nil {
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
		old := g.limits
		g.limits = limits
		if limits.rules() == nil {
			g.limits.Devices, g.limits.DeviceRules = old.Devices, old.DeviceRules
		}
		return nil
	})
}

// BirthFiles is as JoinFiles.
func (g *fakeGroup) BirthFiles() ([]*os.File, error) { return g.JoinFiles() }

// Delegate changes nothing.
func (g *fakeGroup) Delegate(ctx context.Context, _ uint32, _ int) error {
	return g.do(ctx, "delegate", func(*fakeGroup) error { return nil })
}

// DirOf has no directories.
func (g *fakeGroup) DirOf(pid int) (*os.File, error) {
	return nil, fmt.Errorf("find process %d in control group %s: %w", pid, g.name, errdefs.ErrUnsupported)
}

// Paths invents a place on v2.
func (g *fakeGroup) Paths() ([]Path, error) {
	g.f.mu.Lock()
	defer g.f.mu.Unlock()
	if g.f.groups[g.path] == nil {
		return nil, fmt.Errorf("find control group %s: %w", g.name, errdefs.ErrNotFound)
	}
	return []Path{{Mount: "/sys/fs/cgroup", Dir: "/sys/fs/cgroup/" + g.path}}, nil
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
		delete(g.f.groups, g.path)
		g.f.tell()
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

// Pids are invented, as many as there are processes.
func (g *fakeGroup) Pids(ctx context.Context) (pids []int, err error) {
	err = g.do(ctx, "read", func(g *fakeGroup) error {
		for n := range g.processes {
			pids = append(pids, 1<<22+int(n))
		}
		return nil
	})
	return pids, err
}

func (g *fakeGroup) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for last := int64(-1); ; {
			var kills int64
			var changed chan struct{}
			err := g.do(context.WithoutCancel(ctx), "watch", func(now *fakeGroup) error {
				kills, changed = now.oomKills, now.f.changed
				return nil
			})
			switch {
			case err != nil && last < 0:
				yield(Event{}, err)
				return
			case err != nil: // removed
				return
			case last >= 0 && kills != last && !yield(Event{OOMKills: kills}, nil):
				return
			}
			last = kills
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}
