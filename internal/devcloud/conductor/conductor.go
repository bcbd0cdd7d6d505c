package conductor

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/scheduler"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Placement is what the conductor asks of placement; *placement.Service is one.
type Placement interface {
	// Free takes everything from a consumer; nothing there is success.
	Free(ctx context.Context, consumer string) error
	// Move gives a consumer of the type kind what another one holds.
	Move(ctx context.Context, from, to, kind string) error
	// Consumers lists those that have allocations at a provider.
	Consumers(ctx context.Context, provider string) ([]string, error)
}

// Groups knows the server groups. errdefs.ErrNotFound where there is none.
type Groups interface {
	scheduler.Groups
	// GroupByHint returns the group with that uuid or name.
	GroupByHint(ctx context.Context, hint string) (objects.InstanceGroup, error)
}

// Networks gives back what an instance has of networks, when no compute host
// can do it.
type Networks interface {
	// Release deletes the ports that were made for the instance and unbinds the
	// ones that the tenant made. None is success.
	Release(ctx context.Context, instance string) error
}

// Options of a Conductor.
type Options struct {
	// Transport reaches the compute hosts. It is left open.
	Transport messaging.Transport
	// Host is the conductor's name in events; default "conductor".
	Host      string
	Store     *cell.Store
	Scheduler *scheduler.Scheduler
	Placement Placement
	// Groups may be nil: there are none then.
	Groups Groups
	// Networks may be nil: instances without a host have no ports then.
	Networks Networks
	// MaxAttempts is how many hosts a build may try ([scheduler]max_attempts);
	// default 3.
	MaxAttempts int
	Log         zerolog.Logger
}

// Conductor serves compute hosts and does tasks. Safe for concurrent use.
type Conductor struct {
	o      Options
	client *messaging.Client

	mu     sync.Mutex
	closed bool // +checklocks:mu
	tasks  sync.WaitGroup
}

// New returns a conductor, which answers nobody before Serve. Close ends it.
func New(o Options) (*Conductor, error) {
	if o.Transport == nil || o.Store == nil || o.Scheduler == nil || o.Placement == nil {
		return nil, fmt.Errorf("new conductor: a part is missing: %w", errdefs.ErrInvalid)
	}
	if o.Host == "" {
		o.Host = "conductor"
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = 3
	}
	return &Conductor{
		o: o, client: messaging.NewClient(o.Transport, messaging.ClientOptions{Log: o.Log}),
	}, nil
}

// Close waits for the tasks that run and ends the client.
func (c *Conductor) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	done := make(chan struct{})
	go func() { defer close(done); c.tasks.Wait() }()
	select {
	case <-done:
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("close conductor: %w", ctx.Err()), c.client.Close(context.WithoutCancel(ctx)))
	}
	return c.client.Close(ctx)
}

// begin runs a task in the background; Close waits for it.
func (c *Conductor) begin(ctx context.Context, task func(context.Context)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("conductor is closed: %w", errdefs.ErrUnavailable)
	}
	c.tasks.Go(func() { task(context.WithoutCancel(ctx)) })
	return nil
}
