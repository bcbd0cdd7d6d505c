package conductor

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/scheduler"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Nova's words for states and for the event that a failed choice of a host
// belongs to.
const (
	building   = "building"
	scheduling = "scheduling"
	deleting   = "deleting"
	buildEvent = "conductor_schedule_and_build_instances"
)

// BuildRequest is a request for servers that was accepted: their instances are
// in the cell, in building and scheduling, with a request spec each (of one
// flavor and image, the first is asked of the scheduler), their disks and the
// action "create" of rc's request id.
type BuildRequest struct {
	Instances []objects.Instance
	// Image is Glance's image as a dictionary, its own properties under
	// "properties"; empty for none.
	Image map[string]any
	// AdminPassword is shown to the tenant once.
	AdminPassword string
	// Files are pairs of a path and its content in base64.
	Files [][2]string
	// Networks is a NetworkRequestList; nil for none.
	Networks *objects.Object
	// SecurityGroups are names or ids.
	SecurityGroups []string
}

// Build schedules the instances, allocates their resources and tells the chosen
// hosts to build them. It returns when the work is taken; the rest happens in
// the background. Where no host is found, the instances become ERROR with a
// fault and an event that say so. A crash in the middle is repaired by Recover.
func (c *Conductor) Build(ctx context.Context, rc messaging.RequestContext, r BuildRequest) error {
	return c.begin(ctx, func(ctx context.Context) { c.build(ctx, rc, r) })
}

func (c *Conductor) build(ctx context.Context, rc messaging.RequestContext, r BuildRequest) {
	specs, err := c.specs(ctx, r.Instances)
	var chosen [][]objects.Selection
	if err == nil {
		chosen, err = c.o.Scheduler.Select(ctx, scheduler.Request{
			Spec: specs[0], Instances: uuids(r.Instances), Alternates: c.o.MaxAttempts - 1,
		})
	}
	for n, i := range r.Instances {
		if err != nil {
			c.bury(ctx, rc, i.UUID(), err)
			continue
		}
		args := r.args()
		args["request_spec"] = specs[n]
		args["filter_properties"] = firstTry(specs[n], chosen[n][0], c.o.MaxAttempts)
		err := c.launch(ctx, rc, i.UUID(), chosen[n], args)
		if err != nil {
			c.bury(ctx, rc, i.UUID(), errors.Join(err, c.o.Scheduler.Free(ctx, i.UUID())))
		}
	}
}

func (c *Conductor) specs(ctx context.Context, instances []objects.Instance) ([]objects.RequestSpec, error) {
	if len(instances) == 0 {
		return nil, fmt.Errorf("build of no instance: %w", errdefs.ErrInvalid)
	}
	out := make([]objects.RequestSpec, len(instances))
	for n, i := range instances {
		var err error
		if out[n], err = c.o.Store.RequestSpec(ctx, i.UUID()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func uuids(instances []objects.Instance) []string {
	out := make([]string, len(instances))
	for n, i := range instances {
		out[n] = i.UUID()
	}
	return out
}

// args are the arguments of build_and_run_instance that are the request's.
func (r BuildRequest) args() map[string]any {
	args := map[string]any{
		"image": r.Image, "admin_password": r.AdminPassword, "injected_files": r.Files,
		"requested_networks": r.Networks, "security_groups": r.SecurityGroups,
	}
	if r.Image == nil {
		args["image"] = map[string]any{}
	}
	if r.Files == nil {
		args["injected_files"] = []any{}
	}
	if r.SecurityGroups == nil {
		args["security_groups"] = []any{}
	}
	return args
}

// launch tells the first of chosen, where the instance has its allocation, to
// build it; args are the arguments that the caller knows. When the tenant has
// deleted the instance meanwhile, the allocation goes and it is no error.
func (c *Conductor) launch(ctx context.Context, rc messaging.RequestContext, id string, chosen []objects.Selection, args map[string]any) error {
	host := chosen[0]
	i, err := c.o.Store.SetInstance(ctx, id, cell.Expect{VMState: []string{building}, TaskState: []string{scheduling}},
		map[string]any{"availability_zone": host.String("availability_zone")})
	if _, moved := errors.AsType[*cell.StateError](err); moved || errors.Is(err, errdefs.ErrNotFound) {
		c.o.Log.Info().Str(logging.Instance, id).AnErr("state", err).Msg("instance was deleted while it was scheduled")
		return c.o.Scheduler.Free(ctx, id)
	}
	if err != nil {
		return err
	}
	devices, err := c.o.Store.BlockDevices(ctx, id)
	if err != nil {
		return err
	}
	args["instance"] = whole(i)
	args["block_device_mapping"] = list("BlockDeviceMappingList", devices[id])
	args["node"] = host.Node()
	args["limits"] = map[string]any{}
	args["host_list"] = plain(chosen[1:])
	args["accel_uuids"] = []string{}
	t := messaging.Target{Topic: "compute", Server: host.ServiceHost(), Version: "6.0"}
	if err := c.client.Cast(ctx, rc, t, "build_and_run_instance", args); err != nil {
		return err
	}
	c.o.Log.Info().Str(logging.Instance, id).Str(logging.Host, host.ServiceHost()).Msg("instance is sent to its host")
	return nil
}

// whole is an instance with everything that a compute host may read.
func whole(i objects.Instance) *objects.Object {
	attrs := make([]string, 0, len(joined))
	for _, f := range joined {
		if f != "fault" && f != "services" && f != "pci_devices" {
			attrs = append(attrs, f)
		}
	}
	return view(i, attrs)
}

// firstTry are the filter properties of a build on its first host. With a
// forced host, or one attempt, there is no retry: the compute host gives up at
// once.
func firstTry(spec objects.RequestSpec, host objects.Selection, most int) map[string]any {
	out := map[string]any{"limits": map[string]any{}}
	for _, field := range []string{"requested_destination", "ignore_hosts", "force_hosts", "force_nodes"} {
		if !spec.IsNull(field) {
			out[field] = spec.Get(field)
		}
	}
	if hints, ok := spec.Get("scheduler_hints").(map[string]any); ok && len(hints) > 0 {
		out["scheduler_hints"] = hints
	}
	if most > 1 && len(spec.StringList("force_hosts")) != 1 && len(spec.StringList("force_nodes")) != 1 {
		out["retry"] = map[string]any{"num_attempts": 1, "hosts": []any{[]string{host.ServiceHost(), host.Node()}}}
	}
	return out
}

// bury makes an instance that found no host ERROR, with an event and a fault.
func (c *Conductor) bury(ctx context.Context, rc messaging.RequestContext, id string, cause error) {
	log := c.o.Log.With().Str(logging.Instance, id).Str(logging.Request, rc.RequestID()).Logger()
	log.Warn().Err(cause).Msg("instance is not built")
	if err := errors.Join(c.failedEvent(ctx, rc, id, buildEvent, cause), c.fail(ctx, id, cause)); err != nil {
		log.Error().Err(err).Msg("the failure of a build is not written, the next start will")
	}
}

// failedEvent records an event of the instance that failed.
func (c *Conductor) failedEvent(ctx context.Context, rc messaging.RequestContext, id, name string, cause error) error {
	e := cell.Event{Instance: id, RequestID: rc.RequestID(), Name: name, Host: c.o.Host}
	_, err := c.o.Store.StartEvent(ctx, e)
	if err == nil {
		_, err = c.o.Store.FinishEvent(ctx, e, cell.EventResult{Failed: true, Details: clip(reason(cause)), Traceback: cause.Error()})
	}
	return err
}

// fault writes what a tenant reads of a failure.
func (c *Conductor) fault(ctx context.Context, id string, cause error) error {
	_, err := c.o.Store.AddFault(ctx, objects.NewInstanceFault(id, c.o.Host, 500, reason(cause), cause.Error()))
	return err
}

// fail writes a fault and makes a building instance ERROR. One that is being
// deleted, or is no more, is left alone.
func (c *Conductor) fail(ctx context.Context, id string, cause error) error {
	err := c.fault(ctx, id, cause)
	if err == nil {
		_, err = c.o.Store.SetInstance(ctx, id, cell.Expect{VMState: []string{building}, TaskState: []string{scheduling, ""}},
			map[string]any{"vm_state": "error", "task_state": nil})
	}
	if _, moved := errors.AsType[*cell.StateError](err); moved || errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// reason is what a tenant reads of a failure: Nova's words where it is one of
// Nova's, otherwise nothing but that it failed.
func reason(cause error) string {
	if e, ok := errors.AsType[*scheduler.NoValidHost](cause); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*retriesExceeded](cause); ok {
		return e.Error()
	}
	return errdefs.PublicText(cause, "An unexpected error occurred while the server was scheduled.")
}
