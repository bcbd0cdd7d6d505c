package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/filesystem/btrfs"
	"github.com/gantry-project/gantry/engine/disk/partition"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// maxSubvolumes of one file system are looked at.
const maxSubvolumes = 1000

// GUIDs of the Discoverable Partitions Specification, by architecture in Go's
// words.
func rootType(arch string) string {
	return map[string]string{
		"amd64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
		"arm64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
	}[arch]
}

// region is a partition, or a disk without any.
type region struct {
	// where it is, in words
	where string
	// preferred says that the partition's type is that of a root
	preferred bool
	content   content
	// err is why its file system could not be read, or nil
	err error
	// views are the file system, and its subvolumes if it is no root itself
	views []view
}

// view is a file system as one of its directories shows it.
type view struct {
	fs    filesystem.FileSystem
	where string
	has   layout
	// usual says that a distribution would install to this subvolume
	usual bool
}

// find looks at all of a disk and chooses the root.
func find(ctx context.Context, r io.ReaderAt, size int64, table *partition.Table, arch string) (*view, error) {
	parts := table.Partitions
	if len(parts) == 0 {
		parts = []partition.Partition{{Size: size}}
	}
	var regions []*region
	for _, p := range parts {
		reg := &region{where: "the whole disk", preferred: p.Type != "" && p.Type == rootType(arch)}
		if p.Number > 0 {
			reg.where = fmt.Sprintf("partition %d", p.Number)
		}
		if err := reg.look(ctx, io.NewSectionReader(r, p.Start, p.Size), p.Size); err != nil {
			return nil, fmt.Errorf("open disk: %s: %w", reg.where, err)
		}
		regions = append(regions, reg)
	}
	return choose(regions)
}

// look finds out what the region holds. Only what says nothing about the image
// is an error here.
func (g *region) look(ctx context.Context, r io.ReaderAt, size int64) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
	}
	var err error
	if g.content, err = probe(r, size); err != nil {
		return err
	}
	open, ok := readers()[g.content]
	if !ok {
		return nil
	}
	fs, err := open(r, size)
	if err == nil {
		err = g.view(ctx, fs)
	}
	for _, class := range []error{errdefs.ErrCorrupt, errdefs.ErrUnsupported, errdefs.ErrInvalid} {
		if errors.Is(err, class) {
			g.err = err
			return nil
		}
	}
	return err
}

// view looks at the file system, and at the subvolumes if it is no root.
func (g *region) view(ctx context.Context, fs filesystem.FileSystem) error {
	has, err := layoutOf(fs)
	if err != nil {
		return err
	}
	g.views = []view{{fs: fs, where: g.where, has: has}}
	volumes, ok := fs.(*btrfs.FileSystem)
	if !ok || has.root() {
		return nil
	}
	n := 0
	return volumes.Subvolumes(func(s btrfs.Subvolume) error {
		if n++; n > maxSubvolumes {
			return fmt.Errorf("more than %d subvolumes: %w", maxSubvolumes, errdefs.ErrUnsupported)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		fs, err := volumes.WithRoot(s.ID)
		if err != nil {
			return err
		}
		has, err := layoutOf(fs)
		if err == nil && has.root() {
			g.views = append(g.views, view{
				fs: fs, has: has, where: fmt.Sprintf("subvolume %.60q of %s", s.Path, g.where),
				usual: slices.Contains([]string{"@", "@rootfs", "root"}, s.Path),
			})
		}
		return err
	})
}

// choose picks the root, as the package comment says.
func choose(regions []*region) (*view, error) {
	var preferred, others []view
	for _, g := range regions {
		roots := slices.DeleteFunc(slices.Clone(g.views), func(v view) bool { return !v.has.root() })
		if usual := slices.DeleteFunc(slices.Clone(roots), func(v view) bool { return !v.usual }); len(usual) > 0 {
			roots = usual
		}
		if g.preferred {
			preferred = append(preferred, roots...)
		} else {
			others = append(others, roots...)
		}
	}
	roots := preferred
	if len(roots) == 0 {
		roots = others
	}
	switch len(roots) {
	case 1:
		return &roots[0], nil
	case 0:
		return nil, noRoot(regions)
	}
	var list []string
	for _, v := range roots {
		list = append(list, v.where)
	}
	return nil, refuse(errdefs.ErrInvalid, "the disk image has more than one root file system: %.500s", strings.Join(list, ", "))
}

// noRoot says why no root was found: the first reason that may be the cause.
func noRoot(regions []*region) error {
	var found []string
	var usr, bare string
	for _, g := range regions {
		found = append(found, g.where+": "+g.content.String())
		for _, v := range g.views {
			switch {
			case v.has.usr():
				usr = v.where
			case v.has.withoutUsr():
				bare = v.where
			}
		}
	}
	for _, g := range regions {
		if g.err != nil {
			return unreadable(g.content.String(), g.where, g.err)
		}
	}
	if usr != "" && bare != "" {
		return refuse(errdefs.ErrUnsupported, "the disk image has /usr on a partition of its own (%s; the root is on %s), which is not supported", usr, bare)
	}
	for _, g := range regions {
		if g.content.hides() {
			return refuse(errdefs.ErrUnsupported, "the root file system of the disk image is not on a plain partition: %s holds %s, which is not supported", g.where, g.content)
		}
	}
	return refuse(errdefs.ErrInvalid, "the disk image has no root file system (found: %.500s)", strings.Join(found, "; "))
}
