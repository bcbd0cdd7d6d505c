package conductor_test

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

func TestUnknownIsRefusedAsNovaDoes(t *testing.T) {
	r := newServed(t)
	objectAPI := messaging.Target{Topic: "conductor", Version: "3.0"}
	class := func(object, method, version string) map[string]any {
		return map[string]any{"objname": object, "objmethod": method, "object_versions": map[string]string{object: version}, "args": []any{}, "kwargs": map[string]any{}}
	}
	action := func(o any, method string) map[string]any {
		return map[string]any{"objinst": o, "objmethod": method, "args": []any{}, "kwargs": map[string]any{}}
	}
	broken := objects.NewInstance()
	broken.Set("uuid", uuid.NewString())
	broken.Set("vm_state", 7)
	newer := &objects.Object{Name: "Service", Version: "2.0"}
	for name, c := range map[string]struct {
		target messaging.Target
		method string
		args   map[string]any
		class  string
	}{
		"method":         {objectAPI, "no_such_method", nil, "NoSuchMethod"},
		"hidden method":  {objectAPI, "_object_dispatch", nil, "NoSuchMethod"},
		"version":        {messaging.Target{Topic: "conductor", Version: "4.0"}, "object_action", nil, "UnsupportedVersion"},
		"namespace":      {messaging.Target{Topic: "conductor", Namespace: "other", Version: "1.0"}, "ping", nil, "UnsupportedVersion"},
		"object":         {objectAPI, "object_class_action_versions", class("NoSuchObject", "get", "1.0"), "UnsupportedObjectError"},
		"object version": {objectAPI, "object_class_action_versions", class("Service", "get_minimum_version", "1.99"), "IncompatibleObjectVersion"},
		"class method":   {objectAPI, "object_class_action_versions", class("Service", "steal", "1.22"), "AttributeError"},
		"manifest":       {objectAPI, "object_class_action_versions", map[string]any{"objname": "Service", "objmethod": "get_minimum_version", "object_versions": map[string]string{}, "args": []any{}, "kwargs": map[string]any{}}, "KeyError"},
		"object method":  {objectAPI, "object_action", action(objects.NewInstance(), "steal"), "AttributeError"},
		"wrong type":     {objectAPI, "object_action", action(broken, "save"), "ValueError"},
		"no object":      {objectAPI, "object_action", action(7, "save"), "ValueError"},
		"newer object":   {objectAPI, "object_action", action(newer, "save"), "IncompatibleObjectVersion"},
		"no arguments":   {objectAPI, "object_action", nil, "ValueError"},
		"filters":        {objectAPI, "object_class_action_versions", class("InstanceList", "get_by_filters", "2.6"), "ValueError"},
	} {
		err := r.caller.Call(t.Context(), userContext("req-1"), c.target, c.method, c.args, nil)
		if !messaging.IsRemote(err, c.class) {
			t.Errorf("%s: %v, want %s", name, err, c.class)
		}
	}
}

func TestProjectsAreApart(t *testing.T) {
	r := newServed(t)
	i := r.accepted(t, 1, nil).Instances[0]
	stranger := messaging.NewRequestContext(map[string]json.RawMessage{
		"request_id": json.RawMessage(`"req-1"`), "project_id": json.RawMessage(`"other"`), "is_admin": json.RawMessage("false"),
	})
	if _, err := r.client.GetInstance(t.Context(), stranger, i.UUID()); !messaging.IsRemote(err, "InstanceNotFound") {
		t.Errorf("another project: %v", err)
	}
	if l, err := r.client.InstancesByFilters(t.Context(), stranger, map[string]any{}); err != nil || len(l) != 0 {
		t.Errorf("another project's list: %v %v", l, err)
	}
	if _, err := r.client.GetInstance(t.Context(), messaging.AdminContext(), i.UUID()); err != nil {
		t.Errorf("admin: %v", err)
	}
}

// FuzzObjectAction throws JSON at the object interface: it answers or refuses,
// and never panics.
func FuzzObjectAction(f *testing.F) {
	for _, m := range []string{
		`{"objinst":{"nova_object.name":"Instance","nova_object.namespace":"nova","nova_object.version":"2.7","nova_object.data":{"uuid":"x","vm_state":"a"},"nova_object.changes":["vm_state"]},"objmethod":"save","args":[],"kwargs":{"expected_task_state":[null]}}`,
		`{"objinst":{"nova_object.name":"ComputeNode","nova_object.namespace":"nova","nova_object.version":"1.19","nova_object.data":{"vcpus":1e300},"nova_object.changes":["vcpus"]},"objmethod":"create","args":[],"kwargs":{}}`,
		`{"objname":"InstanceList","objmethod":"get_by_filters","object_versions":{"InstanceList":"2.6"},"args":[{"uuid":[1,null,{}],"host":{"a":1},"name":"(","no":"x"}],"kwargs":{}}`,
		`{"objname":"MigrationList","objmethod":"get_by_filters","object_versions":{"MigrationList":"1.5"},"args":[{"status":7}],"kwargs":{}}`,
		`{"instances":[{}],"host_lists":[[null]],"filter_properties":7}`,
	} {
		f.Add(m)
	}
	r := newServed(f)
	f.Fuzz(func(t *testing.T, text string) {
		var args map[string]json.RawMessage
		if json.Unmarshal([]byte(text), &args) != nil {
			return
		}
		for _, e := range r.conductor.Endpoints()[:2] {
			for method, h := range e.Methods {
				res, err := h(t.Context(), &messaging.Request{Method: method, Args: args, Context: messaging.AdminContext()})
				if _, bad := json.Marshal(res); bad != nil {
					t.Errorf("%s: %v cannot be sent: %v (%v)", method, res, bad, err)
				}
			}
		}
	})
}
