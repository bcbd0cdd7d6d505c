package conductor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

const (
	// serviceVersion is the level of a Zed service (nova/objects/service.py).
	serviceVersion = 64
	// reportInterval is how often a service reports (report_interval).
	reportInterval = 10 * time.Second
	// grace is what handlers get at the end.
	grace = 5 * time.Second
)

// Endpoints are served on topic "conductor".
func (c *Conductor) Endpoints() []messaging.Endpoint {
	return []messaging.Endpoint{
		{Version: "3.0", Methods: map[string]messaging.Handler{
			"object_class_action_versions": c.logged(c.classAction),
			"object_action":                c.logged(c.objectAction),
			"object_backport_versions":     c.logged(c.backport),
			"provider_fw_rule_get_all":     func(context.Context, *messaging.Request) (any, error) { return []any{}, nil },
		}},
		{Namespace: "compute_task", Version: "1.24", Methods: map[string]messaging.Handler{
			"build_instances": c.logged(c.buildInstances),
		}},
		messaging.BaseEndpoint("conductor"),
	}
}

// logged logs what goes wrong here. Exceptions that the caller knows how to take
// are no news, as in Nova (ExpectedException).
func (c *Conductor) logged(h messaging.Handler) messaging.Handler {
	return func(ctx context.Context, req *messaging.Request) (any, error) {
		res, err := h(ctx, req)
		if err == nil {
			return res, nil
		}
		level := zerolog.ErrorLevel
		if _, told := errors.AsType[*messaging.RemoteError](err); told {
			level = zerolog.DebugLevel
		}
		c.o.Log.WithLevel(level).Err(err).Str(logging.Method, req.Method).Str(logging.Request, req.Context.RequestID()).Msg("request of a compute host")
		return nil, err
	}
}

// SchedulerEndpoints are served on topic "scheduler": what compute hosts tell
// of their instances. We read it in the cell.
func (c *Conductor) SchedulerEndpoints() []messaging.Endpoint {
	methods := map[string]messaging.Handler{}
	for _, name := range []string{"update_instance_info", "delete_instance_info", "sync_instance_info", "update_aggregates", "delete_aggregate"} {
		methods[name] = func(context.Context, *messaging.Request) (any, error) { return nil, nil }
	}
	return []messaging.Endpoint{{Version: "4.5", Methods: methods}, messaging.BaseEndpoint("scheduler")}
}

// Serve repairs what a crash has left (Recover), then answers on topics
// conductor and scheduler until ctx ends, and keeps the records of these two
// services alive. ready is called once when compute hosts are heard.
func (c *Conductor) Serve(ctx context.Context, ready func()) error {
	if err := c.Recover(ctx); err != nil {
		return fmt.Errorf("serve conductor: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 3)
	running := 0
	for topic, endpoints := range map[string][]messaging.Endpoint{"conductor": c.Endpoints(), "scheduler": c.SchedulerEndpoints()} {
		s, err := messaging.NewServer(c.o.Transport, messaging.ServerOptions{
			Topics: []string{topic}, Host: c.o.Host, Endpoints: endpoints, Grace: grace,
			Log: c.o.Log.Level(max(c.o.Log.GetLevel(), zerolog.ErrorLevel)), // logged says the rest
		})
		if err != nil {
			return fmt.Errorf("serve conductor: %w", err)
		}
		running++
		go func() { ended <- s.Serve(ctx) }()
		select {
		case <-s.Ready():
		case err := <-ended:
			running--
			stop()
			return errors.Join(fmt.Errorf("serve %s: %w", topic, err), drain(ended, running))
		}
	}
	running++
	go func() { ended <- c.report(ctx) }()
	ready()
	err := <-ended
	stop()
	return errors.Join(err, drain(ended, running-1))
}

func drain(ended <-chan error, n int) (err error) {
	for range n {
		err = errors.Join(err, <-ended)
	}
	return err
}

// report keeps the service records of the conductor and the scheduler alive.
func (c *Conductor) report(ctx context.Context) error {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		for _, name := range []string{"conductor", "scheduler"} {
			if err := c.alive(ctx, name); err != nil && ctx.Err() == nil {
				c.o.Log.Error().Err(err).Str("service", name).Msg("sign of life is not written")
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Conductor) alive(ctx context.Context, name string) error {
	s, err := c.service(ctx, c.o.Host, "nova-"+name)
	if errors.Is(err, errdefs.ErrNotFound) {
		s, err = c.o.Store.CreateService(ctx, objects.NewService(c.o.Host, "nova-"+name, name, serviceVersion))
	}
	if err != nil {
		return err
	}
	_, err = c.o.Store.SaveService(ctx, s.ID(), map[string]any{"report_count": s.ReportCount() + 1, "version": serviceVersion})
	return err
}

// usable reports whether the compute service of a host is up.
func (c *Conductor) usable(ctx context.Context, host string) (bool, error) {
	s, err := c.service(ctx, host, "nova-compute")
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	return err == nil && cell.Up(s, time.Now()), err
}
