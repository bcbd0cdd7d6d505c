// Package probe opens a store of snapshots with the back end and the kind of
// limit that its file system and this kernel can do, and says why.
//
// What a store was opened with is recorded in it (the symbolic link "backend"),
// since a disk that one back end has made is nothing to another. It imports the
// back ends and is for the composition root.
package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/btrfs"
	"github.com/gantry-project/gantry/engine/snapshot/copydir"
	"github.com/gantry-project/gantry/engine/snapshot/flat"
	"github.com/gantry-project/gantry/engine/snapshot/mounts"
	"github.com/gantry-project/gantry/engine/snapshot/overlay"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Words of Options.
const (
	// Auto leaves a choice to Open.
	Auto = "auto"
	// Quota is the file system's own limit: a quota group on btrfs, else a
	// project quota.
	Quota = "quota"
	// Loop is snapshot.LimitLoop, None snapshot.LimitNone.
	Loop = "loop"
	None = "none"
)

// Options of Open.
type Options struct {
	// Backend is auto (also if empty), overlay, btrfs or copy.
	Backend string
	// Limit is auto (also if empty), quota, loop, none or a snapshot.LimitKind.
	// auto is quota, or none: a loop file costs a file system and a device for
	// each disk, which somebody has to want.
	Limit string
	// IDs is a user namespace to try id-mapped mounts with, as a container's.
	IDs snapshot.IDs
}

// A Try is one thing that was tried.
type Try struct {
	// What is "BACKEND" or "BACKEND with LIMIT".
	What string
	// Err says why it cannot be had; nil for what was chosen.
	Err error
}

// Choice says what was chosen and why.
type Choice struct {
	Backend string
	Limit   snapshot.LimitKind
	// Tries are in their order; the last one is what was chosen.
	Tries []Try
}

// String is one line for the log.
func (c Choice) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, limits by %s", c.Backend, c.Limit)
	for _, t := range c.Tries {
		if t.Err != nil {
			fmt.Fprintf(&b, "; not %s: %v", t.What, t.Err)
		}
	}
	return b.String()
}

// Open opens the store at root, which it makes if it is absent. Where the
// options leave it open the first that works is taken: on btrfs its
// subvolumes, else overlay, else copies; a quota before none. Quota groups are
// switched on for the whole file system. A store that has disks keeps its back
// end. errdefs.ErrUnsupported if what the
// options ask for, or anything at all, cannot be had, with all reasons;
// errdefs.ErrConflict if the store's disks are of another back end than asked
// for; errdefs.ErrInvalid for an unknown name.
func Open(ctx context.Context, root string, opts Options) (snapshot.Snapshotter, Choice, error) {
	var c Choice
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, c, fmt.Errorf("open snapshots: %w", err)
	}
	names, err := backends(root, opts.Backend)
	if err != nil {
		return nil, c, fmt.Errorf("open snapshots: %w", err)
	}
	for _, name := range names {
		kinds, err := limits(name, opts.Limit)
		if err != nil {
			return nil, c, fmt.Errorf("open snapshots: %w", err)
		}
		for _, kind := range kinds {
			s, err := open(ctx, root, name, kind, opts.IDs)
			c.Tries = append(c.Tries, Try{What: fmt.Sprintf("%s with %s", name, kind), Err: err})
			if err == nil {
				c.Backend, c.Limit = name, kind
				return s, c, record(root, name)
			}
			if ctx.Err() != nil || !errors.Is(err, errdefs.ErrUnsupported) {
				return nil, c, fmt.Errorf("open snapshots: %w", err)
			}
		}
	}
	var all []error
	for _, t := range c.Tries {
		all = append(all, fmt.Errorf("%s: %w", t.What, t.Err))
	}
	return nil, c, fmt.Errorf("open snapshots: nothing works here: %w", errors.Join(all...))
}

// backends lists what to try, in order.
func backends(root, want string) ([]string, error) {
	known := []string{"overlay", "btrfs", "copy"}
	if want == "" {
		want = Auto
	}
	bound, err := boundTo(root)
	if err != nil {
		return nil, err
	}
	switch {
	case want == Auto && bound != "":
		return []string{bound}, nil
	case want == Auto && mounts.FileSystem(root) == "btrfs":
		return []string{"btrfs", "overlay", "copy"}, nil
	case want == Auto:
		return []string{"overlay", "copy"}, nil
	case bound != "" && bound != want:
		return nil, fmt.Errorf("the store has disks of %s, not %s: %w", bound, want, errdefs.ErrConflict)
	}
	for _, name := range known {
		if name == want {
			return []string{name}, nil
		}
	}
	return nil, fmt.Errorf("snapshotter %q is none of auto, %s: %w", want, strings.Join(known, ", "), errdefs.ErrInvalid)
}

// boundTo is the back end that the disks of a store are of, "" if it has none.
// A store without a record is from before there was one, and overlay's.
func boundTo(root string) (string, error) {
	entries, err := os.ReadDir(filepath.Join(root, "active"))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if name := flat.Text(root, "backend"); name != "" {
		return name, nil
	}
	return "overlay", nil
}

func record(root, name string) error {
	if flat.Text(root, "backend") == name {
		return nil
	}
	return flat.SetText(root, "backend", name)
}

// limits lists the kinds of limits to try, in order.
func limits(backend, want string) ([]snapshot.LimitKind, error) {
	quota := snapshot.LimitProject
	if backend == "btrfs" {
		quota = snapshot.LimitQgroup
	}
	switch want {
	case "", Auto:
		return []snapshot.LimitKind{quota, snapshot.LimitNone}, nil
	case Quota:
		return []snapshot.LimitKind{quota}, nil
	case Loop:
		return []snapshot.LimitKind{snapshot.LimitLoop}, nil
	}
	switch kind := snapshot.LimitKind(want); kind {
	case snapshot.LimitNone, snapshot.LimitProject, snapshot.LimitLoop, snapshot.LimitQgroup:
		return []snapshot.LimitKind{kind}, nil
	}
	return nil, fmt.Errorf("disk limit %q is none of auto, quota, loop, none: %w", want, errdefs.ErrInvalid)
}

// open opens one combination and tries what containers need of it.
func open(ctx context.Context, root, backend string, limit snapshot.LimitKind, ids snapshot.IDs) (snapshot.Snapshotter, error) {
	switch backend {
	case "overlay":
		s, err := overlay.Open(ctx, root, overlay.Options{Limit: limit})
		if err != nil {
			return nil, err
		}
		if err := s.Probe(ctx, ids); err != nil {
			s.Close()
			return nil, err
		}
		return s, nil
	case "btrfs":
		if err := mapped(root, ids); err != nil {
			return nil, err
		}
		return closed(btrfs.Open(ctx, root, btrfs.Options{Limit: limit}))
	case "copy":
		err := mapped(root, ids)
		if err != nil && !errors.Is(err, errdefs.ErrUnsupported) {
			return nil, err
		}
		return closed(copydir.Open(ctx, root, copydir.Options{Limit: limit, Shift: err != nil}))
	}
	return nil, fmt.Errorf("snapshotter %q: %w", backend, errdefs.ErrInvalid)
}

// closed keeps a nil pointer from becoming an interface that is not nil.
func closed[S snapshot.Snapshotter](s S, err error) (snapshot.Snapshotter, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// mapped tries an id-mapped mount of root, attached nowhere.
func mapped(root string, ids snapshot.IDs) error {
	ns, err := os.Open(ids.UserNS)
	if err != nil {
		return fmt.Errorf("user namespace: %w", err)
	}
	defer ns.Close()
	fd, err := mounts.Clone(root, int(ns.Fd()))
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
