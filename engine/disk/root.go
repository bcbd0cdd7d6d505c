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

// rootArch is the architecture, in Go's words, whose root a partition of the type
// is by the Discoverable Partitions Specification, or nothing.
func rootArch(kind string) string {
	return map[string]string{
		"44479540-f297-41b2-9af7-d131d5f0458a": "386",
		"4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "amd64",
		"69dad710-2ce4-4e3c-b16c-21a1d49abed3": "arm",
		"b921b045-1df0-41c3-af44-4c6f280d3fae": "arm64",
		"72ec70a6-cf74-40e6-bd49-4bda08e8f224": "riscv64",
		"c31c45e6-3f39-412e-80fb-4809c4980599": "ppc64le",
		"5eead9a9-fe09-4a1e-a1d7-520d00531306": "s390x",
	}[kind]
}

// region is a partition, or a disk without any.
type region struct {
	// where it is, in words
	where string
	part  partition.Partition
	// arch is the architecture whose root it is by its type, or empty
	arch    string
	content content
	// err is why its file system could not be read, or nil
	err error
	// views are the file system, and its subvolumes if it is no root itself
	views []view
}

// view is a file system as one of its directories shows it.
type view struct {
	fs    filesystem.FileSystem
	where string
	part  partition.Partition
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
		reg := &region{where: "the whole disk", part: p, arch: rootArch(p.Type)}
		if p.Number > 0 {
			reg.where = fmt.Sprintf("partition %d", p.Number)
		}
		if err := reg.look(ctx, io.NewSectionReader(r, p.Start, p.Size), p.Size); err != nil {
			return nil, fmt.Errorf("open disk: %s: %w", reg.where, err)
		}
		regions = append(regions, reg)
	}
	return choose(regions, arch)
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
	g.views = []view{{fs: fs, where: g.where, part: g.part, has: has}}
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
				fs: fs, has: has, part: g.part, where: fmt.Sprintf("subvolume %.60q of %s", s.Path, g.where),
				usual: slices.Contains([]string{"@", "@rootfs", "root"}, s.Path),
			})
		}
		return err
	})
}

// choose picks the root, as the package comment says.
func choose(regions []*region, arch string) (*view, error) {
	var preferred, others []view
	var foreign string
	for _, g := range regions {
		roots := slices.DeleteFunc(slices.Clone(g.views), func(v view) bool { return !v.has.root() })
		if usual := slices.DeleteFunc(slices.Clone(roots), func(v view) bool { return !v.usual }); len(usual) > 0 {
			roots = usual
		}
		switch {
		case g.arch != "" && g.arch == arch:
			preferred = append(preferred, roots...)
		case g.arch == "" || g.arch == "386" && arch == "amd64":
			others = append(others, roots...)
		case len(roots) > 0:
			foreign = g.arch
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
		if foreign != "" {
			return nil, refuse(errdefs.ErrUnsupported, "the disk image is for the architecture %s, the host has %s", foreign, arch)
		}
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
