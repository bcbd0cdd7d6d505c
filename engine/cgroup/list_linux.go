package cgroup

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Describe implements Tree.
func (t *tree) Describe() string {
	list := func(f features) string {
		var cs []string
		for c, yes := range f.Controllers {
			if yes {
				cs = append(cs, c)
			}
		}
		slices.Sort(cs)
		return strings.Join(cs, ",")
	}
	_, unified := t.unified()
	var parts []string
	switch {
	case unified && len(t.v1.Controllers) > 0:
		parts = append(parts, "hybrid", "v1: "+list(t.v1), "v2: freeze,kill")
		if s := list(t.v2); s != "" {
			parts = append(parts, "v2 also: "+s)
		}
	case unified:
		parts = append(parts, "v2: "+list(t.v2))
	default:
		parts = append(parts, "v1: "+list(t.v1))
	}
	if t.Supports(LimitMemory) && !t.Supports(LimitSwap) {
		parts = append(parts, "swap is not counted, \"no swap\" is best effort")
	}
	if t.Supports(LimitCPUShares) && !t.Supports(LimitCPUQuota) {
		parts = append(parts, "no cpu quota")
	}
	return strings.Join(parts, "; ")
}

// List implements Tree: a group counts that exists in any hierarchy, so that
// one which was half removed is found.
func (t *tree) List(ctx context.Context) ([]string, error) {
	found, parents := map[string]bool{}, map[string]bool{}
	for _, n := range t.nodes {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("list control groups: %w", err)
		}
		if err := t.collect(n, "", found, parents); err != nil {
			return nil, fmt.Errorf("list control groups: %w", err)
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// collect adds the groups below a directory of the tree, and walks through
// parents, which the mark tells from groups.
func (t *tree) collect(n node, below string, found, parents map[string]bool) error {
	dirs, err := subgroups(filepath.Join(n.dir, below))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		name := filepath.Join(below, filepath.Base(dir))
		if found[name] {
			continue
		}
		if !parents[name] {
			parents[name] = isMarked(dir, markParent)
		}
		if !parents[name] {
			found[name] = true
			continue
		}
		if err := t.collect(n, name, found, parents); err != nil {
			return err
		}
	}
	return nil
}
