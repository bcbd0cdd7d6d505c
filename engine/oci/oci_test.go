package oci_test

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/oci"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func host() oci.Host {
	return oci.Host{Arch: "amd64", Capabilities: oci.Capabilities()}
}

func config(t testing.TB) *specs.Spec {
	t.Helper()
	f, err := os.Open("testdata/docker.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := oci.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := oci.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func TestConvert(t *testing.T) {
	spec := config(t)
	got, err := oci.Convert(spec, "/bundle", host())
	if err != nil {
		t.Fatal(err)
	}
	p := got.Process
	if p.Rootfs != "/bundle/rootfs" || p.Hostname != "box" || p.Cwd != "/" || p.Args[0] != "sh" || !p.NoNewPrivs {
		t.Errorf("%+v", p)
	}
	if len(p.Mounts) != len(spec.Mounts) || p.Mounts[0].Destination != "/proc" || p.Mounts[len(p.Mounts)-1].Source != "/bundle/hosts" {
		t.Errorf("mounts %+v", p.Mounts)
	}
	if !slices.Contains(p.Namespaces, process.Namespace{Kind: process.TimeNamespace}) || p.TimeOffsets["monotonic"] != time.Hour+5 {
		t.Errorf("namespaces %+v, offsets %v", p.Namespaces, p.TimeOffsets)
	}
	if len(p.Seccomp) < 50 || p.SeccompFlags != unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW {
		t.Errorf("filter of %d instructions, flags %#x", len(p.Seccomp), p.SeccompFlags)
	}
	l := got.Limits
	if l.MemoryBytes != 64<<20 || l.SwapBytes != 64<<20 || l.Pids != 64 || l.CPUQuota != 50000 || l.CPUShares != 512 {
		t.Errorf("limits %+v", l)
	}
	if first := l.DeviceRules[0]; first.Allow || first.Type != 'a' || first.Major != -1 || !l.DeviceRules[len(l.DeviceRules)-1].Allow {
		t.Errorf("device rules %+v", l.DeviceRules)
	}
	if len(p.Hooks.Prestart) != 1 || p.Hooks.Prestart[0].Timeout != 5*time.Second || len(got.Poststop) != 1 {
		t.Errorf("hooks %+v, %+v", p.Hooks, got.Poststop)
	}
	if len(got.Warnings) != 0 || got.CgroupsPath != "/demo/box" {
		t.Errorf("warnings %q, path %q", got.Warnings, got.CgroupsPath)
	}
}

// Each case breaks one field of a good configuration; the error has a class
// and names the field.
func TestConvertRefuses(t *testing.T) {
	ptr := func(v int64) *int64 { return &v }
	for _, tt := range []struct {
		field  string
		class  error
		change func(*specs.Spec)
	}{
		{"ociVersion", errdefs.ErrInvalid, func(s *specs.Spec) { s.Version = "" }},
		{"ociVersion", errdefs.ErrInvalid, func(s *specs.Spec) { s.Version = "1.0" }},
		{"ociVersion", errdefs.ErrInvalid, func(s *specs.Spec) { s.Version = "1.0.x" }},
		{"ociVersion", errdefs.ErrUnsupported, func(s *specs.Spec) { s.Version = "2.0.0" }},
		{"vm", errdefs.ErrUnsupported, func(s *specs.Spec) { s.VM = &specs.VM{} }},
		{"linux", errdefs.ErrUnsupported, func(s *specs.Spec) { s.Linux, s.Windows = nil, &specs.Windows{} }},
		{"root.path", errdefs.ErrInvalid, func(s *specs.Spec) { s.Root = nil }},
		{"root.path", errdefs.ErrInvalid, func(s *specs.Spec) { s.Root.Path = "a\x00b" }},
		{"process", errdefs.ErrInvalid, func(s *specs.Spec) { s.Process = nil }},
		{"process.args", errdefs.ErrInvalid, func(s *specs.Spec) { s.Process.Args = nil }},
		{"process.env", errdefs.ErrInvalid, func(s *specs.Spec) { s.Process.Env = []string{"A=\x00"} }},
		{"process.cwd", errdefs.ErrInvalid, func(s *specs.Spec) { s.Process.Cwd = "" }},
		{"process.cwd", errdefs.ErrInvalid, func(s *specs.Spec) { s.Process.Cwd = "tmp" }},
		{"process.user", errdefs.ErrInvalid, func(s *specs.Spec) { s.Process.User.UID = 1 << 31 }},
		{"process.user.umask", errdefs.ErrInvalid, func(s *specs.Spec) { u := uint32(0o1000); s.Process.User.Umask = &u }},
		{"process.rlimits.RLIMIT_X", errdefs.ErrInvalid, func(s *specs.Spec) { s.Process.Rlimits[0].Type = "RLIMIT_X" }},
		{"process.rlimits.RLIMIT_NOFILE", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Process.Rlimits = append(s.Process.Rlimits, s.Process.Rlimits[0])
		}},
		{"process.oomScoreAdj", errdefs.ErrInvalid, func(s *specs.Spec) { v := 1001; s.Process.OOMScoreAdj = &v }},
		{"process.scheduler.policy", errdefs.ErrInvalid, func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_X"} }},
		{"process.scheduler.policy", errdefs.ErrUnsupported, func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedISO} }},
		{"process.scheduler.priority", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Priority: 5}
		}},
		{"process.ioPriority.class", errdefs.ErrInvalid, func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "X"} }},
		{"process.ioPriority.priority", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		}},
		{"process.execCPUAffinity.final", errdefs.ErrInvalid, func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "a"} }},
		{"process.consoleSize", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Height: 1 << 16}
		}},
		{"hostname", errdefs.ErrInvalid, func(s *specs.Spec) { drop(s, specs.UTSNamespace) }},
		{"domainname", errdefs.ErrInvalid, func(s *specs.Spec) { s.Hostname, s.Domainname = "", "d"; drop(s, specs.UTSNamespace) }},
		{"linux.namespaces", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "x" }},
		{"linux.namespaces.pid", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "pid"})
		}},
		{"linux.namespaces.pid", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "proc/1/ns/pid" }},
		{"linux.namespaces", errdefs.ErrUnsupported, func(s *specs.Spec) { drop(s, specs.MountNamespace) }},
		{"linux.uidMappings", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }},
		{"linux.uidMappings", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		}},
		{"linux.gidMappings", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}}
			s.Linux.GIDMappings = []specs.LinuxIDMapping{{Size: 5}, {ContainerID: 4, HostID: 100, Size: 1}}
		}},
		{"linux.timeOffsets", errdefs.ErrInvalid, func(s *specs.Spec) { drop(s, specs.TimeNamespace) }},
		{"linux.timeOffsets", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.TimeOffsets["realtime"] = specs.LinuxTimeOffset{} }},
		{"linux.timeOffsets", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.TimeOffsets["boottime"] = specs.LinuxTimeOffset{Secs: 1 << 62} }},
		{"linux.rootfsPropagation", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.RootfsPropagation = "no" }},
		{"mounts.", errdefs.ErrInvalid, func(s *specs.Spec) { s.Mounts[0].Destination = "" }},
		{"mounts./proc", errdefs.ErrInvalid, func(s *specs.Spec) { s.Mounts[0].Type = "" }},
		{"mounts./proc", errdefs.ErrInvalid, func(s *specs.Spec) { s.Mounts[0].Type, s.Mounts[0].Source = "bind", "" }},
		{"mounts./proc", errdefs.ErrInvalid, func(s *specs.Spec) { s.Mounts[0].UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }},
		{"linux.mountLabel", errdefs.ErrUnsupported, func(s *specs.Spec) { s.Linux.MountLabel = "l" }},
		{"linux.devices.dev/x", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Devices[0].Path = "dev/x" }},
		{"linux.devices./dev/fuse", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Devices[0].Type = "x" }},
		{"linux.devices./dev/fuse", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Devices[0].Major = -1 }},
		{"linux.devices./dev/fuse", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Linux.Devices = append(s.Linux.Devices, s.Linux.Devices[0])
		}},
		{"linux.maskedPaths", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"proc"} }},
		{"linux.readonlyPaths", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{""} }},
		{"linux.sysctl.vm.swappiness", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }},
		{"linux.sysctl.kernel.hostname", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.hostname": "x"} }},
		{"linux.sysctl.net/ipv4/ip_forward", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net/ipv4/ip_forward": "1"}
			drop(s, specs.NetworkNamespace)
		}},
		{"linux.sysctl.net.../x", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.../x": "1"} }},
		{"linux.intelRdt", errdefs.ErrUnsupported, func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }},
		{"linux.netDevices", errdefs.ErrUnsupported, func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"a": {}} }},
		{"linux.memoryPolicy", errdefs.ErrUnsupported, func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{} }},
		{"linux.personality.domain", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "BSD"} }},
		{"linux.personality.flags", errdefs.ErrUnsupported, func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{"x"}}
		}},
		{"linux.resources.memory.limit", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Resources.Memory.Limit = ptr(-2) }},
		{"linux.resources.memory.swap", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Resources.Memory.Swap = ptr(1) }},
		{"linux.resources.memory.swap", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Resources.Memory.Limit = nil }},
		{"linux.resources.memory.swappiness", errdefs.ErrInvalid, func(s *specs.Spec) { v := uint64(101); s.Linux.Resources.Memory.Swappiness = &v }},
		{"linux.resources.cpu.idle", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Resources.CPU.Idle = ptr(2) }},
		{"linux.resources.cpu.shares", errdefs.ErrInvalid, func(s *specs.Spec) { v := uint64(1 << 63); s.Linux.Resources.CPU.Shares = &v }},
		{"linux.resources", errdefs.ErrInvalid, func(s *specs.Spec) { v := uint64(5); s.Linux.Resources.CPU.Period = &v }},
		{"linux.resources.devices", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Resources.Devices[0].Type = "x" }},
		{"linux.seccomp.defaultAction", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Seccomp.DefaultAction = "SCMP_ACT_X" }},
		{"linux.seccomp.defaultAction", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Linux.Seccomp.DefaultAction = specs.ActNotify
			s.Linux.Seccomp.DefaultErrnoRet = nil
		}},
		{"linux.seccomp.architectures", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Seccomp.Architectures = []specs.Arch{"SCMP_ARCH_VAX"} }},
		{"linux.seccomp.flags", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{"x"} }},
		{"linux.seccomp.flags", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}
		}},
		{"linux.seccomp.syscalls", errdefs.ErrInvalid, func(s *specs.Spec) { s.Linux.Seccomp.Syscalls[0].Names = nil }},
		{"linux.seccomp.syscalls", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Linux.Seccomp.Syscalls = []specs.LinuxSyscall{{Names: []string{"write"}, Action: specs.ActNotify}}
		}},
		{"linux.seccomp.syscalls.read.ErrnoRet", errdefs.ErrInvalid, func(s *specs.Spec) {
			v := uint(1)
			s.Linux.Seccomp.Syscalls = []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, ErrnoRet: &v}}
		}},
		{"linux.seccomp.syscalls.read", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Linux.Seccomp.Syscalls = []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActLog, Args: []specs.LinuxSeccompArg{{Op: "x"}}}}
		}},
		{"linux.seccomp.listenerPath", errdefs.ErrInvalid, func(s *specs.Spec) {
			s.Linux.Seccomp.Syscalls = []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}
		}},
		{"hooks.prestart.path", errdefs.ErrInvalid, func(s *specs.Spec) { s.Hooks.Prestart[0].Path = "true" }}, //nolint:staticcheck // deprecated, and in use
		{"hooks.poststop.timeout", errdefs.ErrInvalid, func(s *specs.Spec) { v := 0; s.Hooks.Poststop[0].Timeout = &v }},
		{"annotations", errdefs.ErrInvalid, func(s *specs.Spec) { s.Annotations = map[string]string{"": ""} }},
	} {
		spec := config(t)
		tt.change(spec)
		_, err := oci.Convert(spec, "/bundle", host())
		if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.field+":") {
			t.Errorf("%s: %v", tt.field, err)
		}
	}
}

// drop removes a namespace.
func drop(s *specs.Spec, kind specs.LinuxNamespaceType) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":       "",
		"null":        " null ",
		"list":        "[]",
		"trailing":    `{"ociVersion":"1.0.0"} x`,
		"wrong type":  `{"process":{"args":"sh"}}`,
		"negative id": `{"process":{"user":{"uid":-1}}}`,
		"deep":        `{"annotations":` + strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat("}", 101),
	} {
		if _, err := oci.Parse([]byte(text)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := oci.Parse([]byte(`{"process":{"args":"sh"}}`))
	if err == nil || !strings.Contains(err.Error(), "process.args") {
		t.Errorf("%v does not name the field", err)
	}
	_, err = oci.Parse([]byte(`{"linux":{"resources":{"blockIO":{"weight":"x"}}}}`))
	if err == nil || !strings.Contains(err.Error(), "linux.resources.blockIO.weight") {
		t.Errorf("%v does not name the field", err)
	}
	if _, err := oci.Read(strings.NewReader(strings.Repeat(" ", oci.MaxSize+1))); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("large: %v", err)
	}
	if _, err := oci.Parse([]byte(`{"ociVersion":"1.0.0","later":{"a":["]]]{{{\""]}}`)); err != nil {
		t.Errorf("unknown property: %v", err)
	}
}

func TestCapabilitiesThatCannotBeGranted(t *testing.T) {
	p := &specs.Process{Args: []string{"a"}, Cwd: "/", Capabilities: &specs.LinuxCapabilities{
		Bounding: []string{"CAP_CHOWN", "CAP_FLY", "CAP_SYS_ADMIN"}, Permitted: []string{"CAP_CHOWN"},
		Effective: []string{"CAP_CHOWN", "CAP_KILL"}, Ambient: []string{"CAP_CHOWN"},
	}}
	h := oci.Host{Capabilities: []string{"CAP_CHOWN", "CAP_KILL"}}
	got, warnings, err := oci.ConvertProcess(p, h, false)
	if err != nil || len(warnings) != 4 {
		t.Errorf("%v, %q", err, warnings)
	}
	if !slices.Equal(got.Sets.Bounding, []string{"CAP_CHOWN"}) || !slices.Equal(got.Sets.Effective, []string{"CAP_CHOWN"}) || got.Sets.Ambient != nil {
		t.Errorf("%+v", got.Sets)
	}
	got, _, err = oci.ConvertProcess(p, h, true)
	if err != nil || len(got.Sets.Bounding) != 2 {
		t.Errorf("own user namespace: %v, %+v", err, got.Sets)
	}
}

func FuzzConvert(f *testing.F) {
	good, err := os.ReadFile("testdata/docker.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"ociVersion":"1.0.0","root":{"path":"r"},"process":{"args":["a"],"cwd":"/"},"linux":{"namespaces":[{"type":"mount"}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := oci.Parse(data)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Fatalf("class of %v", err)
			}
			return
		}
		got, err := oci.Convert(spec, "/b", host())
		switch {
		case err != nil && !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, errdefs.ErrUnsupported):
			t.Fatalf("class of %v", err)
		case err == nil:
			if _, err := json.Marshal(got); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(got.Process.Rootfs, "/") || len(got.Process.Args) == 0 {
				t.Fatalf("%+v", got.Process)
			}
		}
	})
}
