package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/driver/local"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/content"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot"
	"github.com/gantry-project/gantry/engine/snapshot/overlay"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/netbridge"
)

// host is this machine: its engine, its links and the driver over both.
type host struct {
	driver *local.Driver
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
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	// the store comes first: its lock keeps a second service away
	db, err := store.Open(filepath.Join(root, "gantry.db"))
	if err != nil {
		return nil, err
	}
	h.closes = append(h.closes, db.Close)
	snapshots, err := overlay.New(filepath.Join(root, "snapshots"))
	if err != nil {
		return nil, err
	}
	h.closes = append(h.closes, func() error { snapshots.Close(); return nil })
	if err := probe(ctx, snapshots, root); err != nil {
		return nil, err
	}
	blobs, err := content.NewDir(filepath.Join(root, "content"))
	if err != nil {
		return nil, err
	}
	groups, err := cgroup.New(ctx, cgroup.Options{Name: cfg.Gantry.CgroupName})
	if err != nil {
		return nil, err
	}
	runner, err := openKeeper(ctx, root)
	if err != nil {
		return nil, err
	}
	e, err := engine.Open(ctx, engine.Options{
		Root: root, Runner: runner, Cgroups: groups, Snapshots: snapshots, Store: db, Content: blobs,
		ImageLimits: image.Limits{LayerBytes: cfg.Gantry.ImageMaxBytes},
		LayerLimits: layer.Limits{Bytes: cfg.Gantry.ImageMaxBytes, Entries: cfg.Gantry.ImageMaxEntries},
		Log:         log,
	})
	if err != nil {
		return nil, err
	}
	h.closes = append(h.closes, func() error { e.Close(); return nil })
	log.Info().Str("cgroups", groups.Describe()).Str("store", root).Msg("engine open")

	node, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name of this host: %w", err)
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.closes = append(h.closes, func() error { stop(); return nil })
	h.driver = local.New(life, local.Options{
		Engine: e, Network: netbridge.New(netbridge.Options{}), Images: images, Node: node, StorePath: root,
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
