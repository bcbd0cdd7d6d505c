package daemon

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/compute"
	"github.com/gantry-project/gantry/driver/compute/periodic"
	"github.com/gantry-project/gantry/driver/compute/recovery"
	"github.com/gantry-project/gantry/driver/compute/service"
	"github.com/gantry-project/gantry/driver/compute/tracker"
	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
)

const (
	// grace is what running work gets when the service is asked to stop.
	grace = 10 * time.Second
	// retryPause stands between tries of a start that the control plane could
	// not answer.
	retryPause = 2 * time.Second
)

// Compute runs the compute service until ctx ends; instances go on. It returns
// an error when the service cannot start or must not: nothing has been changed
// then that a later start would not find. load reads the configuration, and is
// called again for each SIGHUP.
func Compute(ctx context.Context, load func() (*config.Config, error), version string) error {
	cfg, err := load()
	if err != nil {
		return err
	}
	log, sink, err := logger(cfg)
	if err != nil {
		return err
	}
	defer sink.close()
	if err := failpoint.Arm(cfg.Gantry.Failpoints); err != nil {
		return err
	}
	now := &settings{load: load, cfg: cfg, sink: sink, log: log}
	a, done, err := attend(ctx, attendantOptions{reread: now.reread, reportDir: now.reportDir, log: log})
	if err != nil {
		return err
	}
	defer done()
	return runCompute(ctx, computeOptions{cfg: cfg, version: version, log: log, attendant: a, open: openWire, ready: func() {}})
}

// computeOptions of runCompute.
type computeOptions struct {
	cfg       *config.Config
	version   string
	log       zerolog.Logger
	attendant *attendant
	// open connects to the control plane.
	open func(context.Context, *config.Config, zerolog.Logger) (*wire, error)
	// ready is called once messages are taken.
	ready func()
}

// runCompute runs the service.
func runCompute(ctx context.Context, o computeOptions) error {
	cfg, version, log := o.cfg, o.version, o.log
	describeProcess(&o.attendant.report, cfg, version)
	log.Info().Str("version", version).Str(logging.Host, cfg.Default.Host).Msg("compute service starts")

	cloud, err := newCloud(cfg, log)
	if err != nil {
		return err
	}
	defer cloud.close()
	moves := listenMoves(ctx, cfg, log)
	m := newMeters(version)
	host, err := openHost(ctx, cfg, cloud.images, moves.address(), m, log)
	if err != nil {
		return errors.Join(err, moves.close())
	}
	defer host.close()
	life, stop := context.WithCancel(ctx)
	waitMoves := moves.serve(life, host.driver, log)
	defer func() { stop(); waitMoves() }()
	wire, err := o.open(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer wire.close(ctx)
	describeHost(&o.attendant.report, host, wire)
	waitMirrors, err := keepMirrors(life, cfg.Gantry.MirrorFile, cfg.Default.StatePath, mirrorImages{cloud.glance}, mirrorEngine{host.engine.engine}, log)
	if err != nil {
		return err
	}
	defer func() { stop(); waitMirrors() }()
	screens, err := openConsoles(ctx, cfg, host.driver, log)
	if err != nil {
		return err
	}
	defer func() { _ = screens.server.Close() }() // it has no errors
	m.ofHost(host, wire, screens)
	endMetrics, err := m.serve(ctx, cfg.Gantry.MetricsListen, host.engine.engine, log)
	if err != nil {
		return err
	}
	defer endMetrics()
	s := &computeService{meters: m, consoles: screens, cfg: cfg, version: version, log: log, cloud: cloud, host: host, wire: wire, ready: o.ready, attendant: o.attendant}
	return s.run(ctx)
}

// adoptStandardLog takes what libraries print by package log, which is for
// those who look at them.
func adoptStandardLog(log zerolog.Logger) {
	stdlog.SetFlags(0)
	stdlog.SetOutput(debugWriter{log})
}

// debugWriter makes a line of what is printed.
type debugWriter struct{ log zerolog.Logger }

// Write implements io.Writer.
func (w debugWriter) Write(line []byte) (int, error) {
	w.log.Debug().Str("library", strings.TrimSpace(string(line))).Msg("a library says")
	return len(line), nil
}

// computeService is one run of the compute service.
type computeService struct {
	cfg     *config.Config
	version string
	log     zerolog.Logger
	cloud   *cloud
	host    *host
	wire    *wire
	ready   func()

	consoles  consoles
	attendant *attendant
	meters    *meters
}

// parts are what run together once the service has started.
type parts struct {
	record  *service.Service
	tracker *tracker.Tracker
	manager *compute.Manager
	server  *messaging.Server
	tasks   *periodic.Scheduler
}

func (s *computeService) run(ctx context.Context) error {
	p, err := s.prepare(ctx)
	if err != nil || p == nil {
		return err
	}
	s.watch(p)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.server.Serve(ctx) })
	group.Go(func() error {
		return serveSocket(ctx, filepath.Join(s.cfg.Gantry.StorePath, api.SocketName), api.Options{
			Backend: s.host.engine.engine, Version: s.version, Owner: novaOwns, NoCreate: noCreate, Log: s.log,
		})
	})
	group.Go(func() error { return p.tracker.Run(ctx) })
	group.Go(func() error { return p.manager.Watch(ctx) })
	group.Go(func() error { return p.record.Heartbeat(ctx) })
	group.Go(func() error { return p.tasks.Run(ctx) })
	group.Go(func() error {
		select {
		case <-p.server.Ready():
			s.log.Info().Msg("compute service ready")
			s.attendant.ready(s.wire.state)
			s.ready()
		case <-ctx.Done():
		}
		return nil
	})
	err = group.Wait()
	s.log.Info().Msg("compute service stops; instances go on")
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return errors.Join(err, p.manager.Close(ending))
}

// prepare brings the control plane and the host into agreement before the first
// message is taken. nil without an error means that ctx ended first.
func (s *computeService) prepare(ctx context.Context) (*parts, error) {
	p := s.assemble()
	restart := s.recovery(p)
	// Identify runs within Register, before the record is written: what the
	// record says of the past decides who we are.
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"adopt instances", restart.Adopt},
		{"register", p.record.Register},
		{"recover instances", restart.Run},
		{"take stock", p.tracker.Init},
	}
	for _, step := range steps {
		s.attendant.state("starting: " + step.name)
		if err := s.persist(ctx, step.name, step.run); err != nil {
			if ctx.Err() != nil {
				return nil, nil //nolint:nilnil,nilerr // asked to stop before the start was complete
			}
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	if err := s.serve(p); err != nil {
		return nil, err
	}
	return p, nil
}

// persist repeats a step of the start while the control plane is away.
func (s *computeService) persist(ctx context.Context, name string, run func(context.Context) error) error {
	for {
		err := run(ctx)
		if err == nil || !away(err) || ctx.Err() != nil {
			return err
		}
		s.log.Warn().Err(err).Str(logging.Step, name).Msg("the control plane does not answer; trying again")
		s.attendant.state("starting: " + name + ": waiting for the control plane")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryPause):
		}
	}
}

// assemble makes the parts that talk to the control plane.
func (s *computeService) assemble() *parts {
	d, conduct := s.cfg.Default, s.wire.conductor
	p := &parts{}
	p.tracker = tracker.New(tracker.Deps{Driver: s.host.driver, Conductor: conduct, Reporter: countedReporter{s.cloud.placement, s.meters.placement}}, tracker.Options{
		Host: d.Host, MyIP: d.MyIP, StatePath: d.StatePath,
		CPURatio: d.CPUAllocationRatio, RAMRatio: d.RAMAllocationRatio, DiskRatio: d.DiskAllocationRatio,
		InitialCPURatio: d.InitialCPURatio, InitialRAMRatio: d.InitialRAMRatio, InitialDiskRatio: d.InitialDiskRatio,
		ReservedCPUs: d.ReservedHostCPUs, ReservedMemoryMB: d.ReservedHostMemoryMB, ReservedDiskMB: d.ReservedHostDiskMB,
		CountFailedBuilds: s.cfg.Compute.BuildFailureThreshold > 0,
	}, s.log)
	p.record = service.New(conduct, service.Options{
		Host: d.Host, ReportInterval: d.ReportInterval, Version: s.cfg.Gantry.ServiceVersion,
		Admit:   p.tracker.Identify,
		OnState: func(st service.State) { p.tracker.SetDisabled(st.Disabled) },
	}, s.log)
	opts := compute.DefaultOptions(d.Host)
	opts.MyIP, opts.Observe = d.MyIP, s.meters.observe
	opts.MaxConcurrentBuilds, opts.MaxConcurrentSnapshots = d.MaxConcurrentBuilds, d.MaxConcurrentSnapshots
	opts.ShelvedOffloadTime = d.ShelvedOffloadTime
	opts.VIFPluggingTimeout, opts.VIFPluggingFatal = d.VIFPluggingTimeout, d.VIFPluggingIsFatal
	if s.cfg.VNC.Enabled {
		opts.VNCBaseURL = s.cfg.VNC.BaseURL
	}
	if s.cfg.SerialConsole.Enabled {
		opts.SerialBaseURL = s.cfg.SerialConsole.BaseURL
	}
	opts.ConsoleTokenTTL = s.cfg.ConsoleAuth.TokenTTL
	opts.ForceConfigDrive = d.ForceConfigDrive
	opts.BlockDevicesInNotifications = s.cfg.Events.BlockDevices
	opts.ShutdownTimeout, opts.InstanceNameTemplate = d.ShutdownTimeout, d.InstanceNameTemplate
	p.manager = compute.New(compute.Deps{
		Driver: s.host.driver, Conductor: conduct, Tracker: p.tracker, Ports: s.ports(),
		Images: imageStore{s.cloud.glance}, Scheduler: s.wire.scheduler, Notifier: s.wire.notifier, Versioned: s.wire.versioned,
		Peers: compute.NewPeers(s.wire.client), Consoles: s.consoles,
	}, opts, s.log)
	return p
}

// serve makes what takes messages and what runs by the clock.
func (s *computeService) serve(p *parts) error {
	server, err := messaging.NewServer(s.wire.transport, messaging.ServerOptions{
		Topics: []string{"compute", "compute-alt"}, Host: s.cfg.Default.Host, Endpoints: p.manager.Endpoints(),
		Log: s.log, ReplyRetry: s.cfg.Rabbit.MissingConsumerTimeout, Grace: grace, Observe: s.meters.request,
	})
	if err != nil {
		return err
	}
	p.server = server
	d := s.cfg.Default
	set := periodic.DefaultSettings(d.Host)
	set.UpdateResourcesInterval, set.SyncPowerStateInterval = d.UpdateResourcesInterval, d.SyncPowerStateInterval
	set.HealInstanceInfoCacheInterval, set.SchedulerSyncInterval = d.HealInstanceInfoInterval, d.SchedulerInstanceSync
	set.InstanceDeleteInterval, set.MaxInstanceDeleteAttempts = d.InstanceDeleteInterval, d.MaximumDeleteAttempts
	set.RunningDeletedInstancePollInterval = d.RunningDeletedPollInterval
	set.ReclaimInstanceInterval, set.InstanceBuildTimeout = d.ReclaimInstanceInterval, d.InstanceBuildTimeout
	set.ShelvedOffloadTime, set.ShelvedPollInterval = d.ShelvedOffloadTime, d.ShelvedPollInterval
	set.RescueTimeout = d.RescueTimeout
	set.ResizeConfirmWindow = d.ResizeConfirmWindow
	set.ImageCacheInterval = s.cfg.ImageCache.ManagerInterval
	set.ImageCache = driver.CacheLimits{KeepFor: s.cfg.ImageCache.MinimumAge, MaxBytes: s.cfg.Gantry.ImageCacheBytes}
	if !s.cfg.ImageCache.RemoveUnused {
		set.ImageCache.KeepFor = math.MaxInt64
	}
	tasks := periodic.NewTasks(periodic.Deps{
		Conductor: s.wire.conductor, Manager: p.manager, Driver: s.host.driver, Ports: s.ports(),
		Tracker: p.tracker, Schedulers: s.wire.scheduler, Images: s.host.driver, Log: s.log,
	}, set)
	p.tasks = periodic.NewScheduler(s.log, periodic.Options{FuzzyDelay: d.PeriodicFuzzyDelay}, tasks...)
	return nil
}

func (s *computeService) recovery(p *parts) *recovery.Recovery {
	return recovery.New(recovery.Deps{
		Driver: s.host.driver, Conductor: s.wire.conductor, Operations: p.manager, Ports: s.ports(),
		Tracker: p.tracker, Allocations: s.cloud.placement,
	}, recovery.Options{
		Host: s.cfg.Default.Host, Provider: p.tracker.NodeUUID, ResumeGuests: s.cfg.Default.ResumeGuestsStateOnHostBoot,
	}, s.log)
}

func (s *computeService) ports() ports {
	return ports{neutron: s.cloud.neutron, conductor: s.wire.conductor, host: s.cfg.Default.Host}
}

// wire is the connection to the broker and what speaks over it.
type wire struct {
	transport messaging.Transport
	client    *messaging.Client
	conductor *conductor.Client
	scheduler *conductor.Scheduler
	// unversioned and versioned notifications
	notifier, versioned *messaging.Notifier
}

func (w *wire) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	// the process ends: what cannot be said any more is not missed
	_ = errors.Join(w.client.Close(ctx), w.transport.Close())
}
