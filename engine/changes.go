package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
	"github.com/gantry-project/gantry/internal/undo"
)

// changes is a copy of what a container has written over the layers of its
// image, as of one moment. It is private: the container runs on, and may be
// removed with its image while the copy is read.
type changes struct {
	// stage is the copy, and pack the file that holds its contents.
	stage *layer.Stage
	pack  *os.File
	// rec is the container's record, img the image that it was made of: replaced
	// says that another has the name now.
	rec      store.Container
	img      store.Image
	replaced bool
	// done removes the copy and lets go of the layers.
	done undo.Stack
}

// Close removes the copy and lets go of the layers below it.
func (c *changes) Close(ctx context.Context) error {
	return c.done.Unwind(context.WithoutCancel(ctx))
}

// open streams the changes as a layer.
func (c *changes) open(ctx context.Context) (io.ReadCloser, error) {
	return piped(func(w io.Writer) error {
		_, err := c.stage.Stream(ctx, w)
		return err
	}), nil
}

// writeBack begins to write the copy to the disk; written waits for it.
func (c *changes) writeBack() (written func() error) {
	end := make(chan error, 1)
	go func() { end <- c.pack.Sync() }()
	return func() error { return <-end }
}

// spec describes the image of the container, without its changes.
func (c *changes) spec(tmp string) image.BuildSpec {
	spec := image.BuildSpec{Config: c.img.Config, Created: time.Now(), TempDir: tmp}
	if len(spec.Config.Entrypoint)+len(spec.Config.Cmd) == 0 {
		// a bare root file system has no configuration: what ran is its command
		spec.Config.Cmd = c.rec.Args
	}
	return spec
}

// stageChanges copies what a container has written. One that runs is held still
// only for what it has written during the last pass over its files.
func (e *Engine) stageChanges(ctx context.Context, id ContainerID) (_ *changes, err error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	out := &changes{rec: c.rec}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Close(ctx))
		}
	}()
	release := e.layers.hold(c.rec.Chain...)
	out.done.Push("hold on layers", func(context.Context) error { release(); return nil })
	if out.img, out.replaced, err = e.imageOf(ctx, c.rec); err != nil {
		return nil, err
	}
	if out.pack, err = os.CreateTemp(e.tmpDir(), "changes-"); err != nil {
		return nil, err
	}
	out.done.Push("copy of changes", func(context.Context) error {
		err := os.Remove(out.pack.Name())
		if errors.Is(err, os.ErrNotExist) { // it is a layer's
			err = nil
		}
		return errors.Join(err, out.pack.Close())
	})
	out.stage = layer.NewStage(out.pack)
	end, err := e.begin(ctx, opCommit, c.rec.ID, commitIntent{Frozen: c.running && !c.paused})
	if err != nil {
		return nil, err
	}
	defer end()
	return out, e.stage(ctx, c, out.stage)
}

// imageOf is the image that a container was made of. When another image has its
// name now, as much is known of the first as its layers tell.
func (e *Engine) imageOf(ctx context.Context, c store.Container) (img store.Image, replaced bool, err error) {
	img, err = e.opts.Store.Image(ctx, c.Image)
	if err != nil || slices.Equal(img.Chain, c.Chain) {
		return img, false, err
	}
	images, err := e.opts.Store.Images(ctx)
	if err != nil && !errors.Is(err, errdefs.ErrCorrupt) {
		return img, true, err
	}
	img.ID, img.Chain, img.DiffIDs, img.History, img.Stored, img.LayerBytes, img.SizeBytes = "", c.Chain, nil, nil, nil, nil, 0
	for _, chain := range c.Chain {
		size, err := e.layerSize(ctx, chain)
		if err != nil {
			return img, true, err
		}
		img.LayerBytes, img.SizeBytes = append(img.LayerBytes, size), img.SizeBytes+size
		img.DiffIDs = append(img.DiffIDs, cmp.Or(diffIDOf(images, chain), chain))
	}
	return img, true, nil
}

// What is left for the last pass is small enough, or does not get smaller.
const (
	lastPassBytes = 4 << 20
	lastPassFiles = 200
	maxPasses     = 4
)

// stage copies the container's changes.
func (e *Engine) stage(ctx context.Context, c *container, s *layer.Stage) error {
	// a snapshotter that copies has nothing that could be followed
	if c.running && !c.paused && !e.opts.Snapshots.Describe().ChangesCopied {
		for range maxPasses {
			did, err := e.pass(ctx, c, s, func() (bool, error) { return e.mapsFiles(ctx, c) })
			if err != nil {
				return err
			}
			if did.Bytes < lastPassBytes && did.Files < lastPassFiles {
				break
			}
		}
	}
	thaw, err := e.hold(ctx, c)
	if err != nil {
		return err
	}
	held := time.Now()
	err = failpoint.Hit("engine.commit.frozen")
	var did layer.Pass
	if err == nil {
		did, err = e.pass(ctx, c, s, nil)
	}
	err = errors.Join(err, thaw())
	e.opts.Log.Debug().Str(logging.Container, c.rec.ID).Dur("held", time.Since(held)).Int64("bytes", did.Bytes).Int("files", did.Files).
		Msg("changes copied")
	return err
}

// pass runs one pass over what the container has written.
func (e *Engine) pass(ctx context.Context, c *container, s *layer.Stage, mapped func() (bool, error)) (layer.Pass, error) {
	upper, err := e.opts.Snapshots.Changes(ctx, c.rec.ID)
	if err != nil {
		return layer.Pass{}, err
	}
	from, err := os.Open(upper)
	if err != nil {
		return layer.Pass{}, err
	}
	did, err := s.Run(ctx, from, mapped)
	return did, errors.Join(err, from.Close())
}

// mapsFiles reports whether a process of the container has a file mapped so that
// what it writes to memory goes there.
func (e *Engine) mapsFiles(ctx context.Context, c *container) (bool, error) {
	group, err := e.opts.Cgroups.Open(ctx, c.rec.ID)
	if err != nil {
		return false, err
	}
	seen := map[int]bool{}
	for {
		pids, err := group.Pids(ctx)
		if err != nil {
			return false, err
		}
		news := false
		for _, pid := range pids {
			if seen[pid] {
				continue
			}
			seen[pid], news = true, true // its children have what it has
			maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
			ended := errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
			if err != nil && !ended || writesFiles(maps) {
				return true, nil // or it cannot be told
			}
		}
		if !news {
			return false, nil
		}
	}
}

// writesFiles looks for shared, writable mappings of files in the text of
// /proc/PID/maps (proc(5)); memory that has a name only is none.
func writesFiles(maps []byte) bool {
	for line := range bytes.Lines(maps) {
		fields := bytes.Fields(line)
		if len(fields) < 6 || len(fields[1]) != 4 || fields[1][1] != 'w' || fields[1][3] != 's' {
			continue
		}
		file := fields[5]
		memory := slices.ContainsFunc([]string{"/dev/", "/memfd:", "/SYSV"}, func(p string) bool { return bytes.HasPrefix(file, []byte(p)) })
		if file[0] == '/' && !memory {
			return true
		}
	}
	return false
}

// hold freezes a running container and returns what undoes it.
func (e *Engine) hold(ctx context.Context, c *container) (thaw func() error, err error) {
	if !c.running || c.paused || c.quiet != nil {
		return func() error { return nil }, nil
	}
	group, err := e.opts.Cgroups.Open(ctx, c.rec.ID)
	if err != nil {
		return nil, err
	}
	undo := func() error { return group.Thaw(context.WithoutCancel(ctx)) }
	if err := group.Freeze(ctx); err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}
