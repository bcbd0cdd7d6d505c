package oci

import (
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-project/gantry/engine/cgroup"
)

func (c *converter) resources() error {
	limits, warnings, err := Resources(c.linux.Resources)
	if err != nil {
		return err
	}
	c.out.Warnings = append(c.out.Warnings, warnings...)
	c.out.Limits = limits
	c.out.CgroupsPath = c.linux.CgroupsPath
	return nil
}

// Resources converts linux.resources (config-linux.md, Control groups). nil
// has no limits. Devices are an allow list in any case, as with runc: the rules
// of r, then those for the devices that every container has.
func Resources(r *specs.LinuxResources) (cgroup.Limits, []string, error) {
	if r == nil {
		r = &specs.LinuxResources{}
	}
	var l cgroup.Limits
	var warnings []string
	if r.Memory != nil && (r.Memory.Kernel != nil || r.Memory.KernelTCP != nil) { //nolint:staticcheck // warned of
		warnings = append(warnings, "linux.resources.memory: limits of kernel memory have no effect since Linux 5.4")
	}
	if r.Memory != nil && r.Memory.UseHierarchy != nil && !*r.Memory.UseHierarchy {
		warnings = append(warnings, "linux.resources.memory.useHierarchy: always on since Linux 5.11")
	}
	for _, step := range []func(*specs.LinuxResources, *cgroup.Limits) error{
		memoryLimits, cpuLimits, blockLimits, otherLimits, deviceRules,
	} {
		if err := step(r, &l); err != nil {
			return cgroup.Limits{}, nil, err
		}
	}
	if err := l.Validate(); err != nil {
		return cgroup.Limits{}, nil, invalid("linux.resources", "%v", err)
	}
	return l, warnings, nil
}

// limit is a number that -1 and absence make unlimited.
func limit(field string, v *int64) (int64, error) {
	switch {
	case v == nil || *v == -1:
		return 0, nil
	case *v < -1:
		return 0, invalid("linux.resources."+field, "%d", *v)
	}
	return *v, nil
}

// natural is an absent number or one that an int64 holds.
func natural(field string, v *uint64) (int64, error) {
	switch {
	case v == nil:
		return 0, nil
	case *v > 1<<62:
		return 0, invalid("linux.resources."+field, "%d", *v)
	}
	return int64(*v), nil
}

func memoryLimits(r *specs.LinuxResources, l *cgroup.Limits) (err error) {
	m := r.Memory
	if m == nil {
		return nil
	}
	if l.MemoryBytes, err = limit("memory.limit", m.Limit); err != nil {
		return err
	}
	if l.MemoryReservation, err = limit("memory.reservation", m.Reservation); err != nil {
		return err
	}
	both, err := limit("memory.swap", m.Swap)
	switch {
	case err != nil:
		return err
	case both == 0:
	case l.MemoryBytes == 0:
		return invalid("linux.resources.memory.swap", "%d without a limit of memory", both)
	case both < l.MemoryBytes:
		return invalid("linux.resources.memory.swap", "%d is memory and swap together, and memory alone is %d", both, l.MemoryBytes)
	case both == l.MemoryBytes:
		l.SwapBytes = -1
	default:
		l.SwapBytes = both - l.MemoryBytes
	}
	if m.Swappiness != nil {
		if *m.Swappiness > 100 {
			return invalid("linux.resources.memory.swappiness", "%d", *m.Swappiness)
		}
		v := int64(*m.Swappiness)
		l.Swappiness = &v
	}
	l.DisableOOMKiller = m.DisableOOMKiller != nil && *m.DisableOOMKiller
	l.CheckBeforeUpdate = m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate
	return nil
}

func cpuLimits(r *specs.LinuxResources, l *cgroup.Limits) (err error) {
	c := r.CPU
	if c == nil {
		return nil
	}
	if l.CPUQuota, err = limit("cpu.quota", c.Quota); err != nil {
		return err
	}
	if l.RealtimeRuntime, err = limit("cpu.realtimeRuntime", c.RealtimeRuntime); err != nil {
		return err
	}
	for _, n := range []struct {
		field string
		from  *uint64
		to    *int64
	}{
		{"cpu.period", c.Period, &l.CPUPeriod},
		{"cpu.burst", c.Burst, &l.CPUBurst},
		{"cpu.shares", c.Shares, &l.CPUShares},
		{"cpu.realtimePeriod", c.RealtimePeriod, &l.RealtimePeriod},
	} {
		if *n.to, err = natural(n.field, n.from); err != nil {
			return err
		}
	}
	if c.Idle != nil && *c.Idle != 0 && *c.Idle != 1 {
		return invalid("linux.resources.cpu.idle", "%d", *c.Idle)
	}
	l.CPUIdle = c.Idle != nil && *c.Idle == 1
	l.CPUSet, l.MemoryNodes = c.Cpus, c.Mems
	return nil
}

func blockLimits(r *specs.LinuxResources, l *cgroup.Limits) error {
	b := r.BlockIO
	if b == nil {
		return nil
	}
	weight := func(v *uint16) uint16 {
		if v == nil {
			return 0
		}
		return *v
	}
	out := &cgroup.BlockIO{Weight: weight(b.Weight), LeafWeight: weight(b.LeafWeight)}
	for _, d := range b.WeightDevice {
		out.WeightDevice = append(out.WeightDevice, cgroup.WeightDevice{
			Major: d.Major, Minor: d.Minor, Weight: weight(d.Weight), LeafWeight: weight(d.LeafWeight),
		})
	}
	for _, t := range []struct {
		from []specs.LinuxThrottleDevice
		to   *[]cgroup.ThrottleDevice
	}{
		{b.ThrottleReadBpsDevice, &out.ReadBPS},
		{b.ThrottleWriteBpsDevice, &out.WriteBPS},
		{b.ThrottleReadIOPSDevice, &out.ReadIOPS},
		{b.ThrottleWriteIOPSDevice, &out.WriteIOPS},
	} {
		for _, d := range t.from {
			*t.to = append(*t.to, cgroup.ThrottleDevice{Major: d.Major, Minor: d.Minor, Rate: d.Rate})
		}
	}
	l.BlockIO = out
	return nil
}

func otherLimits(r *specs.LinuxResources, l *cgroup.Limits) error {
	// 0 was "no limit" before version 1.3 of the specification, and still is
	// what engines send for it.
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0 {
		l.Pids = *r.Pids.Limit
	}
	for _, h := range r.HugepageLimits {
		l.HugePages = append(l.HugePages, cgroup.HugePageLimit{PageSize: h.Pagesize, Bytes: h.Limit})
	}
	if n := r.Network; n != nil {
		if n.ClassID != nil {
			l.NetworkClass = *n.ClassID
		}
		for _, p := range n.Priorities {
			l.NetworkPriorities = append(l.NetworkPriorities, cgroup.InterfacePriority{Interface: p.Name, Priority: p.Priority})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Rdma)) {
		one := r.Rdma[name]
		l.RDMA = append(l.RDMA, cgroup.RDMALimit{Device: name, Handles: one.HcaHandles, Objects: one.HcaObjects})
	}
	l.Unified = r.Unified
	return nil
}

func deviceRules(r *specs.LinuxResources, l *cgroup.Limits) error {
	number := func(v *int64) int64 {
		if v == nil {
			return -1
		}
		return *v
	}
	for _, d := range r.Devices {
		rule := cgroup.DeviceRule{Allow: d.Allow, Type: 'a', Major: number(d.Major), Minor: number(d.Minor), Access: d.Access}
		switch d.Type {
		case "", "a":
		case "b", "c":
			rule.Type = d.Type[0]
		default:
			return invalid("linux.resources.devices", "type %q", clip(d.Type))
		}
		if rule.Access == "" {
			rule.Access = "rwm"
		}
		l.DeviceRules = append(l.DeviceRules, rule)
	}
	for _, d := range []cgroup.DeviceRule{
		{Type: 'c', Major: -1, Minor: -1, Access: "m"},    // a node alone is harmless
		{Type: 'b', Major: -1, Minor: -1, Access: "m"},    //
		{Type: 'c', Major: 1, Minor: 3, Access: "rwm"},    // null
		{Type: 'c', Major: 1, Minor: 5, Access: "rwm"},    // zero
		{Type: 'c', Major: 1, Minor: 7, Access: "rwm"},    // full
		{Type: 'c', Major: 1, Minor: 8, Access: "rwm"},    // random
		{Type: 'c', Major: 1, Minor: 9, Access: "rwm"},    // urandom
		{Type: 'c', Major: 5, Minor: 0, Access: "rwm"},    // tty
		{Type: 'c', Major: 5, Minor: 2, Access: "rwm"},    // ptmx
		{Type: 'c', Major: 136, Minor: -1, Access: "rwm"}, // pts
	} {
		d.Allow = true
		l.DeviceRules = append(l.DeviceRules, d)
	}
	return nil
}
