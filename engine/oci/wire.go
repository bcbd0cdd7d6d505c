package oci

import (
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// wire is specs.Spec as Parse decodes it. The decoder prepares itself for every
// type that it can reach before it decodes the first byte, which takes longer
// than to decode a usual configuration; so what is seldom there is rare, and of
// what is for other platforms only that it is there counts.
type wire struct {
	Version     string             `json:"ociVersion"`
	Process     *processWire       `json:"process"`
	Root        *specs.Root        `json:"root"`
	Hostname    string             `json:"hostname"`
	Domainname  string             `json:"domainname"`
	Mounts      []specs.Mount      `json:"mounts"`
	Hooks       rare[*specs.Hooks] `json:"hooks"`
	Annotations map[string]string  `json:"annotations"`
	Linux       *linuxWire         `json:"linux"`
	Solaris     *struct{}          `json:"solaris"`
	Windows     *struct{}          `json:"windows"`
	VM          *struct{}          `json:"vm"`
	ZOS         *struct{}          `json:"zos"`
	FreeBSD     *struct{}          `json:"freebsd"`
}

// The fields of the following take the place of those of the same name in what
// they embed.

type processWire struct {
	specs.Process
	ConsoleSize     rare[*specs.Box]             `json:"consoleSize"`
	Scheduler       rare[*specs.Scheduler]       `json:"scheduler"`
	IOPriority      rare[*specs.LinuxIOPriority] `json:"ioPriority"`
	ExecCPUAffinity rare[*specs.CPUAffinity]     `json:"execCPUAffinity"`
}

type linuxWire struct {
	specs.Linux
	Resources    *resourcesWire                         `json:"resources"`
	Devices      rare[[]specs.LinuxDevice]              `json:"devices"`
	NetDevices   rare[map[string]specs.LinuxNetDevice]  `json:"netDevices"`
	IntelRdt     rare[*specs.LinuxIntelRdt]             `json:"intelRdt"`
	MemoryPolicy rare[*specs.LinuxMemoryPolicy]         `json:"memoryPolicy"`
	Personality  rare[*specs.LinuxPersonality]          `json:"personality"`
	TimeOffsets  rare[map[string]specs.LinuxTimeOffset] `json:"timeOffsets"`
}

type resourcesWire struct {
	specs.LinuxResources
	BlockIO        rare[*specs.LinuxBlockIO]        `json:"blockIO"`
	HugepageLimits rare[[]specs.LinuxHugepageLimit] `json:"hugepageLimits"`
	Network        rare[*specs.LinuxNetwork]        `json:"network"`
	Rdma           rare[map[string]specs.LinuxRdma] `json:"rdma"`
}

// rare is a value that the decoder prepares itself for when it is there.
type rare[T any] struct{ value T }

// UnmarshalJSON decodes the value.
func (r *rare[T]) UnmarshalJSON(text []byte) error { return json.Unmarshal(text, &r.value) }

// MarshalJSON is for the decoder, which prepares the encoding of what it can
// reach as well, but not beyond this.
func (r rare[T]) MarshalJSON() ([]byte, error) { return json.Marshal(r.value) }

func (w *wire) spec() *specs.Spec {
	s := &specs.Spec{
		Version: w.Version, Root: w.Root, Hostname: w.Hostname, Domainname: w.Domainname, Mounts: w.Mounts,
		Hooks: w.Hooks.value, Annotations: w.Annotations,
	}
	if p := w.Process; p != nil {
		s.Process = &p.Process
		s.Process.ConsoleSize, s.Process.Scheduler = p.ConsoleSize.value, p.Scheduler.value
		s.Process.IOPriority, s.Process.ExecCPUAffinity = p.IOPriority.value, p.ExecCPUAffinity.value
	}
	if l := w.Linux; l != nil {
		s.Linux = &l.Linux
		s.Linux.Devices, s.Linux.NetDevices, s.Linux.IntelRdt = l.Devices.value, l.NetDevices.value, l.IntelRdt.value
		s.Linux.MemoryPolicy, s.Linux.Personality, s.Linux.TimeOffsets = l.MemoryPolicy.value, l.Personality.value, l.TimeOffsets.value
		if r := l.Resources; r != nil {
			s.Linux.Resources = &r.LinuxResources
			s.Linux.Resources.BlockIO, s.Linux.Resources.HugepageLimits = r.BlockIO.value, r.HugepageLimits.value
			s.Linux.Resources.Network, s.Linux.Resources.Rdma = r.Network.value, r.Rdma.value
		}
	}
	if w.Solaris != nil {
		s.Solaris = &specs.Solaris{}
	}
	if w.Windows != nil {
		s.Windows = &specs.Windows{}
	}
	if w.VM != nil {
		s.VM = &specs.VM{}
	}
	if w.ZOS != nil {
		s.ZOS = &specs.ZOS{}
	}
	if w.FreeBSD != nil {
		s.FreeBSD = &specs.FreeBSD{}
	}
	return s
}
