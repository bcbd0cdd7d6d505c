package compute

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/conductor"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// Tasks is what is left to the conductor; *conductor.Conductor is one.
type Tasks interface {
	// Build takes over instances that are rows.
	Build(ctx context.Context, rc messaging.RequestContext, b conductor.BuildRequest) error
	// Unshelve finds a host for an offloaded instance in task unshelving, which
	// boots it from an image (Glance's dictionary).
	Unshelve(ctx context.Context, rc messaging.RequestContext, instance string, image map[string]any) error
	// Resize finds a host for an instance in task resize_prep that is to have
	// another flavor (Nova's Flavor object).
	Resize(ctx context.Context, rc messaging.RequestContext, instance string, flavor *objects.Object) error
	// DeleteUnhosted ends an instance that no compute host can end.
	// errdefs.ErrConflict when it has got a host meanwhile.
	DeleteUnhosted(ctx context.Context, rc messaging.RequestContext, instance string) error
}

// computeTopic is where compute hosts listen (nova/compute/rpcapi.py).
const computeTopic = "compute"

// requestContext is the caller as compute hosts and the conductor see it
// (nova/context.py, to_dict).
func requestContext(r *rest.Request) messaging.RequestContext {
	c := r.Caller
	fields := map[string]any{
		"user": c.UserID, "user_id": c.UserID, "project_id": c.ProjectID, "tenant": c.ProjectID,
		"user_name": c.UserName, "project_name": c.ProjectName,
		"user_domain": c.UserDomainID, "project_domain": c.ProjectDomainID, "domain": nil,
		"is_admin": c.Admin(), "is_admin_project": true, "read_only": false, "show_deleted": false, "read_deleted": "no",
		"roles": c.Roles, "auth_token": c.Token, "request_id": r.ID, "global_request_id": nil, "resource_uuid": nil,
		"remote_address": r.RemoteAddr, "timestamp": time.Now().UTC().Format(secondsWithZeros), "service_catalog": []any{},
		"quota_class": nil, "instance_lock_checked": false, "system_scope": nil,
		"user_identity": fmt.Sprintf("%s %s - %s %s", c.UserID, c.ProjectID, c.UserDomainID, c.ProjectDomainID),
	}
	raw := make(map[string]json.RawMessage, len(fields))
	for k, v := range fields {
		data, err := json.Marshal(v)
		if err != nil { // texts and booleans only: it cannot be
			continue
		}
		raw[k] = data
	}
	return messaging.NewRequestContext(raw)
}

// call asks a compute host and waits for its answer.
func (s *Service) call(ctx context.Context, r *rest.Request, host, method, version string, args map[string]any, result any) error {
	return s.o.RPC.Call(ctx, requestContext(r), messaging.Target{Topic: computeTopic, Server: host, Version: version}, method, args, result)
}

// cast tells the host of an instance to do something. It is sent even when the
// caller goes away in the meantime: the row says already that it is being done.
func (s *Service) cast(ctx context.Context, r *rest.Request, i objects.Instance, method, version string, args map[string]any) error {
	args["instance"] = i
	err := s.o.RPC.Cast(context.WithoutCancel(ctx), requestContext(r), messaging.Target{Topic: computeTopic, Server: i.Host(), Version: version}, method, args)
	if err != nil {
		return fmt.Errorf("tell host %s to %s %s: %w", i.Host(), method, i.UUID(), err)
	}
	return nil
}

// instanceName is Instance.name with Nova's default template.
func instanceName(i objects.Instance) string { return fmt.Sprintf("instance-%08x", i.ID()) }
