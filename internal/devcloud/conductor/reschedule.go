package conductor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/scheduler"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// retriesExceeded says that a build may try no more hosts.
type retriesExceeded struct{ reason string }

// Error is worded as Nova's MaxRetriesExceeded.
func (e *retriesExceeded) Error() string { return "Exceeded maximum number of retries. " + e.reason }

// Unwrap returns the class.
func (e *retriesExceeded) Unwrap() error { return errdefs.ErrExhausted }

// retry is a build that has failed on a host, as the host hands it back.
type retry struct {
	instance objects.Instance
	spec     objects.RequestSpec
	filters  map[string]any
	// hosts are the alternates that are left; nil when the host knew of none.
	hosts []objects.Selection
	known bool
	// args go to the next host as they came.
	args map[string]json.RawMessage
}

// buildInstances is compute_task.build_instances, a cast: the arguments are
// read, the rest happens in the background.
func (c *Conductor) buildInstances(ctx context.Context, req *messaging.Request) (any, error) {
	retries, err := decodeRetries(req)
	if err != nil {
		return nil, builtin("ValueError", "build_instances: %v", err)
	}
	return nil, c.begin(ctx, func(ctx context.Context) {
		for _, r := range retries {
			if err := c.tryNext(ctx, req.Context, r); err != nil {
				c.abandon(ctx, r.instance.UUID(), err)
			}
		}
	})
}

func decodeRetries(req *messaging.Request) ([]retry, error) {
	var instances []objects.Instance
	var lists [][]objects.Selection
	var spec objects.RequestSpec
	for name, into := range map[string]any{"instances": &instances, "host_lists": &lists, "request_spec": &spec} {
		if err := req.Arg(name, into); err != nil {
			return nil, err
		}
	}
	var out []retry
	for n, i := range instances {
		if i.Object == nil || i.UUID() == "" {
			return nil, fmt.Errorf("no instance: %w", errdefs.ErrInvalid)
		}
		r := retry{instance: i, spec: spec, args: map[string]json.RawMessage{}, known: n < len(lists) && lists[n] != nil}
		if r.known {
			r.hosts = lists[n]
		}
		for _, name := range []string{"image", "admin_password", "injected_files", "requested_networks", "security_groups"} {
			if raw, ok := req.Args[name]; ok {
				r.args[name] = raw
			}
		}
		v, err := objects.Decode(req.Args["filter_properties"])
		if err != nil {
			return nil, err
		}
		r.filters, _ = v.(map[string]any)
		if r.filters == nil {
			r.filters = map[string]any{}
		}
		out = append(out, r)
	}
	return out, nil
}

// tryNext gives the instance to the next host that has room.
func (c *Conductor) tryNext(ctx context.Context, rc messaging.RequestContext, r retry) error {
	id := r.instance.UUID()
	if r.spec.Object == nil {
		var err error
		if r.spec, err = c.o.Store.RequestSpec(ctx, id); err != nil {
			return err
		}
	}
	tried, err := c.count(r)
	if err != nil {
		return err
	}
	hosts, err := c.nextHosts(ctx, r)
	if err != nil {
		return err
	}
	tried["hosts"] = append(listOf(tried["hosts"]), []string{hosts[0].ServiceHost(), hosts[0].Node()})
	r.filters["retry"], r.filters["limits"] = tried, map[string]any{}
	args := map[string]any{"request_spec": r.spec, "filter_properties": r.filters}
	for name, raw := range r.args {
		args[name] = raw
	}
	if err := c.launch(ctx, rc, id, hosts, args); err != nil {
		return errors.Join(err, c.o.Scheduler.Free(ctx, id))
	}
	return nil
}

// count is the retry entry of the next attempt.
func (c *Conductor) count(r retry) (map[string]any, error) {
	old, _ := r.filters["retry"].(map[string]any)
	n, _ := old["num_attempts"].(json.Number)
	done, _ := n.Int64()
	last, _ := old["exc_reason"].(string)
	if done+1 > int64(c.o.MaxAttempts) {
		return nil, &retriesExceeded{fmt.Sprintf("Exceeded max scheduling attempts %d for instance %s. Last exception: %s",
			c.o.MaxAttempts, r.instance.UUID(), last)}
	}
	return map[string]any{"num_attempts": done + 1, "hosts": listOf(old["hosts"])}, nil
}

func listOf(v any) []any {
	l, _ := v.([]any)
	return l
}

// nextHosts allocates at the first alternate with room; what follows it are
// the alternates that are left. A host that knew of no alternates has the
// scheduler asked.
func (c *Conductor) nextHosts(ctx context.Context, r retry) ([]objects.Selection, error) {
	id := r.instance.UUID()
	if !r.known {
		chosen, err := c.o.Scheduler.Select(ctx, scheduler.Request{Spec: r.spec, Instances: []string{id}, Alternates: c.o.MaxAttempts - 1})
		if err != nil {
			return nil, err
		}
		return chosen[0], nil
	}
	for n, host := range r.hosts {
		err := c.o.Scheduler.Claim(ctx, r.spec, id, host)
		if err == nil {
			return r.hosts[n:], nil
		}
		if !errors.Is(err, errdefs.ErrConflict) {
			return nil, err
		}
		c.o.Log.Info().Str(logging.Instance, id).Str(logging.Host, host.ServiceHost()).Msg("an alternate has no room any more")
	}
	return nil, &retriesExceeded{fmt.Sprintf("Exhausted all hosts available for retrying build failures for instance %s.", id)}
}

// abandon ends a build that found no further host.
func (c *Conductor) abandon(ctx context.Context, id string, cause error) {
	c.o.Log.Warn().Err(cause).Str(logging.Instance, id).Msg("instance is not built")
	err := errors.Join(c.fail(ctx, id, cause), c.release(ctx, id))
	if err != nil {
		c.o.Log.Error().Err(err).Str(logging.Instance, id).Msg("the failure of a build is not written, the next start will")
	}
}

// release gives the networks of an instance without a host back.
func (c *Conductor) release(ctx context.Context, id string) error {
	if c.o.Networks == nil {
		return nil
	}
	if err := c.o.Networks.Release(ctx, id); err != nil {
		return fmt.Errorf("release networks of %s: %w", id, err)
	}
	return nil
}
