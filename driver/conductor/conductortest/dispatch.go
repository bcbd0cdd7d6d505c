package conductortest

import (
	"context"
	"encoding/json"
	"maps"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// invocation is one call of an object's method, under the conductor's lock.
type invocation struct {
	rc     messaging.RequestContext
	obj    *objects.Object // instance methods only; the method changes it
	args   []any
	kwargs map[string]any
}

// text returns a positional argument, or the keyword argument of that name.
func (in invocation) text(i int, name string) string {
	if i < len(in.args) {
		s, _ := in.args[i].(string)
		return s
	}
	s, _ := in.kwargs[name].(string)
	return s
}

// attrs returns expected_attrs, and whether it was given.
func (in invocation) attrs() ([]string, bool) {
	l, ok := in.kwargs["expected_attrs"].([]any)
	var out []string
	for _, v := range l {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out, ok
}

type method func(*Conductor, invocation) (any, error)

// classMethods and objectMethods are everything that is served.
func classMethods() map[string]method {
	return map[string]method{
		"Instance.get_by_uuid":                              (*Conductor).getInstance,
		"InstanceList.get_by_host":                          (*Conductor).byHost,
		"InstanceList.get_by_host_and_node":                 (*Conductor).byHostAndNode,
		"InstanceList.get_by_filters":                       (*Conductor).byFilters,
		"InstanceInfoCache.get_by_instance_uuid":            (*Conductor).getInfoCache,
		"InstanceAction.action_start":                       (*Conductor).actionStart,
		"InstanceActionEvent.event_start":                   (*Conductor).eventStart,
		"InstanceActionEvent.event_finish_with_failure":     (*Conductor).eventFinish,
		"Service.get_minimum_version":                       (*Conductor).minimumVersion,
		"Service.get_by_host_and_binary":                    (*Conductor).getService,
		"Service.get_by_compute_host":                       (*Conductor).getComputeService,
		"ComputeNode.get_by_host_and_nodename":              (*Conductor).getNode,
		"ComputeNodeList.get_all_by_host":                   (*Conductor).getNodes,
		"BlockDeviceMappingList.get_by_instance_uuid":       (*Conductor).getBlockDevices,
		"VirtualInterface.delete_by_instance_uuid":          (*Conductor).deleteVIFs,
		"VirtualInterface.get_by_uuid":                      (*Conductor).getVIF,
		"VirtualInterfaceList.get_by_instance_uuid":         (*Conductor).getVIFs,
		"MigrationList.get_by_filters":                      (*Conductor).migrationsByFilters,
		"MigrationList.get_in_progress_and_error":           (*Conductor).migrationsInProgress,
		"ConsoleAuthToken.clean_console_auths_for_instance": (*Conductor).cleanTokens,
		"ConsoleAuthToken.clean_expired_console_auths":      (*Conductor).cleanExpiredTokens,
		"InstanceGroup.get_by_instance_uuid":                (*Conductor).getGroup,
		"InstanceGroup.get_by_hint":                         (*Conductor).getGroupByHint,
	}
}

func objectMethods() map[string]method {
	return map[string]method{
		"Instance.save":              (*Conductor).saveInstance,
		"Instance.destroy":           (*Conductor).destroyInstance,
		"Instance.refresh":           (*Conductor).refreshInstance,
		"InstanceInfoCache.save":     (*Conductor).saveInfoCache,
		"InstanceInfoCache.refresh":  (*Conductor).refreshInfoCache,
		"InstanceFault.create":       (*Conductor).createFault,
		"Service.create":             (*Conductor).createService,
		"Service.save":               (*Conductor).saveService,
		"ComputeNode.create":         (*Conductor).createNode,
		"ComputeNode.save":           (*Conductor).saveNode,
		"ComputeNode.destroy":        (*Conductor).destroyNode,
		"BlockDeviceMapping.save":    (*Conductor).saveBlockDevice,
		"VirtualInterface.create":    (*Conductor).createVIF,
		"VirtualInterface.destroy":   (*Conductor).destroyVIF,
		"Migration.save":             (*Conductor).saveMigration,
		"ConsoleAuthToken.authorize": (*Conductor).authorize,
	}
}

func (c *Conductor) classAction(_ context.Context, req *messaging.Request) (any, error) {
	var name, call string
	var versions map[string]string
	in := invocation{rc: req.Context}
	if err := argsOf(req, &in, map[string]any{"objname": &name, "objmethod": &call, "object_versions": &versions}); err != nil {
		return nil, err
	}
	if _, ok := objects.Lookup(name); !ok {
		return nil, &messaging.RemoteError{Class: "UnsupportedObjectError", Module: "oslo_versionedobjects.exception", Message: name}
	}
	if !maps.Equal(versions, objects.Manifest(name)) {
		return nil, valueError("the manifest of %s is not complete: %v", name, versions)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.record(Call{Method: name + "." + call, Args: in.args, Kwargs: in.kwargs, Context: req.Context}); err != nil {
		return nil, err
	}
	m := classMethods()[name+"."+call]
	if m == nil {
		return nil, valueError("conductortest has no class method %s.%s", name, call)
	}
	return m(c, in)
}

func (c *Conductor) objectAction(_ context.Context, req *messaging.Request) (any, error) {
	var sent objects.Object
	var call string
	in := invocation{rc: req.Context}
	if err := argsOf(req, &in, map[string]any{"objinst": &sent, "objmethod": &call}); err != nil {
		return nil, err
	}
	if err := declared(&sent); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.record(Call{
		Method: sent.Name + "." + call, Changes: sent.Changes(), Object: sent.Clone(),
		Args: in.args, Kwargs: in.kwargs, Context: req.Context,
	})
	if err != nil {
		return nil, err
	}
	m := objectMethods()[sent.Name+"."+call]
	if m == nil {
		return nil, valueError("conductortest has no method %s.%s", sent.Name, call)
	}
	in.obj = sent.Clone()
	result, err := m(c, in)
	if err != nil {
		return nil, err
	}
	return []any{updates(&sent, in.obj), result}, nil
}

func (c *Conductor) backport(_ context.Context, req *messaging.Request) (any, error) {
	var o objects.Object
	if err := req.Arg("objinst", &o); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.record(Call{Method: "object_backport_versions", Object: o.Clone(), Context: req.Context}); err != nil {
		return nil, err
	}
	s, ok := objects.Lookup(o.Name)
	if !ok {
		return nil, valueError("no object %s", o.Name)
	}
	older := objects.New(o.Name)
	for _, f := range s.Fields {
		if o.Has(f.Name) {
			older.SetClean(f.Name, o.Get(f.Name))
		}
	}
	return older, nil
}

// argsOf decodes the arguments that every object method has and the given ones.
func argsOf(req *messaging.Request, in *invocation, named map[string]any) error {
	for name, into := range named {
		if err := req.Arg(name, into); err != nil {
			return valueError("%v", err)
		}
	}
	args, err := objects.Decode(req.Args["args"])
	if err != nil {
		return valueError("args: %v", err)
	}
	kwargs, err := objects.Decode(req.Args["kwargs"])
	if err != nil {
		return valueError("kwargs: %v", err)
	}
	var okA, okK bool
	in.args, okA = args.([]any)
	in.kwargs, okK = kwargs.(map[string]any)
	if !okA || !okK {
		return valueError("args and kwargs are %T and %T", args, kwargs)
	}
	return nil
}

// gained are the fields of 2023.2 that are saved from compute.
func gained(o *objects.Object, field string) bool {
	switch o.Name {
	case "Instance":
		return field == "compute_id" && o.Since("2.8")
	case "Migration":
		return field == "dest_compute_id" && o.Since("1.8")
	}
	return false
}

// declared refuses fields that Nova does not know.
func declared(o *objects.Object) error {
	if err := objects.Check(o); err != nil {
		return valueError("%v", err)
	}
	s, _ := objects.Lookup(o.Name)
	for _, name := range o.Fields() {
		if _, ok := s.Field(name); !ok && !gained(o, name) {
			return valueError("%s has no field %s", o.Name, name)
		}
	}
	return nil
}

// updates is what object_action answers: every field that the method changed
// or set, and obj_what_changed.
func updates(before, after *objects.Object) map[string]any {
	out := map[string]any{"obj_what_changed": after.Changes()}
	for _, name := range after.Fields() {
		if !before.Has(name) || !same(before.Get(name), after.Get(name)) {
			out[name] = after.Get(name)
		}
	}
	return out
}

func same(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}
