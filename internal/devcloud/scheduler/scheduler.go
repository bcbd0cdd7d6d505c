// Package scheduler chooses compute hosts for instances, as nova-scheduler
// does: placement says where there is room, filters what is possible there, and
// the emptiest host that is left wins. Placement alone decides capacity: a host
// is chosen when the instance's allocation is made.
//
// internal/devcloud/conductor uses it. Source: nova/scheduler/manager.py,
// filters/*.py, weights/*.py and utils.py of Zed.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/placement"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Placement is what the scheduler asks; *placement.Service is one.
type Placement interface {
	// Candidates returns ways to meet a request, none is no error.
	Candidates(ctx context.Context, r placement.Request) ([]placement.Candidate, error)
	// Allocate gives a consumer that instead of what it has;
	// errdefs.ErrConflict where there is no room any more.
	Allocate(ctx context.Context, c placement.Claim) error
	// Free takes everything from a consumer; nothing there is success.
	Free(ctx context.Context, consumer string) error
	// Consumers lists those that have allocations at a provider.
	Consumers(ctx context.Context, provider string) ([]string, error)
}

// Nodes is where the compute nodes and services are known; *cell.Store is one.
type Nodes interface {
	ComputeNodes(ctx context.Context, q cell.NodeQuery) ([]objects.ComputeNode, error)
	Services(ctx context.Context, q cell.ServiceQuery) ([]objects.Service, error)
}

// Groups knows the server groups.
type Groups interface {
	// GroupOf returns the server group that has the instance as a member, with
	// uuid, policy, _rules and members (uuids of instances); errdefs.ErrNotFound
	// if it is in none.
	GroupOf(ctx context.Context, instance string) (objects.InstanceGroup, error)
}

// Zones knows the availability zones.
type Zones interface {
	// Zones returns the zone of each host that an aggregate puts into one.
	// Other hosts are in DefaultZone.
	Zones(ctx context.Context) (map[string]string, error)
}

// DefaultZone is the zone of hosts that are in no other
// (default_availability_zone).
const DefaultZone = "nova"

// Options of a Scheduler. Groups and Zones may be nil: there are none then.
type Options struct {
	Placement Placement
	Nodes     Nodes
	Groups    Groups
	Zones     Zones
	Log       zerolog.Logger
}

// Scheduler chooses hosts, for one request at a time. Safe for concurrent use.
type Scheduler struct {
	o Options
	// turn holds one token: the right to choose. What one request has taken
	// the next one sees, so that the policies of server groups hold.
	turn chan struct{}
}

// New returns a scheduler.
func New(o Options) *Scheduler {
	s := &Scheduler{o: o, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// NoValidHost is the refusal of a request that no host can meet.
type NoValidHost struct {
	// Reason continues "No valid host was found. "; it may be empty.
	Reason string
}

// Error is worded as Nova's NoValidHost.
func (e *NoValidHost) Error() string { return "No valid host was found. " + e.Reason }

// Unwrap returns the class.
func (e *NoValidHost) Unwrap() error { return errdefs.ErrExhausted }

func notEnough() error { return &NoValidHost{Reason: "There are not enough hosts available."} }

// Request is a request for instances of one specification.
type Request struct {
	// Spec says what is needed: flavor, image, zone, hosts that are forced,
	// requested or ignored, tried ones (retry), server group by membership.
	Spec objects.RequestSpec
	// Instances are the consumers, by uuid; each gets a host.
	Instances []string
	// Alternates is how many more hosts each selection names.
	Alternates int
}

// Select chooses a host for each instance and allocates its resources there.
// Each result is the chosen Selection and then the alternates, which nothing
// is allocated at. If one instance finds no host, none has an allocation after
// and the error is a *NoValidHost.
func (s *Scheduler) Select(ctx context.Context, r Request) (_ [][]objects.Selection, err error) {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return nil, fmt.Errorf("select hosts: %w", ctx.Err())
	}
	defer func() { s.turn <- struct{}{} }()
	began := time.Now()
	out := make([][]objects.Selection, 0, len(r.Instances))
	defer func() {
		if err == nil {
			return
		}
		for _, id := range r.Instances[:len(out)] {
			err = errors.Join(err, s.o.Placement.Free(context.WithoutCancel(ctx), id))
		}
	}()
	hosts, err := s.candidates(ctx, r.Spec)
	if err != nil {
		return nil, err
	}
	for _, id := range r.Instances {
		list, err := s.place(ctx, r, id, hosts)
		if err != nil {
			return nil, err
		}
		out = append(out, list)
	}
	s.o.Log.Debug().Int("instances", len(out)).Int("hosts", len(hosts)).Dur(logging.Took, time.Since(began)).Msg("hosts selected")
	return out, nil
}

// place chooses among hosts for one instance.
func (s *Scheduler) place(ctx context.Context, r Request, id string, hosts []*host) ([]objects.Selection, error) {
	left, err := s.byGroup(ctx, id, hosts)
	if err != nil {
		return nil, err
	}
	rank(left)
	for n, h := range left {
		err := s.o.Placement.Allocate(ctx, claim(r.Spec, id, h.candidate.Allocations))
		if errors.Is(err, errdefs.ErrConflict) {
			continue // somebody was faster
		}
		if err != nil {
			return nil, fmt.Errorf("allocate for %s at %s: %w", id, h.node.Host(), err)
		}
		h.taken(r.Spec)
		out := []objects.Selection{h.selection()}
		for _, other := range left[n+1:] {
			if len(out) <= r.Alternates {
				out = append(out, other.selection())
			}
		}
		return out, nil
	}
	return nil, notEnough()
}

func claim(spec objects.RequestSpec, id string, allocations map[string]map[string]int64) placement.Claim {
	return placement.Claim{
		Consumer: id, Project: spec.String("project_id"), User: spec.String("user_id"), Type: "INSTANCE", Allocations: allocations,
	}
}

// Claim allocates for an instance at an alternate of an earlier selection;
// errdefs.ErrConflict when it has no room any more.
func (s *Scheduler) Claim(ctx context.Context, spec objects.RequestSpec, instance string, at objects.Selection) error {
	allocations, err := allocationsOf(at)
	if err != nil {
		return err
	}
	return s.o.Placement.Allocate(ctx, claim(spec, instance, allocations))
}

// Free takes an instance's allocation back; none is success.
func (s *Scheduler) Free(ctx context.Context, instance string) error {
	return s.o.Placement.Free(ctx, instance)
}

// Zone is the availability zone of a host.
func (s *Scheduler) Zone(ctx context.Context, name string) (string, error) {
	zones, err := s.zones(ctx)
	if err != nil {
		return "", err
	}
	if z := zones[name]; z != "" {
		return z, nil
	}
	return DefaultZone, nil
}

func (s *Scheduler) zones(ctx context.Context) (map[string]string, error) {
	if s.o.Zones == nil {
		return nil, nil
	}
	z, err := s.o.Zones.Zones(ctx)
	if err != nil {
		return nil, fmt.Errorf("read availability zones: %w", err)
	}
	return z, nil
}

// rank sorts hosts, best first: those that a soft policy prefers, those that
// have not failed lately, those with the most free memory, those with the
// fewest instances.
func rank(hosts []*host) {
	slices.SortStableFunc(hosts, func(a, b *host) int {
		return cmpAll(b.preference-a.preference, a.failed-b.failed, b.freeRAM-a.freeRAM, a.instances-b.instances,
			int64(strings.Compare(a.node.Host()+"/"+a.node.Node(), b.node.Host()+"/"+b.node.Node())))
	})
}

func cmpAll(differences ...int64) int {
	for _, d := range differences {
		switch {
		case d < 0:
			return -1
		case d > 0:
			return 1
		}
	}
	return 0
}
