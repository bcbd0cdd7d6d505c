package cgroup

import (
	"slices"
	"strings"
)

// The CPU period when only a quota is given, and the kernel's bounds.
const (
	defaultPeriod = 100000
	minPeriod     = 1000
	maxPeriod     = 1000000
	minQuota      = 1000
	minShares     = 2
	maxShares     = 262144
	defaultShares = 1024
	minWeight     = 10
	maxWeight     = 1000
	maxRules      = 1024 // so that a program stays small
)

// Validate refuses values that no kernel takes: errdefs.ErrInvalid names the
// limit. What this host cannot enforce is found when they are set.
func (l Limits) Validate() error { return l.validate() }

// validate refuses values that no kernel takes.
func (l Limits) validate() error {
	for _, check := range []func() error{l.validateMemory, l.validateCPU, l.validateDevices, l.validateOthers} {
		if err := check(); err != nil {
			return err
		}
	}
	if l.BlockIO != nil {
		return l.BlockIO.validate()
	}
	return nil
}

func (l Limits) validateMemory() error {
	switch {
	case l.MemoryBytes < 0:
		return invalid(LimitMemory, "%d bytes", l.MemoryBytes)
	case l.SwapBytes < -1 || l.SwapBytes > 1<<62 || l.MemoryBytes > 1<<62:
		return invalid(LimitSwap, "%d bytes", l.SwapBytes)
	case l.MemoryReservation < 0:
		return invalid(LimitMemoryReservation, "%d bytes", l.MemoryReservation)
	case l.MemoryHigh < 0:
		return invalid(LimitMemoryHigh, "%d bytes", l.MemoryHigh)
	case l.Swappiness != nil && (*l.Swappiness < 0 || *l.Swappiness > 100):
		return invalid(LimitSwappiness, "%d is not within 0 and 100", *l.Swappiness)
	}
	return nil
}

func (l Limits) validateCPU() error {
	switch {
	case l.CPUQuota < 0 || l.CPUQuota != 0 && l.CPUQuota < minQuota:
		return invalid(LimitCPUQuota, "%d is less than %d microseconds", l.CPUQuota, minQuota)
	case l.CPUPeriod != 0 && (l.CPUPeriod < minPeriod || l.CPUPeriod > maxPeriod):
		return invalid("cpu period", "%d is not within %d and %d microseconds", l.CPUPeriod, minPeriod, maxPeriod)
	case l.CPUBurst < 0 || l.CPUBurst > l.CPUQuota:
		return invalid(LimitCPUBurst, "%d is not within 0 and the quota of %d microseconds", l.CPUBurst, l.CPUQuota)
	case l.CPUShares != 0 && (l.CPUShares < minShares || l.CPUShares > maxShares):
		return invalid(LimitCPUShares, "%d is not within %d and %d", l.CPUShares, minShares, maxShares)
	case l.RealtimeRuntime < 0 || l.RealtimePeriod < 0 || l.RealtimePeriod != 0 && l.RealtimeRuntime > l.RealtimePeriod:
		return invalid(LimitCPURealtime, "%d of %d microseconds", l.RealtimeRuntime, l.RealtimePeriod)
	case strings.Trim(l.CPUSet, "0123456789,-") != "":
		return invalid(LimitCPUSet, "%q", l.CPUSet)
	case strings.Trim(l.MemoryNodes, "0123456789,-") != "":
		return invalid(LimitMemoryNodes, "%q", l.MemoryNodes)
	}
	return nil
}

func (l Limits) validateDevices() error {
	for _, d := range l.Devices {
		if d.Type != 'c' && d.Type != 'b' {
			return invalid(LimitDevices, "type %q", d.Type)
		}
	}
	if l.Devices != nil && l.DeviceRules != nil {
		return invalid(LimitDevices, "both a list of devices and rules")
	}
	rules := l.rules()
	if len(rules) > maxRules {
		return invalid(LimitDevices, "%d are more than %d", len(rules), maxRules)
	}
	for _, r := range rules {
		switch {
		case r.Type != 'c' && r.Type != 'b' && r.Type != 'a':
			return invalid(LimitDevices, "type %q", r.Type)
		case r.Major < -1 || r.Major >= 1<<12 || r.Minor < -1 || r.Minor >= 1<<20:
			return invalid(LimitDevices, "number %d:%d", r.Major, r.Minor)
		case r.Access == "" || strings.Trim(r.Access, "rwm") != "":
			return invalid(LimitDevices, "access %q", r.Access)
		}
	}
	return nil
}

func (l Limits) validateOthers() error {
	if l.Pids < 0 {
		return invalid(LimitPids, "%d", l.Pids)
	}
	sizes := map[string]bool{}
	for _, h := range l.HugePages {
		if h.PageSize == "" || strings.Trim(h.PageSize, "0123456789KMGTB") != "" || sizes[h.PageSize] || h.Bytes > 1<<62 {
			return invalid(LimitHugePages, "%d bytes in pages of %q", h.Bytes, h.PageSize)
		}
		sizes[h.PageSize] = true
	}
	for _, p := range l.NetworkPriorities {
		if !word(p.Interface, 15) {
			return invalid(LimitNetworkPriorities, "interface %q", p.Interface)
		}
	}
	for _, r := range l.RDMA {
		if !word(r.Device, 64) {
			return invalid(LimitRDMA, "device %q", r.Device)
		}
	}
	for file, value := range l.Unified {
		if err := validUnified(file, value); err != nil {
			return err
		}
	}
	return nil
}

func (b *BlockIO) validate() error {
	weight := func(w uint16) bool { return w == 0 || w >= minWeight && w <= maxWeight }
	if !weight(b.Weight) || !weight(b.LeafWeight) {
		return invalid(LimitIOWeight, "%d, leaf %d are not within %d and %d", b.Weight, b.LeafWeight, minWeight, maxWeight)
	}
	for _, d := range b.WeightDevice {
		if d.Major < 0 || d.Minor < 0 || !weight(d.Weight) || !weight(d.LeafWeight) {
			return invalid(LimitIOWeightDevice, "%d, leaf %d of %d:%d", d.Weight, d.LeafWeight, d.Major, d.Minor)
		}
	}
	for _, d := range slices.Concat(b.ReadBPS, b.WriteBPS, b.ReadIOPS, b.WriteIOPS) {
		if d.Major < 0 || d.Minor < 0 {
			return invalid(LimitIOThrottle, "device %d:%d", d.Major, d.Minor)
		}
	}
	for _, d := range slices.Concat(b.ReadIOPS, b.WriteIOPS) {
		if d.Rate > 1<<32-1 {
			return invalid(LimitIOThrottle, "%d operations per second", d.Rate)
		}
	}
	return nil
}

// word accepts what a line of a kernel file can take as one word.
func word(s string, size int) bool {
	return s != "" && len(s) <= size && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 127 || r == '/' })
}

// validUnified accepts a file of a controller or of cgroup's own limits, but
// none by which processes are moved, stopped or ended.
func validUnified(file, value string) error {
	controller, rest, ok := strings.Cut(file, ".")
	switch {
	case !ok || rest == "" || !word(file, 128) || strings.Trim(controller, "abcdefghijklmnopqrstuvwxyz_") != "":
		return invalid(LimitUnified, "file %q", file)
	case controller == "cgroup" && !strings.HasPrefix(rest, "max.") && rest != "pressure":
		return invalid(LimitUnified, "file %q is the engine's", file)
	case value == "" || len(value) > 4096 || strings.Contains(value, "\x00"):
		return invalid(LimitUnified, "value of %s", file)
	}
	return nil
}
