package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/engine/transfer"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// errUnmounted ends copies whose container's disk is taken down.
var errUnmounted = fmt.Errorf("the container was started, stopped or deleted: %w", errdefs.ErrAborted)

// copies are the transfers that use containers' mounts. The zero value is ready.
type copies struct {
	mu sync.Mutex
	m  map[ContainerID]map[*copying]struct{} // guarded by mu
}

type copying struct {
	stop context.CancelCauseFunc
	done chan struct{} // closed when the mount is not in use any more
}

func (x *copies) add(id ContainerID, c *copying) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.m == nil {
		x.m = map[ContainerID]map[*copying]struct{}{}
	}
	if x.m[id] == nil {
		x.m[id] = map[*copying]struct{}{}
	}
	x.m[id][c] = struct{}{}
}

// remove reports whether it was the last one.
func (x *copies) remove(id ContainerID, c *copying) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.m[id], c)
	if len(x.m[id]) > 0 {
		return false
	}
	delete(x.m, id)
	return true
}

func (x *copies) any(id ContainerID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.m[id]) > 0
}

// end stops the copies of a container and returns when none uses its mount.
func (x *copies) end(id ContainerID) {
	x.mu.Lock()
	var all []*copying
	for c := range x.m[id] {
		all = append(all, c)
	}
	x.mu.Unlock()
	for _, c := range all {
		c.stop(errUnmounted)
		<-c.done
	}
}

// CopyRequest says what to copy.
type CopyRequest struct {
	// Path is absolute, in the container's own root file system: what is
	// mounted over it inside (/proc, /dev, volumes) is not seen. Links in it
	// are followed as the container's.
	Path   string
	Limits transfer.Limits
}

// CopyOut returns a tar stream of the file or directory, of a container that
// runs or not. The first entry has the last component of the path as its name;
// owners are the container's ids. The stream ends with an error where
// transfer.Out would, with errdefs.ErrAborted when the container is started,
// stopped or deleted meanwhile. Close it in every case.
func (e *Engine) CopyOut(ctx context.Context, id ContainerID, req CopyRequest) (io.ReadCloser, error) {
	ctx, use, err := e.useRoot(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("copy out of container %s: %w", id, err)
	}
	r, w := io.Pipe()
	// the reader may be slow: an end of the mount's use must not wait for it
	unblock := context.AfterFunc(ctx, func() { _ = w.CloseWithError(context.Cause(ctx)) })
	e.watching.Go(func() {
		_, err := transfer.Out(ctx, use.root, req.Path, use.ids, req.Limits, w)
		unblock()
		use.release()
		if err != nil {
			err = fmt.Errorf("copy out of container %s: %w", id, err)
		}
		_ = w.CloseWithError(err)
	})
	return r, nil
}

// CopyIn unpacks a tar stream into the directory at the path, of a container
// that runs or not, and returns when it has been read to its end. See
// transfer.In for what is refused; errdefs.ErrAborted says that the container
// was started, stopped or deleted meanwhile. What was unpacked before an error stays.
func (e *Engine) CopyIn(ctx context.Context, id ContainerID, req CopyRequest, r io.Reader) (transfer.Result, error) {
	ctx, use, err := e.useRoot(ctx, id)
	if err != nil {
		return transfer.Result{}, fmt.Errorf("copy in to container %s: %w", id, err)
	}
	// the writer may be slow: an end of the mount's use must not wait for it.
	// Reading r ends with the caller's close of it
	pr, pw := io.Pipe()
	unblock := context.AfterFunc(ctx, func() { _ = pw.CloseWithError(context.Cause(ctx)) })
	go func() {
		_, err := io.Copy(pw, r)
		_ = pw.CloseWithError(err)
	}()
	res, err := transfer.In(ctx, use.root, req.Path, use.ids, req.Limits, pr)
	unblock()
	use.release()
	if err == nil {
		// padding behind the end; the writer must not meet a closed pipe
		_, err = io.Copy(io.Discard, io.LimitReader(pr, 1<<20))
	}
	_ = pr.Close()
	if err != nil {
		return res, fmt.Errorf("copy in to container %s: %w", id, err)
	}
	return res, nil
}

// rootUse is the use of a container's root by one copy.
type rootUse struct {
	root    *os.File
	ids     transfer.IDs
	release func()
}

// useRoot opens the container's root: of one that runs a mount of its own,
// without what is mounted in it. The context ends when the disk is about to be
// unmounted or another start begins; release must be called then.
func (e *Engine) useRoot(ctx context.Context, id ContainerID) (context.Context, *rootUse, error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return ctx, nil, err
	}
	defer unlock()
	root, err := e.rootToCopy(ctx, c)
	if err != nil {
		return ctx, nil, errors.Join(err, e.unmountIdle(ctx, c))
	}
	copyCtx, stop := context.WithCancelCause(ctx)
	use := &copying{stop: stop, done: make(chan struct{})}
	e.copying.add(id, use)
	release := func() {
		_ = root.Close() // the error of an O_PATH descriptor says nothing
		last := e.copying.remove(id, use)
		close(use.done)
		stop(nil)
		if last {
			e.afterCopies(context.WithoutCancel(ctx), id)
		}
	}
	return copyCtx, &rootUse{root: root, ids: transfer.IDs{Base: c.rec.IDBase, Size: store.IDBlock}, release: sync.OnceFunc(release)}, nil
}

func (e *Engine) rootToCopy(ctx context.Context, c *container) (*os.File, error) {
	switch {
	case c.running && c.rec.Runtime == "":
		return process.CloneRoot(c.process())
	case c.running:
		return e.openRootfs(c)
	}
	root := e.roots.get(ContainerID(c.rec.ID))
	if root == nil {
		user, err := process.MakeUserNamespace(idMaps(c.rec), idMaps(c.rec))
		if err != nil {
			return nil, err
		}
		defer func() { _ = user.Close() }()
		if root, err = e.takeRoot(ctx, c, c.rec.ID, user); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Openat(int(root.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	return os.NewFile(uintptr(fd), "/"), nil
}

// afterCopies unmounts what was mounted for copies only.
func (e *Engine) afterCopies(ctx context.Context, id ContainerID) {
	c, unlock, err := e.acquire(ctx, id)
	if err != nil {
		return
	}
	defer unlock()
	if c == nil {
		return // deleted, and all of it with it
	}
	if err := e.unmountIdle(ctx, c); err != nil {
		e.opts.Log.Warn().Err(err).Str(logging.Container, string(id)).Msg("unmount after a copy")
	}
}

// unmountIdle unmounts the disk of a container of which nothing runs and
// nothing is copied. The caller holds the container's lock.
func (e *Engine) unmountIdle(ctx context.Context, c *container) error {
	id := ContainerID(c.rec.ID)
	if c.running || e.copying.any(id) {
		return nil
	}
	return e.unmount(ctx, id)
}
