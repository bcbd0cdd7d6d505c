// Package quota makes directories that hold at most so much: by a project quota
// of ext4 or xfs, by a file system of their own in a sparse file, or not at
// all. Which it is can be read from the directory itself, so directories stay
// usable when another kind is chosen for new ones.
//
// A directory DIR of kind loop-file is a mount of the file DIR.img; the mount
// lasts until Remove or a reboot, and Open makes it again.
//
// It is for the back ends below engine/snapshot and imports errdefs and
// engine/snapshot of ours.
package quota

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// kind is one way to bound a directory.
type kind interface {
	// make makes dir, which is absent.
	make(ctx context.Context, dir string, limit snapshot.Limit) error
	// open makes dir usable; it may be so already.
	open(ctx context.Context, dir string) error
	set(ctx context.Context, dir string, limit snapshot.Limit) error
	usage(ctx context.Context, dir string) (snapshot.Usage, error)
	// remove takes dir away with all in it.
	remove(dir string) error
}

// Manager makes and looks after bounded directories on one file system. Its
// methods are safe for concurrent use; those for one directory are serialised
// by the caller.
type Manager struct {
	kind    snapshot.LimitKind
	project *project
	loop    loop
}

// New returns a Manager that bounds new directories below root, an existing
// directory, by kind: LimitProject, LimitLoop or LimitNone.
// errdefs.ErrUnsupported, with the reason, if the host or the file system
// cannot do it.
func New(ctx context.Context, root string, want snapshot.LimitKind) (*Manager, error) {
	m := &Manager{kind: want, project: &project{root: root}}
	var err error
	switch want {
	case snapshot.LimitNone:
	case snapshot.LimitProject:
		err = m.project.probe(ctx)
	case snapshot.LimitLoop:
		err = m.loop.probe(ctx, root)
	case snapshot.LimitQgroup:
		err = fmt.Errorf("only subvolumes have quota groups: %w", errdefs.ErrUnsupported)
	default:
		err = fmt.Errorf("kind of limit %q: %w", want, errdefs.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("disk limits by %s: %w", want, err)
	}
	return m, nil
}

// Unlimited returns a Manager that bounds nothing, and looks after directories
// that another has bounded.
func Unlimited(root string) *Manager {
	return &Manager{kind: snapshot.LimitNone, project: &project{root: root}}
}

// Describe fills in what d says of limits.
func (m *Manager) Describe(d *snapshot.Description) {
	d.Limit = m.kind
	switch m.kind {
	case snapshot.LimitProject:
		d.LimitBytes, d.LimitInodes, d.LimitGrows, d.LimitShrinks = true, true, true, true
	case snapshot.LimitLoop:
		d.LimitBytes, d.LimitInodes, d.LimitGrows = true, true, mayGrow()
		d.Notes = append(d.Notes, "limits: a loop device and a file system for each bounded disk; limits cannot shrink")
		if !d.LimitGrows {
			d.Notes = append(d.Notes, "limits: cannot grow without the capability SYS_RESOURCE")
		}
	case snapshot.LimitNone, snapshot.LimitQgroup:
		d.Notes = append(d.Notes, "limits: none can be enforced")
	}
}

// Make makes the empty directory dir, which is absent, with mode 0700. A limit
// that cannot be enforced is errdefs.ErrUnsupported, one that is too small to
// hold anything errdefs.ErrInvalid. On error nothing is left.
func (m *Manager) Make(ctx context.Context, dir string, limit snapshot.Limit) error {
	k, err := m.forNew(limit)
	if err == nil {
		if err = k.make(ctx, dir, limit); err != nil {
			err = errors.Join(err, m.Remove(dir))
		}
	}
	if err != nil {
		return fmt.Errorf("make bounded directory: %w", err)
	}
	return nil
}

func (m *Manager) forNew(limit snapshot.Limit) (kind, error) {
	if limit.Bytes < 0 || limit.Inodes < 0 {
		return nil, fmt.Errorf("limit of %d bytes and %d inodes: %w", limit.Bytes, limit.Inodes, errdefs.ErrInvalid)
	}
	unlimited := limit == snapshot.Limit{}
	switch {
	case m.kind == snapshot.LimitProject:
		return m.project, nil
	case unlimited:
		return plain{}, nil
	case m.kind == snapshot.LimitLoop:
		return m.loop, nil
	}
	return nil, fmt.Errorf("no limit can be enforced here: %w", errdefs.ErrUnsupported)
}

// of finds out how dir was made.
func (m *Manager) of(dir string) (kind, error) {
	if _, err := os.Lstat(image(dir)); err == nil {
		return m.loop, nil
	}
	id, err := projectOf(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errdefs.ErrNotFound
	case err != nil:
		return nil, err
	case ownProject(id):
		return m.project, nil
	}
	return plain{}, nil
}

// Open makes dir usable, after a reboot for example. errdefs.ErrNotFound if it
// is absent.
func (m *Manager) Open(ctx context.Context, dir string) error {
	k, err := m.of(dir)
	if err == nil {
		err = k.open(ctx, dir)
	}
	if err != nil {
		return fmt.Errorf("open bounded directory: %w", err)
	}
	return nil
}

// Kind says how dir was made.
func (m *Manager) Kind(dir string) (snapshot.LimitKind, error) {
	k, err := m.of(dir)
	if err != nil {
		return "", err
	}
	switch k.(type) {
	case loop:
		return snapshot.LimitLoop, nil
	case *project:
		return snapshot.LimitProject, nil
	}
	return snapshot.LimitNone, nil
}

// Set changes the limit. errdefs.ErrUnsupported, with the old limit in force,
// if this kind of directory cannot.
func (m *Manager) Set(ctx context.Context, dir string, limit snapshot.Limit) error {
	if limit.Bytes < 0 || limit.Inodes < 0 {
		return fmt.Errorf("limit of %d bytes and %d inodes: %w", limit.Bytes, limit.Inodes, errdefs.ErrInvalid)
	}
	k, err := m.of(dir)
	if err == nil {
		err = k.set(ctx, dir, limit)
	}
	if err != nil {
		return fmt.Errorf("set limit: %w", err)
	}
	return nil
}

// Usage counts what is in dir, as the limit counts it.
func (m *Manager) Usage(ctx context.Context, dir string) (snapshot.Usage, error) {
	k, err := m.of(dir)
	if err != nil {
		return snapshot.Usage{}, err
	}
	return k.usage(ctx, dir)
}

// Remove takes dir away with all in it, and its limit. Absent is nil.
func (m *Manager) Remove(dir string) error {
	k, err := m.of(dir)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove bounded directory: %w", err)
	}
	return k.remove(dir)
}

// plain directories are not bounded.
type plain struct{}

func (plain) make(_ context.Context, dir string, _ snapshot.Limit) error { return os.Mkdir(dir, 0o700) }
func (plain) open(context.Context, string) error                         { return nil }
func (plain) remove(dir string) error                                    { return os.RemoveAll(dir) }

func (plain) set(_ context.Context, _ string, limit snapshot.Limit) error {
	if limit == (snapshot.Limit{}) {
		return nil
	}
	return fmt.Errorf("the disk was made without a limit: %w", errdefs.ErrUnsupported)
}

func (plain) usage(ctx context.Context, dir string) (snapshot.Usage, error) { return Walk(ctx, dir) }

// Walk counts what is in dir by looking at all of it. Files that vanish
// meanwhile are not counted, those with several names once.
func Walk(ctx context.Context, dir string) (snapshot.Usage, error) {
	return Count(ctx, dir, func(*syscall.Stat_t) bool { return true })
}

// Count is Walk for what the caller picks.
func Count(ctx context.Context, dir string, pick func(*syscall.Stat_t) bool) (snapshot.Usage, error) {
	var u snapshot.Usage
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			if !pick(st) {
				return ctx.Err()
			}
			if id := (inode{uint64(st.Dev), st.Ino}); st.Nlink > 1 && !info.IsDir() {
				if seen[id] {
					return ctx.Err()
				}
				seen[id] = true
			}
			u.Bytes += st.Blocks * 512
		}
		u.Inodes++
		return ctx.Err()
	})
	return u, err
}
