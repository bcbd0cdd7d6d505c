package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
)

// Written streams what a container that does not run has written over its
// image, as a layer (engine/layer): CreateRequest.Written makes the same disk of
// it elsewhere. Sockets, devices and names that look like whiteouts are left
// out. As long as the container is not started the stream is the same each
// time.
//
// errdefs.ErrConflict if the container runs. The stream ends with
// errdefs.ErrAborted when the container is started or deleted, or when another
// stream of it begins. Close it in every case.
func (e *Engine) Written(ctx context.Context, id ContainerID) (io.ReadCloser, error) {
	ctx, dir, release, err := e.useWritten(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("what container %s has written: %w", id, err)
	}
	r, w := io.Pipe()
	// the reader may be slow: the end of the use must not wait for it
	unblock := context.AfterFunc(ctx, func() { _ = w.CloseWithError(context.Cause(ctx)) })
	e.watching.Go(func() {
		err := diffTo(ctx, dir, w)
		unblock()
		release()
		if err != nil {
			err = fmt.Errorf("what container %s has written: %w", id, err)
		}
		_ = w.CloseWithError(err)
	})
	return r, nil
}

// useWritten finds the directory with the changes of a container. The context
// ends when it is about to be used by others; release must be called then.
func (e *Engine) useWritten(ctx context.Context, id ContainerID) (_ context.Context, dir string, release func(), err error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return ctx, "", nil, err
	}
	defer unlock()
	if c.running {
		return ctx, "", nil, fmt.Errorf("it runs: %w", errdefs.ErrConflict)
	}
	e.copying.end(id) // some back ends have one copy of the changes
	if dir, err = e.opts.Snapshots.Changes(ctx, string(id)); err != nil {
		return ctx, "", nil, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	use := &copying{stop: stop, done: make(chan struct{})}
	e.copying.add(id, use)
	return ctx, dir, sync.OnceFunc(func() {
		e.copying.remove(id, use)
		close(use.done)
		stop(nil)
	}), nil
}

// writtenLimits bound what a container may bring along: its own disk was
// bounded where it comes from, and is here.
func writtenLimits() layer.Limits {
	return layer.Limits{Bytes: 1 << 50, Entries: 1 << 32, Depth: 2048}
}

// diskWith makes a disk that has been written to, when it is given its id.
func (e *Engine) diskWith(ctx context.Context, chain []string, limit snapshot.Limit, from io.Reader) func(id string) error {
	return func(id string) error {
		if id == "" {
			return nil
		}
		release := e.layers.hold(chain...)
		defer release()
		if err := e.unpacked(ctx, chain); err != nil {
			return err
		}
		return e.opts.Snapshots.PrepareWith(ctx, id, chain, limit, func(dir string) error {
			to, err := os.Open(dir)
			if err != nil {
				return err
			}
			_, err = e.unpackLayer(ctx, to, from, layer.Options{Limits: writtenLimits()})
			if err == nil {
				err = failpoint.Hit("engine.create.written")
			}
			return errors.Join(err, to.Close())
		})
	}
}
