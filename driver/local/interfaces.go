package local

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
)

// ChangeNetwork implements driver.InterfaceAttacher. The namespace of an
// instance is there before its first process and stays when that ends, so a
// running guest and a stopped one differ only in who reads the resolver's
// configuration.
func (d *Driver) ChangeNetwork(ctx context.Context, change driver.NetworkChange) error {
	if err := d.changeNetwork(ctx, change); err != nil {
		return fmt.Errorf("change network of %s: %w", change.UUID, err)
	}
	return nil
}

func (d *Driver) changeNetwork(ctx context.Context, change driver.NetworkChange) error {
	unlock, err := d.plugs.Lock(ctx, change.UUID)
	if err != nil {
		return err
	}
	defer unlock()
	id := container(change.UUID)
	s, err := d.opts.Engine.State(ctx, id)
	if err != nil {
		return err
	}
	netns, err := d.opts.Engine.NetNS(ctx, id)
	if err != nil {
		return err
	}
	after, err := d.networkPlan(ctx, change.UUID, netns, change.After)
	if err != nil {
		return err
	}
	if err := failpoint.Hit("interfaces.begin"); err != nil {
		return err
	}
	err = d.opts.Network.Set(ctx, after)
	if err == nil {
		err = failpoint.Hit("interfaces.plugged")
	}
	if err != nil {
		return errors.Join(err, d.plugAgain(ctx, change, netns))
	}
	d.reboots.plugged(change.UUID, change.After)
	if s.Status == engine.StatusRunning || s.Status == engine.StatusPaused {
		d.followResolver(ctx, id, change)
	}
	return nil
}

// plugAgain leads back to the network before a change that failed.
func (d *Driver) plugAgain(ctx context.Context, change driver.NetworkChange, netns string) error {
	ctx = context.WithoutCancel(ctx)
	before, err := d.networkPlan(ctx, change.UUID, netns, change.Before)
	if err == nil {
		err = d.opts.Network.Set(ctx, before)
	}
	if err != nil {
		return fmt.Errorf("back to the network before: %w", err)
	}
	return nil
}

const resolver = "/etc/resolv.conf"

// followResolver writes the resolver's configuration anew into a guest that
// runs, unless the guest has made it its own. What cannot be done is for the
// log: the next start writes it.
func (d *Driver) followResolver(ctx context.Context, id engine.ContainerID, change driver.NetworkChange) {
	before, after := resolvConf(change.Before), resolvConf(change.After)
	if len(after) == 0 || bytes.Equal(before, after) {
		return
	}
	log := d.opts.Log.With().Str(logging.Instance, string(change.UUID)).Logger()
	now, err := d.guestFile(ctx, id, resolver, len(before)+1)
	if errors.Is(err, errdefs.ErrConflict) || err == nil && !bytes.Equal(now, before) {
		log.Debug().Msg("the guest has a resolver configuration of its own")
		return
	}
	if err == nil {
		err = d.writeGuestFile(ctx, id, "/etc", "resolv.conf", after)
	}
	if err != nil {
		log.Warn().Err(err).Msg("resolver configuration of the guest was not changed, the next start will")
	}
}

// guestFile reads at most limit bytes of a regular file. One that is not there
// is empty, anything else errdefs.ErrConflict.
func (d *Driver) guestFile(ctx context.Context, id engine.ContainerID, path string, limit int) ([]byte, error) {
	r, err := d.opts.Engine.CopyOut(ctx, id, engine.CopyRequest{Path: path})
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	t := tar.NewReader(r)
	head, err := t.Next()
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case head.Typeflag != tar.TypeReg:
		return nil, fmt.Errorf("%s is no regular file: %w", path, errdefs.ErrConflict)
	}
	return io.ReadAll(io.LimitReader(t, int64(limit)))
}

func (d *Driver) writeGuestFile(ctx context.Context, id engine.ContainerID, dir, name string, data []byte) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
	if err == nil {
		_, err = w.Write(data)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	_, err = d.opts.Engine.CopyIn(ctx, id, engine.CopyRequest{Path: dir}, &b)
	return err
}
