package compute

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/compute/schema"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// verb is one action on servers.
type verb struct {
	name, policy string
	// admin ones are for administrators only.
	admin bool
	// since and until are minor versions; 0 is no bound.
	since, until int
	// rules are for the body, nil for any.
	rules func(rest.Version) schema.Schema
	// ignoresLock says that it is done to locked servers too.
	ignoresLock bool
	// needs is the RPC method that a host must be able to do; empty is none.
	needs string
	// vm are the vm_states it is for, nil for any; tasks the task_states, nil
	// for none running.
	vm, tasks []string
	// anyTask and unlaunched lift Nova's usual conditions.
	anyTask, unlaunched bool
	run                 func(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error)
}

func (a verb) in(v rest.Version) bool {
	return v.AtLeast(2, a.since) && (a.until == 0 || !v.AtLeast(2, a.until+1))
}

// from are the tasks that it may begin in.
func (a verb) from() []string {
	switch {
	case a.anyTask:
		return nil
	case a.tasks != nil:
		return a.tasks
	}
	return []string{""}
}

// admits holds the lock and the states against an instance
// (nova/compute/api.py, check_instance_lock and check_instance_state).
func (a verb) admits(r *rest.Request, i objects.Instance) error {
	if !a.ignoresLock {
		if err := unlocked(r, i); err != nil {
			return err
		}
	}
	if a.vm != nil && !slices.Contains(a.vm, i.VMState()) {
		return wrongState(a.word(), i, "vm_state", i.VMState())
	}
	if from := a.from(); from != nil && !slices.Contains(from, i.TaskState()) {
		return wrongState(a.word(), i, "task_state", i.TaskState())
	}
	if !a.unlaunched && i.LaunchedAt().IsZero() {
		return wrongState(a.word(), i, "launched_at", "")
	}
	return nil
}

// word is the verb as it stands in refusals.
func (a verb) word() string {
	switch a.name {
	case "os-start":
		return "start"
	case "os-stop":
		return "stop"
	}
	return a.name
}

func only(name string, keywords ...schema.Keyword) func(rest.Version) schema.Schema {
	s := schema.Object(schema.Req(name, keywords...))
	return func(rest.Version) schema.Schema { return s }
}

// verbs is the table of all actions.
func (s *Service) verbs() map[string]verb {
	all := slices.Concat(s.powerVerbs(), s.stateVerbs(), s.imageVerbs(), s.shelfVerbs(), s.resizeVerbs(), s.consoleVerbs(), s.groupVerbs(), s.floatingVerbs(), s.addressVerbs(), s.refusedVerbs())
	out := make(map[string]verb, len(all))
	for _, a := range all {
		out[a.name] = a
	}
	return out
}

// told makes a verb that puts the instance into a task and tells its host.
func (s *Service) told(a verb, task, action, method string, args func(d *schema.Dict) map[string]any) verb {
	a.needs = method
	a.run = func(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
		if i.Host() == "" {
			return nil, conflict("Instance %s is not ready", i.UUID())
		}
		i, err := s.begin(ctx, i, a.word(), a.from(), map[string]any{"task_state": task, "progress": 0})
		if err != nil {
			return nil, err
		}
		with := map[string]any{}
		if args != nil {
			with = args(d)
		}
		if err := s.tell(ctx, r, i, action, method, with); err != nil {
			return nil, s.abandon(ctx, i, task, err)
		}
		return empty(http.StatusAccepted)
	}
	return a
}

// tell records an action and has the instance's host do it.
func (s *Service) tell(ctx context.Context, r *rest.Request, i objects.Instance, action, method string, args map[string]any) error {
	if err := s.record(ctx, r, i, action); err != nil {
		return err
	}
	return s.cast(ctx, r, i, method, "6.0", args)
}

// abandon ends a task that no host has heard of, and returns the cause.
func (s *Service) abandon(ctx context.Context, i objects.Instance, task string, cause error) error {
	_, err := s.o.Cell.SetInstance(context.WithoutCancel(ctx), i.UUID(), cell.Expect{TaskState: []string{task}}, map[string]any{"task_state": nil})
	return errors.Join(cause, err)
}

// powerVerbs are what a host does to a running or stopped server.
func (s *Service) powerVerbs() []verb {
	stopArgs := func(*schema.Dict) map[string]any { return map[string]any{"clean_shutdown": true} }
	return []verb{
		s.told(verb{name: "os-start", policy: "servers:start", vm: []string{vmStopped}}, "powering-on", "start", "start_instance", nil),
		s.told(verb{name: "os-stop", policy: "servers:stop", vm: []string{vmActive, vmError}}, "powering-off", "stop", "stop_instance", stopArgs),
		s.told(verb{name: "pause", policy: "os-pause-server:pause", vm: []string{vmActive}}, "pausing", "pause", "pause_instance", nil),
		s.told(verb{name: "unpause", policy: "os-pause-server:unpause", vm: []string{vmPaused}}, "unpausing", "unpause", "unpause_instance", nil),
		s.told(verb{name: "suspend", policy: "os-suspend-server:suspend", vm: []string{vmActive}}, "suspending", "suspend", "suspend_instance", nil),
		s.told(verb{name: "resume", policy: "os-suspend-server:resume", vm: []string{vmSuspended}}, "resuming", "resume", "resume_instance", nil),
		s.rescueVerb(),
		s.told(verb{name: "unrescue", policy: "os-unrescue", vm: []string{vmRescued}}, "unrescuing", "unrescue", "unrescue_instance", nil),
		s.rebootVerb(),
		s.restoreVerb(),
		{name: "rebuild", needs: "rebuild_instance", policy: "servers:rebuild", vm: []string{vmActive, vmStopped, vmError}, rules: rebuildSchema, run: s.rebuild},
	}
}

func (s *Service) rescueVerb() verb {
	rules := schema.Object(schema.Req("rescue",
		schema.Nullable(schema.Opt("adminPass", schema.String()...), schema.Opt("rescue_image_ref", schema.ID()...))...))
	a := verb{
		name: "rescue", policy: "os-rescue", vm: []string{vmActive, vmStopped, vmError},
		rules: func(rest.Version) schema.Schema { return rules },
	}
	a.needs = "rescue_instance"
	told := s.told(a, "rescuing", "rescue", "rescue_instance", func(d *schema.Dict) map[string]any {
		return map[string]any{"rescue_password": d.String("adminPass"), "rescue_image_ref": anyOf(d.Optional("rescue_image_ref")), "clean_shutdown": true}
	})
	a.run = func(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
		if err := s.rescueImage(ctx, r, d.Optional("rescue_image_ref")); err != nil {
			return nil, err
		}
		given := d.String("adminPass")
		if given == "" {
			given = password()
		}
		d2 := &schema.Dict{Values: map[string]any{"adminPass": given, "rescue_image_ref": d.Get("rescue_image_ref")}}
		if _, err := told.run(ctx, r, i, d2); err != nil {
			return nil, err
		}
		return rest.OK(map[string]string{"adminPass": given})
	}
	return a
}

// rescueImage says whether there is such an image, if one is named.
func (s *Service) rescueImage(ctx context.Context, r *rest.Request, id *string) error {
	if id == nil || *id == "" {
		return nil
	}
	_, err := s.o.Images.Image(ctx, r.Caller, *id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return badRequest("Requested rescue image '%s' is not supported", *id)
	}
	return err
}

func (s *Service) rebootVerb() verb {
	soft := []string{"", "rebooting", "reboot_pending", "reboot_started", "resuming", "rebooting_hard", "unpausing", "pausing", "suspending"}
	hard := []string{
		"", "rebooting", "reboot_pending", "reboot_started", "resuming", "rebooting_hard", "unpausing", "pausing", "suspending",
		"reboot_pending_hard", "reboot_started_hard",
	}
	a := verb{
		name: "reboot", policy: "servers:reboot", anyTask: true, unlaunched: true,
		rules: only("reboot", schema.Object(schema.Req("type", schema.Type("string"), schema.Enum("HARD", "Hard", "hard", "SOFT", "Soft", "soft")))...),
	}
	kind := func(name, task string, vm, tasks []string) verb {
		b := verb{name: "reboot", vm: vm, tasks: tasks}
		return s.told(b, task, "reboot", "reboot_instance", func(*schema.Dict) map[string]any {
			return map[string]any{"block_device_info": nil, "reboot_type": name}
		})
	}
	softly := kind("SOFT", "rebooting", []string{vmActive}, soft)
	harshly := kind("HARD", "rebooting_hard", []string{vmActive, vmStopped, vmPaused, vmSuspended, vmError}, hard)
	a.run = func(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
		how := harshly
		if t := d.String("type"); t == "SOFT" || t == "Soft" || t == "soft" {
			how = softly
		}
		if err := how.admits(r, i); err != nil {
			return nil, err
		}
		return how.run(ctx, r, i, d)
	}
	return a
}

func (s *Service) restoreVerb() verb {
	a := verb{name: "restore", policy: "os-deferred-delete:restore", vm: []string{vmSoftDeleted}}
	a.run = func(ctx context.Context, r *rest.Request, i objects.Instance, _ *schema.Dict) (*rest.Response, error) {
		change := map[string]any{"task_state": "restoring", "deleted_at": nil}
		if i.Host() == "" {
			change = map[string]any{"vm_state": vmActive, "task_state": nil, "deleted_at": nil}
		}
		i, err := s.begin(ctx, i, a.name, a.from(), change)
		if err != nil {
			return nil, err
		}
		if i.Host() == "" {
			err = s.record(ctx, r, i, "restore")
		} else if err = s.tell(ctx, r, i, "restore", "restore_instance", map[string]any{}); err != nil {
			err = s.abandon(ctx, i, "restoring", err)
		}
		if err != nil {
			return nil, err
		}
		return empty(http.StatusAccepted)
	}
	return a
}

// stateVerbs change the row only, or end it.
func (s *Service) stateVerbs() []verb {
	lockRules := func(v rest.Version) schema.Schema {
		if !v.AtLeast(2, 73) {
			return schema.Open()
		}
		return schema.Object(schema.Req("lock",
			schema.Nullable(schema.Opt("locked_reason", schema.Type("string"), schema.MinLen(1), schema.MaxLen(255)))...))
	}
	return []verb{
		{name: "lock", policy: "os-lock-server:lock", ignoresLock: true, anyTask: true, unlaunched: true, rules: lockRules, run: s.lock},
		{name: "unlock", policy: "os-lock-server:unlock", ignoresLock: true, anyTask: true, unlaunched: true, run: s.unlock},
		{
			name: "os-resetState", policy: "os-admin-actions:reset_state", admin: true, anyTask: true, unlaunched: true, ignoresLock: true,
			rules: only("os-resetState", schema.Object(schema.Req("state", schema.Type("string"), schema.Enum("active", "error")))...), run: s.resetState,
		},
		{name: "forceDelete", policy: "os-deferred-delete:force", anyTask: true, unlaunched: true, run: s.forceDelete},
		{name: "injectNetworkInfo", policy: "os-admin-actions:inject_network_info", admin: true, anyTask: true, unlaunched: true, run: s.injectNetworkInfo},
		{name: "resetNetwork", policy: "os-admin-actions:reset_network", anyTask: true, unlaunched: true, ignoresLock: true, run: goneAction},
		{
			name: "changePassword", policy: "os-admin-password", needs: "set_admin_password", vm: []string{vmActive},
			rules: only("changePassword", schema.Object(schema.Req("adminPass", schema.String()...))...), run: s.changePassword,
		},
		{
			name: "trigger_crash_dump", policy: "servers:trigger_crash_dump", needs: "trigger_crash_dump", since: 17, vm: []string{vmActive, vmPaused, vmRescued, vmResized, vmError},
			rules: only("trigger_crash_dump", schema.Null()...), run: s.crashDump,
		},
	}
}

func goneAction(context.Context, *rest.Request, objects.Instance, *schema.Dict) (*rest.Response, error) {
	return nil, rest.Errorf(http.StatusGone, "")
}

func (s *Service) lock(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
	by := "admin"
	if i.ProjectID() == r.Caller.ProjectID {
		by = "owner"
	}
	if i.String("locked_by") == "admin" && !r.Caller.Admin() {
		return empty(http.StatusAccepted) // it stays the administrator's
	}
	if err := s.record(ctx, r, i, "lock"); err != nil {
		return nil, err
	}
	_, err := s.o.Cell.UpdateInstance(ctx, i.UUID(), cell.Expect{}, func(row objects.Instance) error {
		row.Set("locked", true)
		row.Set("locked_by", by)
		if reason := d.String("locked_reason"); reason != "" {
			return row.PutSystemMetadata("locked_reason", reason)
		}
		return nil
	})
	if err != nil {
		return nil, lost(err, i.UUID())
	}
	return empty(http.StatusAccepted)
}

func (s *Service) unlock(ctx context.Context, r *rest.Request, i objects.Instance, _ *schema.Dict) (*rest.Response, error) {
	if i.String("locked_by") == "admin" {
		if err := allow(r.Caller.Admin(), "os-lock-server:unlock:unlock_override"); err != nil {
			return nil, err
		}
	}
	if err := s.record(ctx, r, i, "unlock"); err != nil {
		return nil, err
	}
	_, err := s.o.Cell.UpdateInstance(ctx, i.UUID(), cell.Expect{}, func(row objects.Instance) error {
		row.Set("locked", false)
		row.Set("locked_by", nil)
		if _, ok := row.SystemMetadata()["locked_reason"]; ok {
			return row.DropSystemMetadata("locked_reason")
		}
		return nil
	})
	if err != nil {
		return nil, lost(err, i.UUID())
	}
	return empty(http.StatusAccepted)
}

func (s *Service) resetState(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
	if _, err := s.o.Cell.SetInstance(ctx, i.UUID(), cell.Expect{}, map[string]any{"vm_state": d.String("state"), "task_state": nil}); err != nil {
		return nil, lost(err, i.UUID())
	}
	return empty(http.StatusAccepted)
}

func (s *Service) forceDelete(ctx context.Context, r *rest.Request, i objects.Instance, _ *schema.Dict) (*rest.Response, error) {
	if err := s.terminate(ctx, r, i); err != nil {
		return nil, err
	}
	return empty(http.StatusAccepted)
}

func (s *Service) injectNetworkInfo(ctx context.Context, r *rest.Request, i objects.Instance, _ *schema.Dict) (*rest.Response, error) {
	if i.Host() == "" {
		return nil, conflict("Instance %s is not ready", i.UUID())
	}
	if err := s.cast(ctx, r, i, "inject_network_info", "6.0", map[string]any{}); err != nil {
		return nil, err
	}
	return empty(http.StatusAccepted)
}

func (s *Service) crashDump(ctx context.Context, r *rest.Request, i objects.Instance, _ *schema.Dict) (*rest.Response, error) {
	if i.Host() == "" {
		return nil, conflict("Instance %s is not ready", i.UUID())
	}
	if err := s.tell(ctx, r, i, "trigger_crash_dump", "trigger_crash_dump", map[string]any{}); err != nil {
		return nil, err
	}
	return empty(http.StatusAccepted)
}

func (s *Service) changePassword(ctx context.Context, r *rest.Request, i objects.Instance, d *schema.Dict) (*rest.Response, error) {
	if i.Host() == "" {
		return nil, conflict("Instance %s is not ready", i.UUID())
	}
	i, err := s.begin(ctx, i, "changePassword", []string{""}, map[string]any{"task_state": "updating_password"})
	if err != nil {
		return nil, err
	}
	if err := s.record(ctx, r, i, "changePassword"); err != nil {
		return nil, s.abandon(ctx, i, "updating_password", err)
	}
	err = s.call(ctx, r, i.Host(), "set_admin_password", "6.0", map[string]any{"instance": i, "new_pass": d.String("adminPass")}, nil)
	if err != nil {
		return nil, hostAnswer(err, "Unable to set password on instance",
			refused{409, []string{"InstancePasswordSetFailed", "SetAdminPasswdNotSupported", "InstanceAgentNotEnabled"}})
	}
	return empty(http.StatusAccepted)
}

// refusedVerbs are those that no compute host of this cloud does (see able), and
// that are not done here either. They are held against the states and then
// refused before anything changes.
func (s *Service) refusedVerbs() []verb {
	running := []string{vmActive, vmStopped}
	return []verb{
		{name: "migrate", needs: "prep_resize", policy: "os-migrate-server:migrate", admin: true, vm: running},
		{name: "os-migrateLive", needs: "live_migration", policy: "os-migrate-server:migrate_live", admin: true, vm: []string{vmActive, vmPaused}},
		{name: "evacuate", needs: "rebuild_instance", policy: "os-evacuate", admin: true, vm: []string{vmActive, vmStopped, vmError}},
	}
}

func rebuildSchema(v rest.Version) schema.Schema {
	fields := append([]schema.Field{
		schema.Opt("name", schema.Name()...), schema.Req("imageRef", schema.ID()...), schema.Opt("adminPass", schema.String()...),
		schema.Opt("metadata", schema.Metadata()...), schema.Opt("preserve_ephemeral", schema.Boolean()...), diskConfigField(),
	}, accessFields()...)
	if v.AtLeast(2, 19) {
		fields = append(fields, schema.Opt("description", schema.Description(maxDescription)...))
	}
	if v.AtLeast(2, 54) {
		fields = append(fields, schema.Opt("key_name", schema.OneOf(schema.Schema{schema.Type("string"), schema.MinLen(1), schema.MaxLen(255)}, schema.Null())))
	}
	if v.AtLeast(2, 57) {
		fields = append(fields, schema.Opt("user_data", schema.OneOf(schema.Schema{schema.Type("string"), schema.Base64(), schema.MaxLen(maxUserData)}, schema.Null())))
	} else {
		fields = append(fields, schema.Opt("personality", personality()...))
	}
	if v.AtLeast(2, 63) {
		fields = append(fields, trustedField())
	}
	if v.AtLeast(2, 90) {
		fields = append(fields, schema.Opt("hostname", schema.Hostname()...))
	}
	return schema.Object(schema.Req("rebuild", schema.Object(fields...)...))
}
