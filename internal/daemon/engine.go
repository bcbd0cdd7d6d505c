package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/driver/local"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/engine/cgroup"
	diskjail "github.com/gantry-project/gantry/engine/disk/jail"
	"github.com/gantry-project/gantry/engine/image"
	"github.com/gantry-project/gantry/engine/jail"
	"github.com/gantry-project/gantry/engine/keeper"
	"github.com/gantry-project/gantry/engine/layer"
	layerjail "github.com/gantry-project/gantry/engine/layer/jail"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
)

// EngineOptions of Engine.
type EngineOptions struct {
	// StorePath is the engine's root, absolute.
	StorePath string
	// Socket to serve; empty is that of the root.
	Socket string
	// Cgroup is the name of the control group of all containers.
	Cgroup string
	// Snapshotter is auto, overlay, btrfs or copy; DiskLimit is auto, quota,
	// loop or none. Empty is auto.
	Snapshotter, DiskLimit string
	// GuestView is full, files or off, as [gantry] guest_view has them; empty is
	// off.
	GuestView string

	Version string
	Debug   bool
	// Failpoints are those of internal/failpoint, for tests.
	Failpoints string
}

// Engine runs the engine with its keeper and its socket, without OpenStack,
// until ctx ends; containers go on.
func Engine(ctx context.Context, o EngineOptions) error {
	log := logging.New(os.Stderr, o.Debug).With().Int("pid", os.Getpid()).Logger()
	if err := failpoint.Arm(o.Failpoints); err != nil {
		return err
	}
	switch o.GuestView {
	case "":
		o.GuestView = viewOff
	case viewFull, viewFiles, viewOff:
	default:
		return fmt.Errorf("guest view %.32q is none of full, files and off: %w", o.GuestView, errdefs.ErrInvalid)
	}
	h, err := openEngine(ctx, engineConfig{
		root: o.StorePath, cgroup: o.Cgroup, snapshotter: o.Snapshotter, diskLimit: o.DiskLimit, view: o.GuestView,
	}, log)
	if err != nil {
		return err
	}
	defer h.close()
	socket := o.Socket
	if socket == "" {
		socket = filepath.Join(o.StorePath, api.SocketName)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return serveSocket(ctx, socket, api.Options{Backend: h.engine, Version: o.Version, Owner: ownerByLabel, Log: log})
	})
	group.Go(func() error { return logEnds(ctx, h.engine, log) })
	err = group.Wait()
	log.Info().Msg("engine stops; containers go on")
	return err
}

// logEnds reads the ends of containers, which nobody else wants here.
func logEnds(ctx context.Context, e *engine.Engine, log zerolog.Logger) error {
	for {
		select {
		case ev := <-e.Events():
			log.Info().Str(logging.Container, string(ev.ID)).Int("code", ev.Exit.Code).Bool("oom", ev.Exit.OOM).Bool("asked", ev.Asked).Msg("container has ended")
		case <-ctx.Done():
			return nil
		}
	}
}

// ownerByLabel finds the instances of a compute service among the containers.
func ownerByLabel(labels map[string]string) string {
	if local.Owns(labels) {
		return "Nova"
	}
	return ""
}

// engineConfig is what an engine needs to be told.
type engineConfig struct {
	root, cgroup string
	// snapshotter and diskLimit as in the configuration
	snapshotter, diskLimit string
	images                 imageLimits
	// runtimes are other OCI runtimes as [gantry] runtimes has them
	runtimes string
	// view is [gantry] guest_view
	view string
}

// imageLimits bound an image; 0 is the engine's default, and no bound of time.
type imageLimits struct {
	bytes, entries, ratio int64
	depth                 int
	time                  time.Duration
}

// engineHost is an open engine with all below it.
type engineHost struct {
	engine *engine.Engine
	keeper *keeper.Client
	closes []func() error
}

// close lets everything go in the reverse order; containers go on.
func (h *engineHost) close() {
	for i := len(h.closes) - 1; i >= 0; i-- {
		_ = h.closes[i]() // the process ends: the kernel takes the rest
	}
}

// openEngine opens the engine on its root, with its keeper.
func openEngine(ctx context.Context, c engineConfig, log zerolog.Logger) (_ *engineHost, err error) {
	began := time.Now()
	h := &engineHost{}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if err := os.MkdirAll(c.root, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	runtimes, err := parseRuntimes(c.runtimes)
	if err != nil {
		return nil, err
	}
	// the store comes first: its lock keeps a second service away
	db, err := store.Open(filepath.Join(c.root, "gantry.db"))
	if err != nil {
		return nil, err
	}
	h.closes = append(h.closes, db.Close)
	journal, err := openJournal(c.root)
	if err != nil {
		return nil, err
	}
	h.closes = append(h.closes, journal.Close)
	snapshots, choice, err := openSnapshots(ctx, c.root, c.snapshotter, c.diskLimit)
	if err != nil {
		return nil, err
	}
	h.closes = append(h.closes, func() error { snapshots.Close(); return nil })
	logSnapshots(log, snapshots, choice, c.diskLimit)
	groups, err := cgroup.New(ctx, cgroup.Options{Name: c.cgroup})
	if err != nil {
		return nil, err
	}
	runner, err := openKeeper(ctx, c.root)
	if err != nil {
		return nil, err
	}
	h.keeper = runner
	guestView, closeView := openView(ctx, c.root, c.cgroup, c.view, groups, log)
	h.closes = append(h.closes, closeView)
	walls := jail.New(jail.Options{})
	h.engine, err = engine.Open(ctx, engine.Options{
		Root: c.root, Runner: runner, Cgroups: groups, Snapshots: snapshots, Store: db,
		Journal:     journal,
		Runtimes:    runtimes,
		ImageLimits: image.Limits{LayerBytes: c.images.bytes, Ratio: c.images.ratio},
		LayerLimits: layer.Limits{Bytes: c.images.bytes, Entries: c.images.entries, Depth: c.images.depth},
		ImageTime:   c.images.time,
		Unpack:      layerjail.New(walls).Apply,
		ReadDisk:    diskjail.New(walls).Convert,
		WriteDisk:   diskjail.New(walls),
		View:        guestView,
		Log:         log,
	})
	if err != nil {
		return nil, err
	}
	h.closes = append(h.closes, func() error { h.engine.Close(); return nil })
	log.Info().Str("cgroups", groups.Describe()).Str("store", c.root).Dur(logging.Took, time.Since(began)).Msg("engine open")
	return h, nil
}
