package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/driver/local"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/ovs"
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

// openHost opens the host; moves is where others fetch instances, empty for nowhere.
func openHost(ctx context.Context, cfg *config.Config, images local.ImageSource, moves string, m *meters, log zerolog.Logger) (_ *host, err error) {
	h := &host{}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	root := cfg.Gantry.StorePath
	h.engine, err = openEngine(ctx, engineConfig{
		root: root, cgroup: cfg.Gantry.CgroupName, images: imageLimits{
			bytes: cfg.Gantry.ImageMaxBytes, entries: cfg.Gantry.ImageMaxEntries, depth: cfg.Gantry.ImageMaxDepth,
			ratio: cfg.Gantry.ImageMaxRatio, time: cfg.Gantry.ImageMaxTime,
		},
		snapshotter: cfg.Gantry.Snapshotter, diskLimit: cfg.Gantry.DiskLimit,
		runtimes: cfg.Gantry.Runtimes, view: cfg.Gantry.GuestView,
	}, log)
	if err != nil {
		return nil, err
	}
	h.closes = append(h.closes, func() error { h.engine.close(); return nil })

	dedicated, shared, err := local.ParseProcessors(cfg.Compute.CPUDedicatedSet, cfg.Compute.CPUSharedSet)
	if err == nil && len(dedicated)+len(shared) > 0 && cfg.Default.ReservedHostCPUs != 0 {
		err = fmt.Errorf("reserved_host_cpus cannot be set beside them: %w", errdefs.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("[compute] cpu_dedicated_set, cpu_shared_set: %w", err)
	}
	node, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name of this host: %w", err)
	}
	network, err := ovs.New(netbridge.New(netbridge.Options{}), ovs.Options{
		Connection: cfg.OVS.Connection, Timeout: cfg.OVS.Timeout, Isolate: cfg.OVS.Isolate, Dir: filepath.Join(cfg.Default.StatePath, "ovs"),
	})
	if err != nil {
		return nil, fmt.Errorf("[os_vif_ovs] ovsdb_connection: %w", err)
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.closes = append(h.closes, func() error { stop(); return nil })
	h.driver = local.New(life, local.Options{
		Engine: h.engine.engine, Network: network, Images: images, Node: node, StorePath: root,
		ConsoleBytes: cfg.Gantry.ConsoleLogBytes, PidsPerVCPU: cfg.Gantry.PidsPerVCPU, StartGrace: cfg.Gantry.StartGrace, InjectPassword: cfg.Gantry.InjectPassword, Log: log,
		CrashDumpBytes: cfg.Gantry.CrashDumpBytes,
		Suspend:        local.SuspendMode(cfg.Gantry.Suspend),
		SnapshotFormat: local.SnapshotFormat(cfg.Gantry.SnapshotFormat),
		MoveAddress:    moves,
		Dedicated:      dedicated,
		Shared:         shared,
		RefuseImages:   cfg.Glance.Verify,
		OnImage:        m.image,
	})
	return h, nil
}
