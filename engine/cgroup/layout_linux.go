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
	// Path is where it is mounted; our tree lies directly below.
	Path string
	V2   bool
	// Controllers of a v1 hierarchy; "name=systemd" for a named one.
	Controllers []string
}

// wanted are the v1 controllers whose hierarchies a group joins. systemd's is
// among them because it would otherwise kill instances with the service.
var wanted = [...]string{
	"cpu", "cpuacct", "cpuset", "memory", "pids", "freezer", "devices", "blkio", "name=systemd",
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
