package conductor_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
)

// TestNodeAndItsRowGoTogether: a conductor of 2023.2 and newer refuses an
// instance whose node changes without the id of the node's row.
func TestNodeAndItsRowGoTogether(t *testing.T) {
	c, fake, _ := wire(t)
	rc := userContext("req-1")
	node := objects.New("ComputeNode")
	for field, value := range map[string]any{
		"host": "cmp2", "hypervisor_hostname": "node2", "vcpus": 1, "memory_mb": 1, "local_gb": 1, "vcpus_used": 0,
		"memory_mb_used": 0, "local_gb_used": 0, "hypervisor_type": "gantry", "hypervisor_version": 1, "cpu_info": "",
	} {
		node.Set(field, value)
	}
	if err := c.CreateComputeNode(t.Context(), rc, node); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, version string
		host, node    any
		change        string
		sent          bool
		want          any
	}{
		{"known", "2.8", "cmp2", "node2", "node", true, node.Get("id")},
		{"no such node", "2.8", "cmp3", "node3", "node", true, nil},
		{"given up", "2.8", nil, nil, "node", true, nil},
		{"another field", "2.8", "cmp2", "node2", "task_state", false, nil},
		{"an older conductor", "2.7", "cmp2", "node2", "node", false, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inst := newInstance(fake)
			inst.Version = tt.version
			inst.SetClean("compute_id", json.Number("77")) // where it was before
			inst.SetClean("host", tt.host)
			inst.SetClean("node", tt.node)
			inst.Mark(tt.change)
			if err := c.SaveInstance(t.Context(), rc, inst, conductor.Expect{}); err != nil {
				t.Fatal(err)
			}
			row := fake.Instance(inst.String("uuid"))
			if row.Has("compute_id") != tt.sent || row.Get("compute_id") != tt.want {
				t.Errorf("compute_id in the row: %v %v", row.Has("compute_id"), row.Get("compute_id"))
			}
		})
	}
	t.Run("migration", func(t *testing.T) {
		mig := objects.New("Migration")
		mig.Set("dest_compute", "cmp2")
		mig.Set("dest_node", "node2")
		mig = fake.AddMigration(mig)
		mig.Version = "1.8"
		mig.Mark("dest_node")
		if err := c.SaveMigration(t.Context(), rc, mig); err != nil {
			t.Fatal(err)
		}
		if mig.Get("dest_compute_id") != node.Get("id") {
			t.Errorf("dest_compute_id %v", mig.Get("dest_compute_id"))
		}
	})
	t.Run("an answer that never came", func(t *testing.T) {
		fake.FailNext("ComputeNode.get_by_host_and_nodename", messaging.NovaError("DBError", 500, "x"))
		inst := newInstance(fake)
		inst.Version = "2.8"
		inst.Set("node", "node2")
		inst.SetClean("host", "cmp2")
		err := c.SaveInstance(t.Context(), rc, inst, conductor.Expect{})
		if !messaging.IsRemote(err, "DBError") || !slices.Contains(inst.Changes(), "node") {
			t.Errorf("%v, changes %v", err, inst.Changes())
		}
	})
}
