package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/compute/tracker"
	"github.com/gantry-project/gantry/driver/placement"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/metrics"
)

// meters are what the service counts; docs/monitoring.md lists them.
type meters struct {
	registry   metrics.Registry
	operations *metrics.Histogram
	received   *metrics.Counter
	failed     *metrics.Counter
	placement  *metrics.Counter
	images     *metrics.Counter
	starts     *metrics.Counter
}

// durations are bounds of operations (seconds): from a stop to a build that
// fetches a large image.
func durations() []float64 { return []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300} }

func newMeters(version string) *meters {
	m := &meters{}
	r := &m.registry
	r.Gauge("gantry_build_info", "Always 1; which gantry this is.", []string{"version", "go"}, func(_ context.Context, set metrics.Set) error {
		set(1, version, runtime.Version())
		return nil
	})
	m.operations = r.Histogram("gantry_operation_duration_seconds", "Operations that have ended, by RPC method (or build) and outcome.", durations(), "method", "outcome")
	m.received = r.Counter("gantry_rpc_received_total", "Requests that were taken.", "method")
	m.failed = r.Counter("gantry_rpc_failed_total", "Requests that were answered with an error, refusals included.", "method")
	m.placement = r.Counter("gantry_placement_updates_total", "Comparisons of this host with Placement, with what was written.", "outcome")
	m.images = r.Counter("gantry_image_requests_total", "Images that operations needed: those that were here (hit), and those that had to be fetched (miss).", "result")
	m.starts = r.Counter("gantry_engine_starts_total", "First processes that the engine has started.")
	return m
}

// observe counts an operation (compute.Options.Observe).
func (m *meters) observe(method, outcome string, took time.Duration) {
	m.operations.Observe(took.Seconds(), method, outcome)
}

// request counts one (messaging.ServerOptions.Observe).
func (m *meters) request(method string, err error) {
	m.received.Add(1, method)
	if err != nil {
		m.failed.Add(1, method)
	}
}

// image counts a request for one (local.Options.OnImage).
func (m *meters) image(hit bool) {
	result := "miss"
	if hit {
		result = "hit"
	}
	m.images.Add(1, result)
}

// countedReporter counts what is told to Placement.
type countedReporter struct {
	tracker.Reporter
	updates *metrics.Counter
}

// Reconcile implements tracker.Reporter.
func (r countedReporter) Reconcile(ctx context.Context, w placement.Wanted) (placement.Result, error) {
	result, err := r.Reporter.Reconcile(ctx, w)
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	r.updates.Add(1, outcome)
	return result, err
}

// ofHost adds what engine, keeper, consoles and broker are asked for.
func (m *meters) ofHost(h *host, w *wire, c consoles) {
	r := &m.registry
	r.Gauge("gantry_instances", "Instances on this host by state.", []string{"state"}, func(ctx context.Context, set metrics.Set) error {
		list, err := h.engine.engine.List(ctx)
		for _, state := range []engine.Status{engine.StatusRunning, engine.StatusStopped, engine.StatusPaused} {
			set(0, string(state))
		}
		for _, x := range list {
			set(1, string(x.Status))
		}
		return err
	})
	r.Gauge("gantry_image_cache_bytes", "Unpacked size of all images on this host.", nil, func(ctx context.Context, set metrics.Set) error {
		list, err := h.engine.engine.Images(ctx)
		set(0)
		for _, x := range list {
			set(float64(x.SizeBytes))
		}
		return err
	})
	r.Gauge("gantry_image_cache_images", "Images on this host.", nil, func(ctx context.Context, set metrics.Set) error {
		list, err := h.engine.engine.Images(ctx)
		set(float64(len(list)))
		return err
	})
	r.Gauge("gantry_keeper_up", "1 if the keeper, which owns the first processes of instances, answers.", nil, func(ctx context.Context, set metrics.Set) error {
		_, err := h.engine.keeper.Hello(ctx)
		set(truth(err == nil))
		return nil
	})
	r.Gauge("gantry_broker_connection_up", "1 for a connection to the message broker that is there.", []string{"connection"}, func(_ context.Context, set metrics.Set) error {
		for _, x := range w.connections() {
			set(truth(x.Up), x.Purpose)
		}
		return nil
	})
	r.Gauge("gantry_console_viewers", "Viewers that are connected to consoles of instances.", nil, func(_ context.Context, set metrics.Set) error {
		set(float64(c.server.Viewers()))
		return nil
	})
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// serve answers at an address, and counts starts, until done is called. An empty
// address is nobody who asks.
func (m *meters) serve(ctx context.Context, address string, e *engine.Engine, log zerolog.Logger) (done func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("[gantry] metrics_listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", &m.registry)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: idleTimeout, IdleTimeout: idleTimeout}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	events := e.Subscribe()
	ended := make(chan struct{}, 2)
	go func() {
		defer func() { ended <- struct{}{} }()
		for {
			ev, err := events.Next(life)
			if err != nil {
				return
			}
			if ev.Kind == engine.EventStart {
				m.starts.Add(1)
			}
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error().Err(err).Msg("metrics are not served any more")
		}
	}()
	log.Info().Str("address", l.Addr().String()).Msg("metrics are served")
	return func() {
		stop()
		_ = server.Close() // who asks now gets no answer
		<-ended
		<-ended
		events.Close()
	}, nil
}
