package cell_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func open(t *testing.T, path string) *cell.Store {
	t.Helper()
	s, err := cell.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newStore(t *testing.T) *cell.Store {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "cell.db"))
}

// building is an instance as the API makes it.
func building(project, name string) objects.Instance {
	i := objects.NewInstance()
	i.SetVMState("building")
	i.SetTaskState("scheduling")
	i.Set("project_id", project)
	i.Set("user_id", "u")
	i.Set("display_name", name)
	i.Set("vcpus", 1)
	i.Set("memory_mb", 64)
	i.Set("metadata", map[string]string{"name": name})
	flavor := objects.New("Flavor")
	flavor.Set("name", "tiny")
	i.Set("flavor", flavor)
	return i
}

func create(t *testing.T, s *cell.Store, i objects.Instance) objects.Instance {
	t.Helper()
	out, err := s.CreateInstances(t.Context(), cell.Create{
		Instances: []cell.NewInstance{{Instance: i}},
		Action:    cell.Actor{Action: "create", RequestID: "req-create", UserID: "u", ProjectID: i.ProjectID()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

func TestInstanceIsKeptWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cell.db")
	s, err := cell.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	made := create(t, s, building("p", "one"))
	if _, err := s.SetInstance(t.Context(), made.UUID(), cell.Expect{}, map[string]any{"host": "cmp1", "task_state": nil}); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveInfoCache(t.Context(), made.UUID(), `[{"id":"port"}]`); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	i, err := open(t, path).Instance(t.Context(), made.UUID())
	if err != nil {
		t.Fatal(err)
	}
	if i.Host() != "cmp1" || i.TaskState() != "" || i.VMState() != "building" || i.Flavor().FlavorName() != "tiny" ||
		i.InfoCache().String("network_info") != `[{"id":"port"}]` || i.Metadata()["name"] != "one" || i.ID() != made.ID() {
		t.Errorf("after a restart: %v", i.Object)
	}
	schema, _ := objects.Lookup("Instance")
	for _, f := range schema.Fields {
		derived := f.Name == "ec2_ids" || f.Name == "services" || f.Name == "pci_devices"
		if i.Has(f.Name) == derived {
			t.Errorf("field %s: set is %v", f.Name, i.Has(f.Name))
		}
	}
}

// TestKilledProcessLosesNothing opens what the files hold while the store is
// open: what a process that is killed leaves.
func TestKilledProcessLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cell.db")
	s := open(t, path)
	made := create(t, s, building("p", "one"))
	if _, err := s.SetInstance(t.Context(), made.UUID(), cell.Expect{}, map[string]any{"vm_state": "active"}); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(t.TempDir(), "cell.db")
	for _, suffix := range []string{"", "-wal"} {
		raw, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(left+suffix, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i, err := open(t, left).Instance(t.Context(), made.UUID())
	if err != nil || i.VMState() != "active" {
		t.Errorf("after the kill: %v %v", i.VMState(), err)
	}
}

func TestExpectedStates(t *testing.T) {
	s := newStore(t)
	i := create(t, s, building("p", "one"))
	set := map[string]any{"task_state": "networking"}
	for _, c := range []struct {
		expect cell.Expect
		field  string
	}{
		{cell.Expect{TaskState: []string{""}}, "task_state"},
		{cell.Expect{TaskState: []string{}}, "task_state"},
		{cell.Expect{VMState: []string{"active", "stopped"}}, "vm_state"},
		{cell.Expect{VMState: []string{"active"}, TaskState: []string{"spawning"}}, "task_state"},
	} {
		_, err := s.SetInstance(t.Context(), i.UUID(), c.expect, set)
		se, ok := errors.AsType[*cell.StateError](err)
		if !ok || se.Field != c.field || !errors.Is(err, errdefs.ErrConflict) || se.Deleting() {
			t.Errorf("%+v: %v", c.expect, err)
		}
	}
	if got, err := s.Instance(t.Context(), i.UUID()); err != nil || got.TaskState() != "scheduling" || !got.UpdatedAt().IsZero() {
		t.Errorf("a refused change was written: %v %v", got.TaskState(), err)
	}
	if _, err := s.SetInstance(t.Context(), i.UUID(), cell.Expect{VMState: []string{"building"}, TaskState: []string{"scheduling", ""}}, map[string]any{"task_state": "deleting"}); err != nil {
		t.Fatal(err)
	}
	_, err := s.SetInstance(t.Context(), i.UUID(), cell.Expect{TaskState: []string{"", "spawning"}}, set)
	if se, ok := errors.AsType[*cell.StateError](err); !ok || !se.Deleting() ||
		se.Error() != "Conflict updating instance "+i.UUID()+". Expected: {'task_state': [None, 'spawning']}. Actual: {'task_state': 'deleting'}" {
		t.Errorf("deleting: %v", err)
	}
}
