package engine

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/undo"
)

// Export streams the container's whole file system as one tar, with the ids as
// the container sees them. A running container is frozen while its changes are
// copied aside, and runs on when they are. The stream has to be read to its end
// or closed; Close removes what is temporary.
func (e *Engine) Export(ctx context.Context, id ContainerID) (io.ReadCloser, error) {
	var undone undo.Stack
	view, err := e.exportView(ctx, id, &undone)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("export container %s: %w", id, err), undone.Unwind(ctx))
	}
	return streamed(func(w io.Writer) error { return diffTo(ctx, view, w) }, func() error { return undone.Unwind(ctx) }), nil
}

// streamed is what write writes. Its Close waits for the end of that, and cleans
// up behind it.
func streamed(write func(w io.Writer) error, clean func() error) *exported {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(write(w))
	}()
	return &exported{PipeReader: r, done: done, clean: clean}
}

// exported is a stream with something to clean up behind it.
type exported struct {
	*io.PipeReader
	done  chan struct{}
	clean func() error
}

// Close implements io.Closer. It may be called more than once.
func (x *exported) Close() error {
	err := x.PipeReader.Close()
	<-x.done
	return errors.Join(err, x.clean())
}

// exportView mounts the container's file system as it is now, to be read. The
// changes become a layer of their own for as long as it takes: if that is cut
// off, it is a layer that nobody has and a mount that nobody has, both of which
// the next start removes.
func (e *Engine) exportView(ctx context.Context, id ContainerID, undone *undo.Stack) (string, error) {
	c, err := e.stageChanges(ctx, id)
	if err != nil {
		return "", err
	}
	undone.Push("copy of changes", c.Close)
	top := digest.FromString(rand.Text()).String() // nobody asks for it by what it is
	undone.Push("layer of changes", func(ctx context.Context) error { return e.dropLayers(ctx, []string{top}) })
	letGo := e.layers.hold(top)
	undone.Push("hold on layer of changes", func(context.Context) error { letGo(); return nil })
	stream, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	err = e.opts.Snapshots.Unpack(ctx, top, func(dir string) error { return applyTo(ctx, dir, stream) })
	if err = errors.Join(err, stream.Close()); err != nil {
		return "", fmt.Errorf("layer of changes: %w", err)
	}
	return e.view(ctx, append(slices.Clone(c.rec.Chain), top), undone)
}

// view mounts a chain to be read.
func (e *Engine) view(ctx context.Context, chain []string, undone *undo.Stack) (string, error) {
	name := "view-" + strings.ToLower(rand.Text())
	end, err := e.begin(ctx, opView, name, nil)
	if err != nil {
		return "", err
	}
	undone.Push("intent", func(context.Context) error { end(); return nil })
	target := e.rootfs(ContainerID(name))
	if err := os.Mkdir(target, 0o700); err != nil {
		return "", err
	}
	undone.Push("view", func(ctx context.Context) error {
		if err := e.opts.Snapshots.Unmount(ctx, target); err != nil {
			return err
		}
		if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
	if err := e.unpacked(ctx, chain); err != nil {
		return target, err
	}
	return target, e.opts.Snapshots.View(ctx, chain, target)
}

// applyTo unpacks a stream of this engine.
func applyTo(ctx context.Context, dir string, r io.Reader) error {
	target, err := os.Open(dir)
	if err != nil {
		return err
	}
	_, err = layer.Apply(ctx, target, r, layer.Options{Limits: unlimited(), Holes: true})
	return errors.Join(err, target.Close())
}

// ExportImage opens an OCI archive of an imported image. The layers that
// LayerInfo.Stored knows by one of the digests of without are named in it and not
// there: it is for a registry that has them.
func (e *Engine) ExportImage(ctx context.Context, ref string, without ...digest.Digest) (Committed, error) {
	defer e.images.hold(ref)()
	rec, err := e.opts.Store.Image(ctx, ref)
	if err != nil {
		return Committed{}, fmt.Errorf("export image %s: %w", ref, err)
	}
	defer e.layers.hold(rec.Chain...)()
	sources, err := e.layerSources(ctx, rec)
	if err != nil {
		return Committed{}, fmt.Errorf("export image %s: %w", ref, err)
	}
	for i, s := range storedOf(rec) {
		if slices.Contains(without, s.Digest) && len(rec.DiffIDs) == len(rec.Chain) {
			sources[i].Elsewhere, sources[i].DiffID = s, digest.Digest(rec.DiffIDs[i])
		}
	}
	built, err := image.Build(ctx, image.BuildSpec{Config: rec.Config, Created: rec.Imported, TempDir: e.tmpDir(), Layers: sources})
	if err != nil {
		return Committed{}, fmt.Errorf("export image %s: %w", ref, err)
	}
	return Committed{Content: built, Size: built.Size()}, nil
}

// ChangeKind says how a file differs from the image's.
type ChangeKind string

// The kinds of changes.
const (
	Added    ChangeKind = "added"
	Modified ChangeKind = "modified"
	Deleted  ChangeKind = "deleted"
)

// Change is one file that differs from the image's.
type Change struct {
	Kind ChangeKind
	// Path is absolute inside the container, clean.
	Path string
}

// Changes lists how the container's file system differs from its image, by
// path. A running container is frozen while its changes are copied aside.
func (e *Engine) Changes(ctx context.Context, id ContainerID) (_ []Change, err error) {
	c, err := e.stageChanges(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", id, err)
	}
	var undone undo.Stack
	undone.Push("copy of changes", c.Close)
	defer func() { err = errors.Join(err, undone.Unwind(ctx)) }()
	dir, err := e.view(ctx, c.rec.Chain, &undone)
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", id, err)
	}
	below, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", id, err)
	}
	defer func() { _ = below.Close() }()
	changes, err := c.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", id, err)
	}
	defer func() { _ = changes.Close() }()
	out, err := listChanges(changes, func(name string) bool {
		f, err := linux.OpenInRoot(below, name, unix.O_PATH|unix.O_NOFOLLOW)
		if err != nil {
			return false
		}
		_ = f.Close()
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", id, err)
	}
	return out, nil
}

// Names of whiteouts (OCI image-spec layer.md, Whiteouts).
const (
	whiteout       = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// listChanges reads a layer; before tells whether a path was there without it.
func listChanges(r io.Reader, before func(name string) bool) ([]Change, error) {
	var out []Change
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		dir, base := path.Split(name)
		gone, isWhiteout := strings.CutPrefix(base, whiteout)
		switch {
		case name == "", base == whiteoutOpaque:
		case isWhiteout:
			out = append(out, Change{Deleted, "/" + dir + gone})
		case before(name):
			out = append(out, Change{Modified, "/" + name})
		default:
			out = append(out, Change{Added, "/" + name})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind)) })
	return out, nil
}
