package cgroup

import (
	"fmt"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// write is one value for one file of a group.
type write struct {
	// Controller names the hierarchy on v1 and must be enabled on v2.
	Controller string
	File       string
	Value      string
	// Limit is what the caller calls it, for errors.
	Limit string
}

// features say what the kernel and the layout can do beyond controllers.
type features struct {
	// Controllers that limits can use.
	Controllers map[string]bool
	// Swap: swap can be limited (v1 memsw files, v2 memory.swap.max).
	Swap bool
	// Quota: cpu quota exists (CONFIG_CFS_BANDWIDTH).
	Quota bool
}

// The CPU period when only a quota is given, and the kernel's bounds.
const (
	defaultPeriod = 100000
	minPeriod     = 1000
	maxPeriod     = 1000000
	minQuota      = 1000
	minShares     = 2
	maxShares     = 262144
	defaultShares = 1024
)

func invalid(limit, format string, a ...any) error {
	return fmt.Errorf("limit %s: %s: %w", limit, fmt.Sprintf(format, a...), errdefs.ErrInvalid)
}

func unsupported(limit, why string) error {
	return fmt.Errorf("limit %s: %s: %w", limit, why, errdefs.ErrUnsupported)
}

// Validate refuses values that no kernel takes: errdefs.ErrInvalid names the
// limit. What this host cannot enforce is found when they are set.
func (l Limits) Validate() error { return l.validate() }

// validate refuses values that no kernel takes.
func (l Limits) validate() error {
	switch {
	case l.MemoryBytes < 0:
		return invalid("memory", "%d bytes", l.MemoryBytes)
	case l.SwapBytes < -1:
		return invalid("swap", "%d bytes", l.SwapBytes)
	case l.CPUQuota < 0 || l.CPUQuota != 0 && l.CPUQuota < minQuota:
		return invalid("cpu quota", "%d is less than %d microseconds", l.CPUQuota, minQuota)
	case l.CPUPeriod != 0 && (l.CPUPeriod < minPeriod || l.CPUPeriod > maxPeriod):
		return invalid("cpu period", "%d is not within %d and %d microseconds", l.CPUPeriod, minPeriod, maxPeriod)
	case l.CPUShares != 0 && (l.CPUShares < minShares || l.CPUShares > maxShares):
		return invalid("cpu shares", "%d is not within %d and %d", l.CPUShares, minShares, maxShares)
	case l.Pids < 0:
		return invalid("pids", "%d", l.Pids)
	case strings.Trim(l.CPUSet, "0123456789,-") != "":
		return invalid("cpuset", "%q", l.CPUSet)
	}
	for _, d := range l.Devices {
		if err := d.validate(); err != nil {
			return err
		}
	}
	return nil
}

// needs lists what the limits ask for, by controller.
func (l Limits) needs() []struct{ limit, controller string } {
	var out []struct{ limit, controller string }
	need := func(yes bool, limit, controller string) {
		if yes {
			out = append(out, struct{ limit, controller string }{limit, controller})
		}
	}
	need(l.MemoryBytes != 0, "memory", "memory")
	need(l.SwapBytes != 0, "swap", "memory")
	need(l.CPUQuota != 0, "cpu quota", "cpu")
	need(l.CPUShares != 0, "cpu shares", "cpu")
	need(l.Pids != 0, "pids", "pids")
	need(l.CPUSet != "", "cpuset", "cpuset")
	need(l.Devices != nil, "devices", "devices")
	return out
}

// check is validate plus what this kernel cannot enforce.
func (l Limits) check(f features) error {
	if err := l.validate(); err != nil {
		return err
	}
	for _, n := range l.needs() {
		if !f.Controllers[n.controller] {
			return unsupported(n.limit, "no "+n.controller+" controller")
		}
	}
	if l.CPUQuota != 0 && !f.Quota {
		return unsupported("cpu quota", "the kernel lacks it")
	}
	if l.SwapBytes > 0 && !f.Swap {
		return unsupported("swap", "the kernel does not count swap")
	}
	return nil
}

func (l Limits) period() int64 {
	if l.CPUPeriod == 0 {
		return defaultPeriod
	}
	return l.CPUPeriod
}
