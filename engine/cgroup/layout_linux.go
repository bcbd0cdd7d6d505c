package cgroup

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// hierarchy is one mounted tree of control groups.
type hierarchy struct {
	// Path is where it is mounted; our tree lies below.
	Path string
	V2   bool
	// Controllers of a v1 hierarchy; "name=systemd" for a named one.
	Controllers []string
}

// wanted are the v1 controllers whose hierarchies have groups. systemd's is
// among them because it would otherwise kill instances with the service.
var wanted = [...]string{
	"cpu", "cpuacct", "cpuset", "memory", "pids", "freezer", "devices", "blkio", "hugetlb", "net_cls", "net_prio", "rdma", "name=systemd",
}

// onDemand are controllers that do nothing for a group without limits of
// theirs: a hierarchy that has no others gets a group with the first limit.
var onDemand = [...]string{"cpuset", "blkio", "hugetlb", "net_cls", "net_prio", "rdma"}

// parseMembership reads the text of /proc/self/cgroup (cgroups(7)): the path
// of the calling process by controller, "cgroup2" for v2.
func parseMembership(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		if fields[1] == "" {
			out["cgroup2"] = fields[2]
			continue
		}
		for c := range strings.SplitSeq(fields[1], ",") {
			out[c] = fields[2]
		}
	}
	return out
}

// parseLayout finds the hierarchies in the text of /proc/self/mountinfo
// (proc_pid_mountinfo(5)). Of several mounts of one hierarchy the first counts.
func parseLayout(text string) ([]hierarchy, error) {
	mounts, err := mountinfo.GetMountsFromReader(strings.NewReader(text), mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w: %w", err, errdefs.ErrInvalid)
	}
	var out []hierarchy
	seen := map[string]bool{}
	for _, m := range mounts {
		h := hierarchy{Path: m.Mountpoint, V2: m.FSType == "cgroup2"}
		if h.V2 {
			h.Controllers = []string{"cgroup2"}
		} else {
			for option := range strings.SplitSeq(m.VFSOptions, ",") {
				if slices.Contains(wanted[:], option) {
					h.Controllers = append(h.Controllers, option)
				}
			}
		}
		if len(h.Controllers) == 0 || seen[h.Controllers[0]] {
			continue
		}
		for _, c := range h.Controllers {
			seen[c] = true
		}
		out = append(out, h)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("find control groups: none is mounted: %w", errdefs.ErrUnsupported)
	}
	return out, nil
}
