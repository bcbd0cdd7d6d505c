package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/logging"
	"github.com/gantry-project/gantry/internal/undo"
)

// Create makes a container that does not run: its record, ids and disk. On error nothing is left. A present id is
// errdefs.ErrAlreadyExists, an unknown image errdefs.ErrNotFound, a limit of
// the disk that is too small to hold anything errdefs.ErrInvalid. What the
// request says was written is read to its end; its errors are passed on.
func (e *Engine) Create(ctx context.Context, req CreateRequest) error {
	c, unlock, err := e.acquire(ctx, req.ID)
	if err != nil {
		return err
	}
	defer unlock()
	c, err = e.create(ctx, c, req, nil)
	if err != nil {
		return err
	}
	e.dropUnused(c)
	return nil
}

// Run is Create and Start in one, and faster: what a start needs is made while
// the record is written. Its errors are theirs; nothing is left then.
func (e *Engine) Run(ctx context.Context, req CreateRequest, start StartRequest) error {
	c, unlock, err := e.acquire(ctx, req.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if c, err = e.create(ctx, c, req, func(ctx context.Context, id string, l cgroup.Limits) *grouping {
		return e.groupSoon(ctx, id, l, start.Nesting)
	}); err != nil {
		return err
	}
	if err := e.startNow(ctx, c, start); err != nil {
		return errors.Join(err, e.delete(context.WithoutCancel(ctx), c, req.ID))
	}
	return nil
}

// create is Create of who holds the lock of c, which is nil if there is none.
// With group the control group is made, too, for a start that follows at once.
func (e *Engine) create(ctx context.Context, c *container, req CreateRequest, group func(context.Context, string, cgroup.Limits) *grouping) (_ *container, err error) {
	if c != nil {
		return nil, fmt.Errorf("create container %s: %w", req.ID, errdefs.ErrAlreadyExists)
	}
	if req.Disk.Bytes < 0 || req.Disk.Inodes < 0 {
		return nil, fmt.Errorf("create container %s: disk of %d bytes and %d inodes: %w", req.ID, req.Disk.Bytes, req.Disk.Inodes, errdefs.ErrInvalid)
	}
	if err := e.CheckRuntime(req.Runtime); err != nil {
		return nil, fmt.Errorf("create container %s: %w", req.ID, err)
	}
	var undone undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("create container %s: %w", req.ID, err), undone.Unwind(ctx))
		}
	}()

	defer e.images.hold(req.Image)() // until the record names it
	img, err := e.opts.Store.Image(ctx, req.Image)
	if err != nil {
		return nil, err
	}
	end, err := e.begin(ctx, opCreate, string(req.ID), nil)
	if err != nil {
		return nil, err
	}
	// first pushed, last undone
	undone.Push("intent", func(context.Context) error { end(); return nil })
	if err := failpoint.Hit("engine.create.begin"); err != nil {
		return nil, err
	}
	disk := e.enforceable(req.Disk)
	c = &container{}
	if req.Runtime == "" {
		c.made = e.nursery.TakeNamespaces() // in any case while the record is written
		undone.Push("namespaces", func(context.Context) error { c.made.Close(); return nil })
	}
	if group != nil {
		c.grouping = group(ctx, string(req.ID), req.Limits)
		undone.Push("control group", c.grouping.drop)
	}
	var makeDisk func(id string) error
	if req.Written == nil {
		makeDisk = e.diskSoon(ctx, img.Chain, disk)
	} else {
		makeDisk = e.diskWith(ctx, img.Chain, disk, req.Written)
	}
	undone.Push("disk without a name", func(context.Context) error { _ = makeDisk(""); return nil })
	// the record comes first: a disk that has a name is found by it
	rec, err := e.opts.Store.CreateContainer(ctx, store.Container{
		ID: string(req.ID), Image: req.Image, Chain: img.Chain, Labels: req.Labels, Limits: req.Limits, Created: time.Now(),
		Disk: store.Disk(req.Disk), DiskEnforced: store.Disk(disk),
		Runtime: req.Runtime,
	})
	if err != nil {
		return nil, err
	}
	undone.Push("record", func(ctx context.Context) error { return e.opts.Store.DeleteContainer(ctx, rec.ID) })
	if err := failpoint.Hit("engine.create.record"); err != nil {
		return nil, err
	}
	if err := makeDisk(rec.ID); err != nil {
		return nil, err
	}
	undone.Push("disk", func(ctx context.Context) error { return e.opts.Snapshots.Remove(ctx, rec.ID) })
	if err := failpoint.Hit("engine.create.disk"); err != nil {
		return nil, err
	}
	undone.Release()
	end()
	c.rec = rec
	e.remember(req.ID, c)
	e.bus.Publish(Event{Kind: EventCreate, ID: req.ID})
	return c, nil
}

// diskSoon begins to make a disk over layers that the caller's image holds. The returned function gives it to a container
// or, without an id, drops it; it does so once.
func (e *Engine) diskSoon(ctx context.Context, chain []string, limit snapshot.Limit) func(id string) error {
	stager, ok := e.opts.Snapshots.(snapshot.Stager)
	if !ok {
		return func(id string) error {
			if id == "" {
				return nil
			}
			release := e.layers.hold(chain...)
			defer release()
			if err := e.unpacked(ctx, chain); err != nil {
				return err
			}
			return e.opts.Snapshots.Prepare(ctx, id, chain, limit)
		}
	}
	var staged snapshot.Staged
	var err error
	made := make(chan struct{})
	e.watching.Go(func() {
		// after made: who removes a layer waits for the disk to have a name
		defer e.layers.hold(chain...)()
		defer close(made)
		if err = e.unpacked(ctx, chain); err != nil {
			return
		}
		if staged, err = stager.Stage(ctx, chain, limit); err != nil {
			return
		}
		if err = failpoint.Hit("engine.create.staged"); err != nil {
			staged.Drop()
		}
	})
	return func(id string) error {
		<-made
		taken := staged
		staged = nil
		switch {
		case err != nil:
			return err
		case taken == nil:
			return nil
		case id == "":
			taken.Drop()
			return nil
		}
		return taken.Name(id)
	}
}

// grouping is a control group on its way.
type grouping struct {
	made  chan struct{} // closed when the others are valid
	group cgroup.Group
	err   error
}

// groupSoon makes a container's control group, with the devices of nesting or
// without, in the background.
func (e *Engine) groupSoon(ctx context.Context, id string, limits cgroup.Limits, nested bool) *grouping {
	g := &grouping{made: make(chan struct{})}
	e.watching.Go(func() {
		defer close(g.made)
		g.group, g.err = e.opts.Cgroups.Create(ctx, id, withNesting(e.limits(limits), nested))
	})
	return g
}

func (g *grouping) wait() (cgroup.Group, error) {
	<-g.made
	return g.group, g.err
}

// drop removes the group, and what is in it.
func (g *grouping) drop(ctx context.Context) error {
	group, err := g.wait()
	if err != nil {
		return nil //nolint:nilerr // there is none
	}
	return errors.Join(group.Kill(ctx), group.Delete(ctx))
}

// namespaces makes and pins the user and network namespaces, unless they are
// there already, for who needs paths of both: after a reboot of the host they
// are not.
func (e *Engine) namespaces(ctx context.Context, rec store.Container) error {
	_, _, err := process.CreateNamespaces(ctx, e.nsDir(ContainerID(rec.ID)), idMaps(rec), idMaps(rec))
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil
	}
	return err
}

// idMaps are those of users and of groups.
func idMaps(rec store.Container) []process.IDMap {
	return []process.IDMap{{ContainerID: 0, HostID: rec.IDBase, Size: store.IDBlock}}
}

// NetNS returns a path of the container's network namespace: the one that it
// runs in, or else one that it makes for the next start. From then on it
// outlives the container's process, until Delete or the end of this boot.
func (e *Engine) NetNS(ctx context.Context, id ContainerID) (string, error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := e.pinNetwork(ctx, c); err != nil {
		return "", fmt.Errorf("network namespace of container %s: %w", id, err)
	}
	_, net := process.NamespacePaths(e.nsDir(id))
	return net, nil
}

func (e *Engine) pinNetwork(ctx context.Context, c *container) error {
	if c.rec.Runtime != "" {
		return e.namespaces(ctx, c.rec)
	}
	user, network, err := process.OpenPinned(e.nsDir(ContainerID(c.rec.ID)))
	if errors.Is(err, errdefs.ErrNotFound) {
		user, network, err = e.networkOf(c)
		if err == nil {
			_, err = process.PinNetwork(e.nsDir(ContainerID(c.rec.ID)), network)
		}
	}
	linux.CloseAll([]*os.File{user, network})
	return err
}

// networkOf opens the network namespace that a container runs in, or a new one
// with its user namespace.
func (e *Engine) networkOf(c *container) (user, network *os.File, err error) {
	if c.running {
		network, err = process.NetworkOf(c.process())
		return nil, network, err
	}
	made := e.takeNamespaces(c)
	defer e.letGo(made)
	return made.Open(idMaps(c.rec), idMaps(c.rec))
}

// Delete ends the container and removes all of it. An absent one is success;
// what a lost record has left of it goes too.
func (e *Engine) Delete(ctx context.Context, id ContainerID) error {
	c, unlock, err := e.acquire(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	return e.delete(ctx, c, id)
}

// delete is Delete of who holds the lock of c, which is nil if there is none.
func (e *Engine) delete(ctx context.Context, c *container, id ContainerID) error {
	end, err := e.begin(ctx, opDelete, string(id), nil)
	switch {
	case errors.Is(err, errdefs.ErrExhausted):
		// what makes room is not refused for want of it
		e.opts.Log.Warn().Err(err).Str(logging.Container, string(id)).Msg("delete without an intent")
	case err != nil:
		return fmt.Errorf("delete container %s: %w", id, err)
	default:
		defer end()
	}
	if err := failpoint.Hit("engine.delete.begin"); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	remove := e.removeAll
	if c != nil && c.running {
		exit, err := e.end(ctx, string(id))
		if err != nil {
			return fmt.Errorf("delete container %s: %w", id, err)
		}
		remove = e.removeEnded
		c.asked = true
		// the record is about to go: how the process ended is for those who wait
		c.recordExit(exit)
		e.tellExit(c)
		if c.done != nil {
			close(c.done)
		}
	}
	if c != nil {
		c.awaitRecord()
	}
	if err := remove(ctx, string(id)); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	e.remember(id, nil)
	e.exec.drop(id)
	if c != nil {
		e.bus.Publish(Event{Kind: EventDelete, ID: id})
	}
	return nil
}

// removeAll removes everything that carries the id, whatever of it exists. The
// record goes last, so that an interrupted removal is found again.
func (e *Engine) removeAll(ctx context.Context, id string) error {
	if _, err := e.end(ctx, id); err != nil {
		return err
	}
	return e.removeEnded(ctx, id)
}

// removeEnded is removeAll of what has no process left.
func (e *Engine) removeEnded(ctx context.Context, id string) error {
	cid := ContainerID(id)
	if err := failpoint.Hit("engine.delete.ended"); err != nil {
		return err
	}
	if err := errors.Join(
		e.opts.Runner.Forget(ctx, id),
		e.unmount(ctx, cid),
		e.ungroup(ctx, id),
		process.RemoveNamespaces(e.nsDir(cid)),
	); err != nil {
		return err
	}
	if err := failpoint.Hit("engine.delete.unmounted"); err != nil {
		return err
	}
	if err := errors.Join(e.opts.Snapshots.Remove(ctx, id), e.removeConsole(cid)); err != nil {
		return err
	}
	if err := failpoint.Hit("engine.delete.record"); err != nil {
		return err
	}
	return e.opts.Store.DeleteContainer(ctx, id)
}
