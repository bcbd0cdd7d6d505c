//go:build functional

package functional

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

// twoProcessors are the first two of the host that are online.
func twoProcessors(t *testing.T) (a, b string) {
	t.Helper()
	raw, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for part := range strings.SplitSeq(strings.TrimSpace(string(raw)), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, _ := strconv.Atoi(from)
		last, _ := strconv.Atoi(to)
		for n := first; n <= last; n++ {
			all = append(all, strconv.Itoa(n))
		}
	}
	if len(all) < 2 {
		t.Fatalf("processors %q: the test needs two", raw)
	}
	return all[0], all[1]
}

// processorsOf are those that the guest's first process may run on, as the
// kernel lists them.
func (c *cloud) processorsOf(t *testing.T, id string) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.firstPid(t, id)))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "Cpus_allowed_list:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// dedicated makes a flavor with one processor of its own.
func (c *cloud) dedicated(t *testing.T, name string, memory int) {
	t.Helper()
	c.flavorWith(t, name, memory, flavors.ExtraSpecsOpts{"hw:cpu_policy": "dedicated"})
}

// TestDedicatedProcessors: Nova gives servers processors that nobody else has,
// keeps them over stops, kills and resizes, and refuses when there are no more.
func TestDedicatedProcessors(t *testing.T) {
	c := the
	a, b := twoProcessors(t)
	t.Cleanup(func() { c.restart(t, false) })
	c.restart(t, false, "compute.cpu_dedicated_set="+a+","+b)
	c.dedicated(t, "own.tiny", 64)
	c.dedicated(t, "own.small", 128)
	used := func(want int) {
		t.Helper()
		eventually(t, bootLimit, fmt.Sprintf("%d processors are taken in placement", want), func() bool { return c.usedOn(t, nodeName(t), "PCPU") == want })
	}

	first := c.active(t, bootOpts{flavor: "own.tiny", network: "none"})
	second := c.active(t, bootOpts{flavor: "own.tiny", network: "none"})
	mine, theirs := c.processorsOf(t, first), c.processorsOf(t, second)
	if mine+theirs != a+b && mine+theirs != b+a {
		t.Fatalf("the servers have processors %s and %s, want one of %s and %s each", mine, theirs, a, b)
	}
	used(2)
	if fault := c.failed(t, bootOpts{flavor: "own.tiny", network: "none"}); !strings.Contains(fault, "No valid host") {
		t.Errorf("a third server: %s", fault)
	}
	topology := struct {
		Nodes []struct {
			Pinning map[string]int `json:"cpu_pinning"`
		}
	}{}
	resp, err := c.admin.compute.Get(t.Context(), c.admin.compute.ServiceURL("servers", first, "topology"), &topology, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if len(topology.Nodes) != 1 || strconv.Itoa(topology.Nodes[0].Pinning["0"]) != mine {
		t.Errorf("topology %+v, want processor 0 on %s", topology, mine)
	}
	c.remove(t, second)

	// The scheduler goes by what the host has last told of its processors, which
	// comes a moment after a delete or a confirmation. Until then no host is
	// found, and the server is as before.
	resize := func(flavor string) {
		t.Helper()
		to, asked := c.flavorID(t, flavor), 0
		eventually(t, bootLimit, "server "+first+" is resized", func() bool {
			s := c.server(t, first)
			if s.Status == "ACTIVE" && s.TaskState == "" {
				asked++
				if err := servers.Resize(t.Context(), c.demo.compute, first, servers.ResizeOpts{FlavorRef: to}).ExtractErr(); err != nil && !gophercloud.ResponseCodeIs(err, http.StatusConflict) {
					t.Fatal(err)
				}
			}
			return s.Status == "VERIFY_RESIZE"
		})
		t.Logf("asked %d times", asked)
		used(2)
	}
	is := func(what, want string) {
		t.Helper()
		if got := c.processorsOf(t, first); got != want {
			t.Errorf("%s: processor %s, want %s", what, got, want)
		}
	}
	resize("own.small")
	is("resized", theirs)
	if err := servers.ConfirmResize(t.Context(), c.demo.compute, first).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(t, first, "ACTIVE")
	used(1)
	is("confirmed", theirs)
	resize("own.tiny")
	is("resized again", mine)
	if err := servers.RevertResize(t.Context(), c.demo.compute, first).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(t, first, "ACTIVE")
	used(1)
	is("reverted", theirs)

	// over a stop, and a service that knows it from Nova alone
	if err := servers.Stop(t.Context(), c.demo.compute, first).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(t, first, "SHUTOFF")
	c.restart(t, true, "compute.cpu_dedicated_set="+a+","+b)
	if err := servers.Start(t.Context(), c.demo.compute, first).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(t, first, "ACTIVE")
	is("started", theirs)
	second = c.active(t, bootOpts{flavor: "own.tiny", network: "none"})
	if got := c.processorsOf(t, second); got != mine {
		t.Errorf("the next server has processor %s, want %s", got, mine)
	}
	c.remove(t, second)

	// those without processors of their own float over the shared ones
	c.restart(t, false, "compute.cpu_dedicated_set="+theirs, "compute.cpu_shared_set="+mine)
	floats := c.active(t, bootOpts{network: "none"})
	if got := c.processorsOf(t, floats); got != mine {
		t.Errorf("a server without processors of its own runs on %s, want %s", got, mine)
	}
	is("in the end", theirs)
}
