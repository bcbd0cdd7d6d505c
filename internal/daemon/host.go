package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/driver/local"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/overlay"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/netbridge"
)

// host is this machine: its engine, its links and the driver over both.
type host struct {
	driver *local.Driver
	engine *engineHost
	closes []func() error
}

// close lets everything go in the reverse order; containers go on.
func (h *host) close() {
	for i := len(h.closes) - 1; i >= 0; i-- {
		_ = h.closes[i]() // the process ends: the kernel takes the rest
	}
}

func openHost(ctx context.Context, cfg *config.Config, images local.ImageSource, log zerolog.Logger) (_ *host, err error) {
	h := &host{}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	root := cfg.Gantry.StorePath
	h.engine, err = openEngine(ctx, engineConfig{
		root: root, cgroup: cfg.Gantry.CgroupName, imageBytes: cfg.Gantry.ImageMaxBytes, imageEntries: cfg.Gantry.ImageMaxEntries,
	}, log)
	if err != nil {
		return nil, err
	}
	h.closes = append(h.closes, func() error { h.engine.close(); return nil })

	node, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name of this host: %w", err)
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.closes = append(h.closes, func() error { stop(); return nil })
	h.driver = local.New(life, local.Options{
		Engine: h.engine.engine, Network: netbridge.New(netbridge.Options{}), Images: images, Node: node, StorePath: root,
		ConsoleBytes: cfg.Gantry.ConsoleLogBytes, PidsPerVCPU: cfg.Gantry.PidsPerVCPU, StartGrace: cfg.Gantry.StartGrace, Log: log,
	})
	return h, nil
}

// probe tries what every instance needs of the kernel and the file system, so
// that a host that cannot do it says so at the start and not to a tenant.
func probe(ctx context.Context, snapshots *overlay.Snapshotter, root string) error {
	dir, err := os.MkdirTemp(root, ".probe-")
	if err != nil {
		return fmt.Errorf("probe the host: %w", err)
	}
	ids := []process.IDMap{{ContainerID: 0, HostID: store.FirstID, Size: store.IDBlock}}
	user, _, err := process.CreateNamespaces(ctx, dir, ids, ids)
	if err == nil {
		err = snapshots.Probe(ctx, snapshot.IDs{UserNS: user, Root: store.FirstID})
	}
	if err := errors.Join(err, process.RemoveNamespaces(dir), removed(dir)); err != nil {
		return fmt.Errorf("probe the host: %w", err)
	}
	return nil
}

// removed removes a directory that may be gone already.
func removed(dir string) error {
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
