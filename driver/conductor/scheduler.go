package conductor

import (
	"context"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/logging"
)

// Scheduler tells all schedulers of this host's instances, which they keep for
// their affinity filters. A message that cannot be sent is logged and
// forgotten: a scheduler that was not told reads the database, and Sync repairs
// the rest. Safe for concurrent use.
//
// Source: nova/scheduler/rpcapi.py, 4.2.
type Scheduler struct {
	caller messaging.Caller
	host   string
	log    zerolog.Logger
}

// NewScheduler returns a client for the compute service of the given host.
func NewScheduler(caller messaging.Caller, host string, log zerolog.Logger) *Scheduler {
	return &Scheduler{caller: caller, host: host, log: log}
}

// InstanceUpdated says that the instance is on this host or has changed.
func (s *Scheduler) InstanceUpdated(ctx context.Context, rc messaging.RequestContext, inst *objects.Object) {
	s.cast(ctx, rc, "update_instance_info", map[string]any{
		"host_name": s.host, "instance_info": objects.NewInstanceList(inst),
	})
}

// InstanceDeleted says that the instance is no longer on this host.
func (s *Scheduler) InstanceDeleted(ctx context.Context, rc messaging.RequestContext, uuid string) {
	s.cast(ctx, rc, "delete_instance_info", map[string]any{"host_name": s.host, "instance_uuid": uuid})
}

// Sync names all instances of this host.
func (s *Scheduler) Sync(ctx context.Context, rc messaging.RequestContext, uuids []string) {
	if uuids == nil {
		uuids = []string{}
	}
	s.cast(ctx, rc, "sync_instance_info", map[string]any{"host_name": s.host, "instance_uuids": uuids})
}

func (s *Scheduler) cast(ctx context.Context, rc messaging.RequestContext, method string, args map[string]any) {
	t := messaging.Target{Topic: "scheduler", Fanout: true, Version: "4.2"}
	if err := s.caller.Cast(ctx, rc, t, method, args); err != nil {
		s.log.Debug().Err(err).Str(logging.Method, method).Msg("scheduler not told")
	}
}
