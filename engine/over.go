package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// overThat locks the container whose disk is to be the root of a start of c.
// The lock of c is held; nobody takes the two in the other order, since nobody
// who holds the lock of a root wants that of whom it is lent to.
func (e *Engine) overThat(ctx context.Context, c *container, req StartRequest) (*container, func(), error) {
	if err := ownRuntime(c); err != nil {
		return nil, nil, err
	}
	if req.Over == ContainerID(c.rec.ID) || !filepath.IsAbs(req.OwnAt) || filepath.Clean(req.OwnAt) == "/" {
		return nil, nil, fmt.Errorf("over container %s with its own disk at %q: %w", req.Over, req.OwnAt, errdefs.ErrInvalid)
	}
	over, release, err := e.existing(ctx, req.Over)
	if err != nil {
		return nil, nil, err
	}
	err = ownRuntime(over)
	if err == nil && over.running {
		err = fmt.Errorf("over container %s: it runs: %w", req.Over, errdefs.ErrConflict)
	}
	if err == nil {
		err = e.unmount(ctx, req.Over) // of copies
	}
	if err == nil {
		err = e.roots.await(ctx, req.Over)
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return over, release, nil
}

// layOver makes the root of the disk of over, and mounts that of c where the
// runner finds it: the first process gets a clone of the mount.
func (e *Engine) layOver(ctx context.Context, c, over *container, g *ground) (err error) {
	if g.root, err = e.takeRoot(ctx, c, over.rec.ID, g.user); err != nil {
		return err
	}
	at := e.rootfs(ContainerID(c.rec.ID))
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	if err := e.opts.Snapshots.Mount(ctx, c.rec.ID, at, idsIn(c, g.user)); err != nil {
		return err
	}
	g.own = at
	return nil
}

// idsIn are the ids of a container by an open user namespace, which stays open
// while they are used.
func idsIn(c *container, user *os.File) snapshot.IDs {
	return snapshot.IDs{UserNS: fmt.Sprintf("/proc/self/fd/%d", user.Fd()), Root: c.rec.IDBase}
}
