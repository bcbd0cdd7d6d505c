package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/logging"
)

// ground is what a first process is started on: its namespaces and its root. The
// engine's own runner gets them as open files, and nothing of them is mounted on
// the host; other runtimes, and criu, want paths there.
type ground struct {
	user, network *os.File // nil: they are pinned
	// root is the mount itself or, at a path, the directory.
	root *os.File
	path string // of the root on the host, "" without
	own  string // where the container's own disk is on the host, for a start over another one
}

// footing says what ground a start needs: with paths it has places on the host,
// and its root may be the disk of another container. For one that is nested the
// control group has the devices of nesting.
type footing struct {
	paths  bool
	over   *container
	nested bool
}

func (g *ground) close() { linux.CloseAll([]*os.File{g.user, g.network}) }

// under puts the ground under a spec. ns is where pinned namespaces are.
func (g *ground) under(spec *process.Spec, ns string) {
	if g.path != "" {
		spec.Rootfs = g.path
		spec.Namespaces = process.DefaultNamespaces(process.NamespacePaths(ns))
		return
	}
	spec.Root = g.root
	spec.Namespaces = process.DefaultNamespaces("", "")
	for i := range spec.Namespaces {
		switch n := &spec.Namespaces[i]; n.Kind {
		case process.UserNamespace:
			n.File = g.user
		case process.NetworkNamespace:
			n.File = g.network
		}
	}
}

// lay makes the ground of a start: the namespaces on their way, or with none the
// one that is pinned, and the root over them: the container's disk or, with its own beside
// it, that of over. unmount takes up both.
func (e *Engine) lay(ctx context.Context, c *container, made *process.Namespaces, over *container) (g ground, err error) {
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if made == nil {
		g.user, g.network, err = process.OpenPinned(e.nsDir(ContainerID(c.rec.ID)))
	} else {
		g.user, g.network, err = made.Open(idMaps(c.rec), idMaps(c.rec))
	}
	if err != nil {
		return g, err
	}
	if over != nil {
		err = e.layOver(ctx, c, over, &g)
		return g, err
	}
	g.root, err = e.takeRoot(ctx, c, c.rec.ID, g.user)
	return g, err
}

// takeNamespaces returns namespaces on their way, which the caller closes. The
// caller holds the container's lock.
func (e *Engine) takeNamespaces(c *container) *process.Namespaces {
	made := c.made
	c.made = nil
	if made == nil {
		made = e.nursery.TakeNamespaces()
	}
	return made
}

// letGo lets go of what takeNamespaces has returned, and makes some for the next
// start: nobody waits for either.
func (e *Engine) letGo(made *process.Namespaces) {
	e.watching.Go(func() {
		made.Close()
		e.nursery.Spare()
	})
}

// startSoon is for how long Create's namespaces wait for a start.
const startSoon = time.Second

// dropUnused lets go of the namespaces that Create has made, if nobody takes them
// soon: a network namespace is some 100 KiB of the kernel's memory.
func (e *Engine) dropUnused(c *container) {
	if c.made == nil {
		return
	}
	id := ContainerID(c.rec.ID)
	e.watching.Go(func() {
		soon := time.NewTimer(startSoon)
		defer soon.Stop()
		select {
		case <-soon.C:
		case <-e.life.Done():
		}
		unlock, err := e.locks.Lock(context.WithoutCancel(e.life), id)
		if err != nil {
			return
		}
		unused := c.made
		c.made = nil
		unlock()
		if unused != nil {
			unused.Close()
		}
	})
}

// layAt makes the ground of a start that needs paths.
func (e *Engine) layAt(ctx context.Context, c *container) (g ground, err error) {
	if err := e.namespaces(ctx, c.rec); err != nil {
		return g, err
	}
	if err := e.mount(ctx, c); err != nil {
		return g, err
	}
	g.path = e.rootfs(ContainerID(c.rec.ID))
	g.root, err = e.openRootfs(c)
	return g, err
}

func (e *Engine) openRootfs(c *container) (*os.File, error) {
	path := e.rootfs(ContainerID(c.rec.ID))
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// roots are the mounts of disks that are attached nowhere on the host: of
// containers that run, of which the mount is in their mount namespace, and of
// others that somebody copies files of. The zero value is ready.
//
// The last that lets go of an overlay writes its whole file system back. As long
// as the engine has the root open that is not the end of the container's
// process: who waits for that would wait for the disk.
type roots struct {
	mu   sync.Mutex
	m    map[ContainerID]*os.File      // guarded by mu
	ends map[ContainerID]chan struct{} // guarded by mu: closed when an old one is gone
}

func (r *roots) get(id ContainerID) *os.File {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.m[id]
}

func (r *roots) put(id ContainerID, root *os.File) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = map[ContainerID]*os.File{}
	}
	r.m[id] = root
}

// drop lets go of a root, by work in the background.
func (r *roots) drop(id ContainerID, background func(func())) {
	r.mu.Lock()
	defer r.mu.Unlock()
	root := r.m[id]
	if root == nil {
		return
	}
	delete(r.m, id)
	if r.ends == nil {
		r.ends = map[ContainerID]chan struct{}{}
	}
	before, done := r.ends[id], make(chan struct{})
	r.ends[id] = done
	background(func() {
		_ = root.Close() // the error of an O_PATH descriptor says nothing
		if before != nil {
			<-before
		}
		close(done)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.ends[id] == done {
			delete(r.ends, id)
		}
	})
}

// close lets go of all, for an engine that closes: the mounts of containers that
// run stay with them.
func (r *roots) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	linux.CloseAll(slices.Collect(maps.Values(r.m)))
	r.m = nil
}

// await returns when what was dropped is gone.
func (r *roots) await(ctx context.Context, id ContainerID) error {
	r.mu.Lock()
	done := r.ends[id]
	r.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the unmount of container %s: %w", id, context.Cause(ctx))
	}
}

// takeRoot makes the mount of a disk for a container, its own or another's, with
// the ids of a user namespace, and keeps it until unmount.
func (e *Engine) takeRoot(ctx context.Context, c *container, disk string, user *os.File) (*os.File, error) {
	id := ContainerID(c.rec.ID)
	if err := e.unmount(ctx, id); err != nil { // copies, and what an earlier version has left
		return nil, err
	}
	if err := e.roots.await(ctx, id); err != nil {
		return nil, err
	}
	root, err := e.opts.Snapshots.Root(ctx, disk, idsIn(c, user))
	if err != nil {
		return nil, err
	}
	e.roots.put(id, root)
	return root, nil
}

// holdRoot takes over the root of a container that an earlier engine has
// started, and what earlier versions had on the host for it.
func (e *Engine) holdRoot(ctx context.Context, c *container) {
	if c.rec.Runtime != "" {
		return
	}
	id := ContainerID(c.rec.ID)
	root, err := process.RootOf(c.process())
	if err == nil {
		e.roots.put(id, root)
		err = errors.Join(e.unmountPath(ctx, id), process.Unpin(e.nsDir(id)))
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		e.opts.Log.Warn().Err(err).Str(logging.Container, string(id)).Msg("take over the root of a container")
	}
}

// process is the one that the record names.
func (c *container) process() process.Process {
	return process.Process{Pid: c.rec.Pid, StartTime: c.rec.StartTime, BootID: c.rec.BootID}
}

// lookAt calls fn with the root of a running container, of which it must look at
// the mount itself only, not at what is mounted in it.
func (e *Engine) lookAt(c *container, fn func(root *os.File) error) error {
	root := e.roots.get(ContainerID(c.rec.ID))
	if root == nil {
		var err error
		if root, err = e.openRootfs(c); err != nil {
			return err
		}
		defer func() { _ = root.Close() }()
	}
	return fn(root)
}
