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
	"github.com/gantry-project/gantry/internal/linux"
)

// group is a Group; it holds nothing open.
type group struct {
	t    *tree
	name string
	// path below the root of each hierarchy.
	path string
}

func (g *group) dir(n node) string { return filepath.Join(n.Path, g.path) }

// inside tells whether it lies in the tree.
func (g *group) inside() bool { return strings.HasPrefix(g.path, g.t.name+"/") }

// has tells whether the group exists in a hierarchy.
func (g *group) has(n node) bool { return exists(n.Path, g.path) }

// there tells whether the group exists in any hierarchy.
func (g *group) there() bool { return slices.ContainsFunc(g.t.nodes, g.has) }

func (g *group) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s control group %s: %w", op, g.name, err)
}

// wanted tells whether the limits need a group in a hierarchy.
func (g *group) wanted(n node, limits Limits) bool {
	if !n.optional {
		return true
	}
	for _, limit := range limits.needs() {
		for _, m := range meansOf {
			if m.limit == limit && slices.Contains(n.Controllers, m.v1) {
				return true
			}
		}
	}
	return false
}

func (g *group) create(ctx context.Context, limits Limits) (err error) {
	if err := limits.check(g.t.v1, g.t.v2); err != nil {
		return err
	}
	if _, err := writesV1(limits, g.t.v1, nil); err != nil {
		return err
	}
	var made []node
	defer func() {
		if err != nil {
			for _, n := range made {
				err = errors.Join(err, g.remove(context.WithoutCancel(ctx), n))
			}
		}
	}()
	for _, n := range g.t.nodes {
		if !g.wanted(n, limits) {
			if err := g.clear(ctx, n); err != nil {
				return err
			}
			continue
		}
		err := g.make(n)
		if err == unix.EEXIST { // seldom, so nobody looks first
			if err := g.clear(ctx, n); err != nil {
				return err
			}
			err = g.make(n)
		}
		if err != nil {
			return fmt.Errorf("make %s: %w", g.dir(n), classify(err))
		}
		made = append(made, n)
	}
	return g.apply(ctx, limits, true)
}

// clear removes what an earlier group of the name left. Outside of the tree it
// has to be ours.
func (g *group) clear(ctx context.Context, n node) error {
	dir := g.dir(n)
	if !g.has(n) {
		return nil
	}
	if !g.inside() && !isMarked(dir, markGroup) {
		return fmt.Errorf("%s exists and is not ours: %w", dir, errdefs.ErrConflict)
	}
	return removeEmpty(ctx, dir)
}

// make makes the group in a hierarchy, with the parents that are missing:
// another group's Delete may take one away meanwhile, so it is tried again.
func (g *group) make(n node) error {
	if g.inside() {
		if err := n.reach(); err != nil {
			return err
		}
	}
	dir := g.dir(n)
	err := unix.Mkdir(dir, 0o755)
	for try := 0; err == unix.ENOENT && try < 100; try++ {
		if err := g.makeParents(n); err != nil {
			return err
		}
		err = unix.Mkdir(dir, 0o755)
	}
	if err != nil || g.inside() && filepath.Dir(dir) == n.dir {
		return err
	}
	err = g.readyGroup(n)
	if err == nil && !g.inside() {
		err = mark(dir, markGroup)
	}
	if err != nil {
		return errors.Join(err, g.removeFrom(n))
	}
	return nil
}

// readyGroup readies the parents of a nested group for it, as who made them may
// not have come so far. A v1 cpuset copies itself within the tree, because of
// cgroup.clone_children; elsewhere the parent may be anybody's.
func (g *group) readyGroup(n node) error {
	dir, parent := g.dir(n), filepath.Dir(g.dir(n))
	if !n.V2 {
		if g.inside() {
			return nil
		}
		return g.t.ready(n, parent, dir)
	}
	top := n.Path
	if g.inside() {
		top = n.dir
	}
	g.t.enable(top)
	for i, c := range parent {
		if c == '/' && i > len(top) {
			g.t.enable(parent[:i])
		}
	}
	g.t.enable(parent)
	return nil
}

// makeParents makes the tree and the parents between it and the group, or all
// parents outside of the tree.
func (g *group) makeParents(n node) error {
	dir, rest := n.Path, filepath.Dir(g.path)
	if g.inside() {
		if err := g.t.makeTree(n); err != nil {
			return err
		}
		dir = n.dir
		rest = strings.TrimPrefix(strings.TrimPrefix(rest, g.t.name), "/")
	}
	if rest == "" || rest == "." {
		return nil
	}
	for element := range strings.SplitSeq(rest, "/") {
		parent := dir
		dir = filepath.Join(dir, element)
		err := unix.Mkdir(dir, 0o755)
		if err == unix.EEXIST {
			continue
		}
		if err == unix.ENOENT { // taken away again
			return nil
		}
		if err != nil {
			return err
		}
		// Without the mark it stays when its groups are gone.
		_ = mark(dir, markParent)
		if !n.V2 && g.inside() {
			continue // see readyGroup
		}
		if err := g.t.ready(n, parent, dir); err != nil {
			if gone(err) {
				return nil
			}
			return errors.Join(err, removeTree(dir))
		}
	}
	return nil
}

// removeFrom removes the group from a hierarchy, and the parents that were
// made for it and have no other group.
func (g *group) removeFrom(n node) error {
	if err := removeTree(g.dir(n)); err != nil {
		return err
	}
	g.removeParents(n)
	return nil
}

func (g *group) removeParents(n node) {
	for dir := filepath.Dir(g.dir(n)); dir != n.dir && dir != n.Path; dir = filepath.Dir(dir) {
		if !exists(dir, "") {
			continue
		}
		if !isMarked(dir, markParent) || unix.Rmdir(dir) != nil {
			return
		}
	}
}

// remove is removeFrom for a group whose processes may be ending.
func (g *group) remove(ctx context.Context, n node) error {
	if err := removeEmpty(ctx, g.dir(n)); err != nil {
		return err
	}
	g.removeParents(n)
	return nil
}

// removeEmpty removes a group with its sub-groups if no process is inside;
// absent is nil. The kernel needs a moment after the last process has ended.
func removeEmpty(ctx context.Context, dir string) error {
	return poll(ctx, deleteLimit, func() (bool, error) {
		err := removeTree(dir)
		if !errors.Is(err, unix.EBUSY) {
			return err == nil, err
		}
		pids, err := processes(dir)
		if len(pids) > 0 {
			err = fmt.Errorf("it has %d processes: %w", len(pids), errdefs.ErrConflict)
		}
		return false, err
	})
}

// Delete implements Group. A group outside of the tree that is not ours counts
// as absent.
func (g *group) Delete(ctx context.Context) error {
	for _, n := range g.t.nodes {
		if !g.inside() && !isMarked(g.dir(n), markGroup) {
			continue
		}
		if err := g.remove(ctx, n); err != nil {
			return g.wrap("delete", err)
		}
	}
	return nil
}

// JoinFiles implements Joiner.
func (g *group) JoinFiles() ([]*os.File, error) {
	return g.openAll(func(n node) (string, int) { return "cgroup.procs", os.O_WRONLY })
}

// BirthFiles implements Joiner. A thread that moves itself, by the file tasks
// of v1, needs no lock against all forks and ends of processes: since Linux
// 5.16, kernel/cgroup/cgroup.c, cgroup_procs_write_start. Nor does a clone into
// a v2 group. With Linux 6.18, nine v1 hierarchies and v2, C program, mean of
// 40 starts that are 50 ms apart (and without a pause): from the first mkdir to
// the child that is in all groups 1.0 ms (0.6), 0.08 of it for joining; with
// cgroup.procs 7.4 ms (0.9), 6.7 for joining. The mount option favordynmods of
// any hierarchy takes cgroup.procs to 0.9 ms (0.6), too, but at the cost of all
// forks and ends of processes of the host; so it is not set. Each hierarchy
// less saves 0.03 ms for mkdir, 0.01 to open and join, 0.02 for rmdir.
func (g *group) BirthFiles() ([]*os.File, error) {
	files, err := g.openAll(func(n node) (string, int) {
		if n.V2 {
			return "", unix.O_PATH | unix.O_DIRECTORY
		}
		return "tasks", os.O_WRONLY
	})
	slices.SortStableFunc(files, func(a, b *os.File) int { return birthOrder(a) - birthOrder(b) })
	return files, err
}

// birthOrder puts the directory first.
func birthOrder(f *os.File) int {
	if filepath.Base(f.Name()) == "tasks" {
		return 1
	}
	return 0
}

// openAll opens a file of the group in each hierarchy that has it.
func (g *group) openAll(what func(n node) (file string, flags int)) (files []*os.File, err error) {
	for _, n := range g.t.nodes {
		file, flags := what(n)
		path := filepath.Join(g.dir(n), file)
		fd, err := linux.OpenFd(path, flags) // for a child: not for the poller
		if errors.Is(err, os.ErrNotExist) && n.optional {
			continue
		}
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
		}
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
			return nil, g.wrap("join", err)
		}
		files = append(files, os.NewFile(uintptr(fd), path))
	}
	return files, nil
}

// Paths implements Joiner.
func (g *group) Paths() ([]Path, error) {
	if !g.there() {
		return nil, g.wrap("find", errdefs.ErrNotFound)
	}
	var out []Path
	for _, n := range g.t.nodes {
		p := Path{Mount: n.Path, Dir: g.dir(n)}
		if !n.V2 {
			p.Controllers = slices.Clone(n.Controllers)
		}
		if n.optional && !g.has(n) {
			p.Dir = n.Path
		}
		out = append(out, p)
	}
	return out, nil
}
