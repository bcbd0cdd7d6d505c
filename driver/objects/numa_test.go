package objects_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/gantry-project/gantry/driver/objects"
)

func TestPinnedTopology(t *testing.T) {
	raw, err := json.Marshal(objects.NewPinned("8c3d7f7c-3c1e-4bd8-8f2f-64a9c1ad0a2a", 1, 64, []int{5, 3}, "prefer").Wire())
	if err != nil {
		t.Fatal(err)
	}
	var o objects.Object
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatal(err)
	}
	got := objects.InstanceNUMATopology{Object: &o}
	if !slices.Equal(got.Processors(), []int{3, 5}) || objects.Check(&o) != nil {
		t.Errorf("%s: processors %v", raw, got.Processors())
	}
	cell := o.Objects("cells")[0]
	if cell.Int("id") != 1 || cell.String("cpu_policy") != "dedicated" || cell.String("cpu_thread_policy") != "prefer" || cell.Int("memory") != 64 {
		t.Errorf("%s", raw)
	}
	if none := (objects.InstanceNUMATopology{}).Processors(); none != nil {
		t.Errorf("of nothing: %v", none)
	}
}

// The text as Nova's own NUMATopology._to_json has it, field for field.
func TestHostTopology(t *testing.T) {
	cells := []objects.NUMACell{{
		Socket: -1, MemoryMB: 8, PageKB: 4, Shared: []int{0}, Dedicated: []int{1}, Pinned: []int{1}, Siblings: [][]int{{0, 1}}, UsedMB: 4,
	}}
	got, err := objects.NUMATopology(cells)
	const want = `{"nova_object.data":{"cells":[{"nova_object.data":{"cpu_usage":0,"cpuset":[0],"id":0,"memory":8,"memory_usage":4,` +
		`"mempages":[{"nova_object.data":{"reserved":0,"size_kb":4,"total":2048,"used":1024},"nova_object.name":"NUMAPagesTopology",` +
		`"nova_object.namespace":"nova","nova_object.version":"1.1"}],"network_metadata":{"nova_object.data":{"physnets":[],"tunneled":false},` +
		`"nova_object.name":"NetworkMetadata","nova_object.namespace":"nova","nova_object.version":"1.0"},"pcpuset":[1],"pinned_cpus":[1],` +
		`"siblings":[[0,1]],"socket":null},"nova_object.name":"NUMACell","nova_object.namespace":"nova","nova_object.version":"1.5"}]},` +
		`"nova_object.name":"NUMATopology","nova_object.namespace":"nova","nova_object.version":"1.2"}`
	if err != nil || got != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}
