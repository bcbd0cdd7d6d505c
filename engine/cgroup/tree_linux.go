package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Options of New.
type Options struct {
	// Name of the tree below the root of each hierarchy ("gantry").
	Name string
	// MountInfo replaces the text of /proc/self/mountinfo in tests; a part of
	// it chooses among layouts.
	MountInfo string
}

// tree is the Tree of a Linux host. It does not change after New.
type tree struct {
	name  string
	nodes []node
	// v1 and v2 share the controllers out; each controller is in one at most.
	v1, v2 features
}

// node is our part of a hierarchy.
type node struct {
	hierarchy
	dir string
}

// New finds the hierarchies, makes the tree in each and enables controllers.
// Without any hierarchy it is errdefs.ErrUnsupported; single missing
// controllers show when a limit needs them, and in Describe.
func New(ctx context.Context, o Options) (Tree, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open control groups: %w", err)
	}
	if err := validName(o.Name); err != nil {
		return nil, err
	}
	text := o.MountInfo
	if text == "" {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return nil, fmt.Errorf("find control groups: %w", err)
		}
		text = string(b)
	}
	hierarchies, err := parseLayout(text)
	if err != nil {
		return nil, err
	}
	t := &tree{
		name: o.Name,
		v1:   features{Controllers: map[string]bool{}},
		v2:   features{Controllers: map[string]bool{}},
	}
	for _, h := range hierarchies {
		t.nodes = append(t.nodes, node{h, filepath.Join(h.Path, o.Name)})
	}
	for _, n := range t.nodes {
		if err := os.Mkdir(n.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("make control group tree: %w", err)
		}
		if err := t.prepareV1(n); err != nil {
			return nil, err
		}
	}
	return t, t.prepareV2()
}

// prepareV1 notes the controllers of a v1 hierarchy. A cpuset has to have cpus
// and memory nodes before a process can join; groups below copy them.
func (t *tree) prepareV1(n node) error {
	if n.V2 {
		return nil
	}
	for _, c := range n.Controllers {
		t.v1.Controllers[c] = true
	}
	if slices.Contains(n.Controllers, "memory") {
		t.v1.Swap = exists(n.dir, "memory.memsw.limit_in_bytes")
	}
	if slices.Contains(n.Controllers, "cpu") {
		t.v1.Quota = exists(n.dir, "cpu.cfs_quota_us")
	}
	if !slices.Contains(n.Controllers, "cpuset") {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if err := inherit(n.Path, n.dir, file); err != nil {
			return err
		}
	}
	return writeFile(n.dir, "cgroup.clone_children", "1")
}

// inherit copies a file of the parent group that is empty in dir.
func inherit(parent, dir, file string) error {
	have, err := readFile(dir, file)
	if err != nil || have != "" {
		return err
	}
	want, err := readFile(parent, file)
	if err != nil {
		return err
	}
	return writeFile(dir, file, want)
}

// prepareV2 enables the controllers that v1 does not have. One that cannot be
// enabled is as good as absent.
func (t *tree) prepareV2() error {
	n, ok := t.unified()
	if !ok {
		return nil
	}
	have, err := readFile(n.Path, "cgroup.controllers")
	if err != nil {
		return err
	}
	for c := range strings.FieldsSeq(have) {
		if !slices.Contains([]string{"cpu", "cpuset", "memory", "pids", "io"}, c) || t.v1.Controllers[c] {
			continue
		}
		_ = writeFile(n.Path, "cgroup.subtree_control", "+"+c)
		_ = writeFile(n.dir, "cgroup.subtree_control", "+"+c)
	}
	have, err = readFile(n.dir, "cgroup.subtree_control")
	if err != nil {
		return err
	}
	for c := range strings.FieldsSeq(have) {
		t.v2.Controllers[c] = !t.v1.Controllers[c]
	}
	t.v2.Controllers["devices"] = !t.v1.Controllers["devices"] // a BPF program
	t.v2.Swap = exists(n.dir, "memory.swap.max")
	t.v2.Quota = exists(n.dir, "cpu.max")
	return nil
}

// unified returns the v2 hierarchy.
func (t *tree) unified() (node, bool) {
	for _, n := range t.nodes {
		if n.V2 {
			return n, true
		}
	}
	return node{}, false
}

// with returns the v1 hierarchy that has a controller.
func (t *tree) with(controller string) (node, bool) {
	for _, n := range t.nodes {
		if !n.V2 && slices.Contains(n.Controllers, controller) {
			return n, true
		}
	}
	return node{}, false
}

// features of both versions together.
func (t *tree) features() features {
	f := features{Controllers: map[string]bool{}, Swap: t.v1.Swap || t.v2.Swap, Quota: t.v1.Quota || t.v2.Quota}
	for _, part := range []features{t.v1, t.v2} {
		for c, yes := range part.Controllers {
			f.Controllers[c] = f.Controllers[c] || yes
		}
	}
	return f
}

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
	f := t.features()
	if f.Controllers["memory"] && !f.Swap {
		parts = append(parts, "swap is not counted, \"no swap\" is best effort")
	}
	if f.Controllers["cpu"] && !f.Quota {
		parts = append(parts, "no cpu quota")
	}
	return strings.Join(parts, "; ")
}

// List implements Tree: a group counts that exists in any hierarchy, so that
// one which was half removed is found.
func (t *tree) List(ctx context.Context) ([]string, error) {
	seen := map[string]bool{}
	var names []string
	for _, n := range t.nodes {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("list control groups: %w", err)
		}
		entries, err := os.ReadDir(n.dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("list control groups: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() && !seen[e.Name()] {
				seen[e.Name()] = true
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// Open implements Tree.
func (t *tree) Open(ctx context.Context, name string) (Group, error) {
	if err := errors.Join(ctx.Err(), validName(name)); err != nil {
		return nil, err
	}
	for _, n := range t.nodes {
		if exists(n.dir, name) {
			return &group{t, name}, nil
		}
	}
	return nil, fmt.Errorf("open control group %s: %w", name, errdefs.ErrNotFound)
}

// Create implements Tree.
func (t *tree) Create(ctx context.Context, name string, limits Limits) (Group, error) {
	if err := errors.Join(ctx.Err(), validName(name)); err != nil {
		return nil, err
	}
	g := &group{t, name}
	if err := g.create(ctx, limits); err != nil {
		return nil, fmt.Errorf("create control group %s: %w", name, err)
	}
	return g, nil
}

func exists(dir, file string) bool {
	_, err := os.Lstat(filepath.Join(dir, file))
	return err == nil
}

// readFile returns a file of a group without surrounding space.
func readFile(dir, file string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	return strings.TrimSpace(string(b)), err
}

// writeFile writes a value in one system call, as these files demand.
func writeFile(dir, file, value string) error {
	path := filepath.Join(dir, file)
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := retry(func() (int, error) { return unix.Write(fd, []byte(value)) }); err != nil {
		return &os.PathError{Op: "write " + value + " to", Path: path, Err: err}
	}
	return nil
}

func retry(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if err != unix.EINTR {
			return n, err
		}
	}
}
