package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// group is a Group; it holds nothing open.
type group struct {
	t    *tree
	name string
}

func (g *group) dir(n node) string { return filepath.Join(n.dir, g.name) }

func (g *group) create(ctx context.Context, limits Limits) (err error) {
	if err := limits.check(g.t.features()); err != nil {
		return err
	}
	if _, err := writesV1(limits, g.t.v1, true); err != nil {
		return err
	}
	var made []string
	defer func() {
		if err != nil {
			for _, dir := range made {
				err = errors.Join(err, removeTree(dir))
			}
		}
	}()
	for _, n := range g.t.nodes {
		dir := g.dir(n)
		err := unix.Mkdir(dir, 0o755)
		if err == unix.EEXIST {
			if err = removeEmpty(ctx, dir); err == nil {
				err = unix.Mkdir(dir, 0o755)
			}
		}
		if err != nil {
			return fmt.Errorf("make %s: %w", dir, classify(err))
		}
		made = append(made, dir)
	}
	return g.apply(ctx, limits, true)
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

// Update implements Group.
func (g *group) Update(ctx context.Context, limits Limits) error {
	if err := limits.check(g.t.features()); err != nil {
		return g.wrap("update", err)
	}
	if !g.there() {
		return g.wrap("update", errdefs.ErrNotFound)
	}
	return g.wrap("update", g.apply(ctx, limits, false))
}

func (g *group) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s control group %s: %w", op, g.name, err)
}

func (g *group) there() bool {
	for _, n := range g.t.nodes {
		if exists(n.dir, g.name) {
			return true
		}
	}
	return false
}

// apply writes the limits; the first failure ends it.
func (g *group) apply(ctx context.Context, limits Limits, fresh bool) error {
	writes, err := writesV1(limits, g.t.v1, fresh)
	if err != nil {
		return err
	}
	for _, w := range writes {
		n, _ := g.t.with(w.Controller)
		if err := g.put(ctx, n, w); err != nil {
			return err
		}
	}
	if !fresh && limits.CPUSet == "" {
		if err := g.resetCPUSet(ctx); err != nil {
			return err
		}
	}
	n, ok := g.t.unified()
	if !ok {
		return nil
	}
	for _, w := range writesV2(limits, g.t.v2, fresh) {
		if err := g.put(ctx, n, w); err != nil {
			return err
		}
	}
	if limits.Devices != nil && g.t.v2.Controllers["devices"] {
		if err := attachDevices(g.dir(n), limits.Devices); err != nil {
			return fmt.Errorf("limit devices: %w", err)
		}
	}
	return nil
}

// resetCPUSet gives a group that was limited all cpus of the tree. It writes
// them out: a cpuset with processes cannot be emptied (v2 of Linux 6.1: ENOSPC).
func (g *group) resetCPUSet(ctx context.Context) error {
	n, ok := g.t.with("cpuset")
	file := "cpuset.cpus"
	if !ok && g.t.v2.Controllers["cpuset"] {
		n, ok = g.t.unified()
		file = "cpuset.cpus.effective"
	}
	if !ok {
		return nil
	}
	all, err := readFile(n.dir, file)
	if err != nil {
		return err
	}
	if have, err := readFile(g.dir(n), "cpuset.cpus"); err != nil || have == "" || have == all {
		return err
	}
	return g.put(ctx, n, write{"cpuset", "cpuset.cpus", all, "cpuset"})
}

func (g *group) put(ctx context.Context, n node, w write) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := writeFile(g.dir(n), w.File, w.Value); err != nil {
		return fmt.Errorf("limit %s: %w", w.Limit, classify(err))
	}
	return nil
}

// classify gives errno its class. EBUSY is, among others, a memory limit below
// what is in use.
func classify(err error) error {
	class := error(nil)
	switch {
	case errors.Is(err, errdefs.ErrConflict):
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		class = errdefs.ErrUnsupported
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		class = errdefs.ErrInvalid
	case errors.Is(err, unix.EBUSY):
		class = errdefs.ErrConflict
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM):
		class = errdefs.ErrExhausted
	}
	if class == nil {
		return err
	}
	return fmt.Errorf("%w: %w", err, class)
}

// JoinFiles implements Group.
func (g *group) JoinFiles() (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
			files = nil
		}
	}()
	for _, n := range g.t.nodes {
		f, err := os.OpenFile(filepath.Join(g.dir(n), "cgroup.procs"), os.O_WRONLY, 0)
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
		}
		if err != nil {
			return files, g.wrap("join", err)
		}
		files = append(files, f)
	}
	return files, nil
}

// Delete implements Group.
func (g *group) Delete(ctx context.Context) error {
	for _, n := range g.t.nodes {
		if err := removeEmpty(ctx, g.dir(n)); err != nil {
			return g.wrap("delete", err)
		}
	}
	return nil
}

// removeTree removes a group and its sub-groups; absent is nil.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EBUSY && err != unix.ENOTEMPTY {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	subs, lerr := subgroups(dir)
	for _, sub := range subs {
		if err := removeTree(sub); err != nil {
			return err
		}
	}
	if lerr != nil || len(subs) == 0 {
		return errors.Join(lerr, &os.PathError{Op: "rmdir", Path: dir, Err: err})
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// subgroups lists the directories of a group. Most have none, which the link
// count tells at once.
func subgroups(dir string) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err == unix.ENOENT || err == nil && st.Nlink == 2 {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, err
}
