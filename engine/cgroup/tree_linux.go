package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// Options of New.
type Options struct {
	// Name of the tree below the root of each hierarchy: one element ("gantry")
	// or a path. On a host whose systemd delegates a part of cgroup v2 (unit
	// with Delegate=yes and DelegateSubgroup=supervisor) it is
	// "system.slice/gantry-compute.service/instances".
	Name string
	// MountInfo and Membership replace the texts of /proc/self/mountinfo and
	// /proc/self/cgroup in tests; a part of the first chooses among layouts.
	MountInfo, Membership string
}

// tree is the Tree of a Linux host. But for what it has seen it does not change
// after New.
type tree struct {
	name  string
	nodes []node
	// v1 and v2 share the controllers out; each controller is in one at most.
	// v2.Controllers is nil without v2.
	v1, v2 features
	// files says which files groups of a hierarchy were seen to have, by their path
	// in the tree's directory: a kernel does not change its mind.
	files sync.Map
}

// node is our part of a hierarchy.
type node struct {
	hierarchy
	dir string
	// optional: a group needs it only for limits of its controllers.
	optional bool
	// reach makes the tree there, once.
	reach func() error
}

// New finds the hierarchies, makes the tree in each and enables controllers.
// Without any hierarchy it is errdefs.ErrUnsupported; single missing
// controllers show when a limit needs them, and in Describe.
func New(ctx context.Context, o Options) (Tree, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open control groups: %w", err)
	}
	if err := validTree(o.Name); err != nil {
		return nil, err
	}
	for _, text := range []struct {
		to   *string
		file string
	}{{&o.MountInfo, "/proc/self/mountinfo"}, {&o.Membership, "/proc/self/cgroup"}} {
		if *text.to != "" {
			continue
		}
		b, err := linux.ReadFile(text.file)
		if err != nil {
			return nil, fmt.Errorf("find control groups: %w", err)
		}
		*text.to = string(b)
	}
	hierarchies, err := parseLayout(o.MountInfo)
	if err != nil {
		return nil, err
	}
	t := &tree{name: o.Name, v1: features{Controllers: map[string]bool{}}}
	member := parseMembership(o.Membership)
	for _, h := range hierarchies {
		// Who is not at the root would share its limits with the group.
		optional := !h.V2 && member[h.Controllers[0]] == "/" &&
			!slices.ContainsFunc(h.Controllers, func(c string) bool { return !slices.Contains(onDemand[:], c) })
		n := node{hierarchy: h, dir: filepath.Join(h.Path, o.Name), optional: optional}
		n.reach = sync.OnceValue(func() error { return t.makeTree(n) })
		t.nodes = append(t.nodes, n)
	}
	t.prepareV1()
	for _, n := range t.nodes {
		if n.optional {
			continue // with the first limit
		}
		if err := n.reach(); err != nil {
			return nil, fmt.Errorf("make control group tree %s: %w", n.dir, err)
		}
	}
	return t, t.prepareV2()
}

// makeTree makes the tree in a hierarchy, and readies each part of its path
// for groups below.
func (t *tree) makeTree(n node) error {
	dir := n.Path
	for element := range strings.SplitSeq(t.name, "/") {
		parent := dir
		dir = filepath.Join(dir, element)
		err := unix.Mkdir(dir, 0o755)
		if err == unix.EEXIST && !n.V2 && dir != n.dir {
			continue // somebody else's, and good enough for them
		}
		if err != nil && err != unix.EEXIST {
			return err
		}
		if err := t.ready(n, parent, dir); err != nil {
			return err
		}
	}
	return nil
}

// ready lets groups be made below dir. A v1 cpuset has to have cpus and memory
// nodes before a process can join; groups below copy them. On v2 the
// controllers that v1 does not have are enabled; one that cannot be enabled is
// as good as absent.
func (t *tree) ready(n node, parent, dir string) error {
	if n.V2 {
		t.enable(parent)
		t.enable(dir)
		return nil
	}
	if !slices.Contains(n.Controllers, "cpuset") {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if err := inherit(parent, dir, file); err != nil {
			return err
		}
	}
	return writeFile(dir, "cgroup.clone_children", "1")
}

// enable hands the controllers of a v2 group down to its sub-groups.
func (t *tree) enable(dir string) {
	have, err := readFile(dir, "cgroup.controllers")
	if err != nil {
		return
	}
	on, _ := readFile(dir, "cgroup.subtree_control")
	for c := range strings.FieldsSeq(have) {
		if slices.Contains([]string{"cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma", "misc"}, c) && !t.v1.Controllers[c] &&
			!slices.Contains(strings.Fields(on), c) {
			_ = writeFile(dir, "cgroup.subtree_control", "+"+c)
		}
	}
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

// prepareV1 notes what the v1 hierarchies can do.
func (t *tree) prepareV1() {
	for _, n := range t.nodes {
		if n.V2 {
			continue
		}
		for _, c := range n.Controllers {
			t.v1.Controllers[c] = true
		}
	}
	t.v1.Has = func(file string) bool {
		controller, _, _ := strings.Cut(file, ".")
		n, ok := t.with(controller)
		return ok && t.has(n, file)
	}
	if n, ok := t.with("hugetlb"); ok {
		t.v1.HugePages = pageSizes(n, ".limit_in_bytes")
	}
}

// prepareV2 notes what v2 can do that v1 does not.
func (t *tree) prepareV2() error {
	n, ok := t.unified()
	if !ok {
		return nil
	}
	have, err := readFile(n.dir, "cgroup.subtree_control")
	if err != nil {
		return err
	}
	t.v2.Controllers = map[string]bool{"devices": !t.v1.Controllers["devices"]} // devices: BPF
	for c := range strings.FieldsSeq(have) {
		t.v2.Controllers[c] = !t.v1.Controllers[c]
	}
	t.v2.Has = func(file string) bool { return t.has(n, file) }
	if t.v2.Controllers["hugetlb"] {
		t.v2.HugePages = pageSizes(n, ".max")
	}
	return nil
}

// has tells whether groups of a hierarchy have a file, by the tree's directory,
// which somebody may have taken away.
func (t *tree) has(n node, file string) bool {
	path := n.dir + "/" + file
	if seen, ok := t.files.Load(path); ok {
		return seen == true
	}
	there := n.reach() == nil && exists(n.dir, file) ||
		!exists(n.dir, "") && t.makeTree(n) == nil && exists(n.dir, file)
	if there || exists(n.dir, "") {
		t.files.Store(path, there)
	}
	return there
}

// pageSizes finds the page sizes by their files, "hugetlb.2MB.max", when they
// are asked for.
func pageSizes(n node, suffix string) func() []string {
	return sync.OnceValue(func() (sizes []string) {
		_ = n.reach()
		entries, _ := os.ReadDir(n.dir)
		for _, e := range entries {
			rest, ok := strings.CutPrefix(e.Name(), "hugetlb.")
			size, ok2 := strings.CutSuffix(rest, suffix)
			if ok && ok2 && !strings.HasSuffix(size, ".rsvd") {
				sizes = append(sizes, size)
			}
		}
		return sizes
	})
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

// Supports implements Tree.
func (t *tree) Supports(limit Limit) bool {
	if limit == LimitUnified {
		return t.v2.Controllers != nil
	}
	return missing(limit, t.v1, t.v2) == ""
}

// Open implements Tree.
func (t *tree) Open(ctx context.Context, name string) (Group, error) {
	path, err := resolve(t.name, name)
	if err := errors.Join(ctx.Err(), err); err != nil {
		return nil, err
	}
	g := &group{t, name, path}
	for _, n := range t.nodes {
		if exists(n.Path, path) && (g.inside() || isMarked(g.dir(n), markGroup)) {
			return g, nil
		}
	}
	return nil, fmt.Errorf("open control group %s: %w", name, errdefs.ErrNotFound)
}

// Create implements Tree.
func (t *tree) Create(ctx context.Context, name string, limits Limits) (Group, error) {
	path, err := resolve(t.name, name)
	if err := errors.Join(ctx.Err(), err); err != nil {
		return nil, err
	}
	g := &group{t, name, path}
	if err := g.create(ctx, limits); err != nil {
		return nil, fmt.Errorf("create control group %s: %w", name, err)
	}
	return g, nil
}
