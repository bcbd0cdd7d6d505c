package engine

import (
	"testing"

	"github.com/gantry-project/gantry/engine/cgroup"
)

// Containers get the processors that fewest others have, and keep them.
func TestProcessors(t *testing.T) {
	p := processors{all: []int{0, 1, 2, 5}, of: map[ContainerID][]int{}}
	quota := func(n int64, set string) cgroup.Limits {
		return cgroup.Limits{CPUQuota: n * 50000, CPUPeriod: 50000, CPUSet: set}
	}
	for _, step := range []struct {
		id   ContainerID
		l    cgroup.Limits
		want string
	}{
		{"a", quota(1, ""), "0"},
		{"b", quota(2, ""), "1,2"},
		{"c", cgroup.Limits{CPUQuota: 10001, CPUPeriod: 10000}, "0,5"}, // a part of one is one
		{"a", quota(2, ""), "0,1"},                                     // grows
		{"a", quota(1, ""), "0"},                                       // shrinks to what it has had
		{"d", quota(4, ""), ""},
		{"e", cgroup.Limits{}, ""},
		{"f", quota(1, "2,5-9"), "2"},
		{"g", cgroup.Limits{CPUSet: "1-2"}, "1,2"},
		{"h", quota(9, ""), ""},
		{"i", quota(1, "7"), ""},
	} {
		if got := p.take(step.id, step.l); got != step.want || p.list(step.id) != step.want {
			t.Errorf("%s: %q, want %q", step.id, got, step.want)
		}
	}
	p.drop("b")
	set := p.set("1,5")
	if p.list("b") != "" || set.Count() != 2 || !set.IsSet(5) {
		t.Errorf("dropped: %q, set %v", p.list("b"), set)
	}
	p.adopt("b", &set)
	if p.list("b") != "1,5" {
		t.Errorf("adopted: %q", p.list("b"))
	}
	whole := p.set("")
	if p.adopt("b2", &whole); p.list("b2") != "" || whole.Count() != 4 {
		t.Errorf("adopted all: %q", p.list("b2"))
	}
}
