package runtime

import (
	goruntime "runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/gantry-project/gantry/engine/oci"
)

// Features tells what configurations may ask for (runtime-spec features.md).
// It names what this program understands, not what the host allows.
func Features() features.Features {
	yes, no := ref(true), ref(false)
	f := features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: oci.Version(),
		Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions:  oci.MountOptions(),
		Linux: &features.Linux{
			Namespaces:      []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Capabilities:    oci.Capabilities(),
			Cgroup:          &features.Cgroup{V1: yes, V2: yes, Systemd: no, SystemdUser: no, Rdma: yes},
			Apparmor:        &features.Apparmor{Enabled: yes},
			Selinux:         &features.Selinux{Enabled: yes},
			IntelRdt:        &features.IntelRdt{Enabled: no},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: yes}},
			NetDevices:      &features.NetDevices{Enabled: no},
			Seccomp: &features.Seccomp{
				Enabled: yes,
				Actions: []string{
					"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
					"SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
				},
				Operators: []string{
					"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
				},
				Archs:      []string{"SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64"},
				KnownFlags: filterFlags(), SupportedFlags: filterFlags(),
			},
		},
	}
	if goruntime.GOARCH == "arm64" {
		f.Linux.Seccomp.Archs = []string{"SCMP_ARCH_AARCH64"}
	}
	return f
}

func filterFlags() []string {
	return []string{
		"SECCOMP_FILTER_FLAG_TSYNC", string(specs.LinuxSeccompFlagLog), string(specs.LinuxSeccompFlagSpecAllow),
		string(specs.LinuxSeccompFlagWaitKillableRecv),
	}
}

func ref[T any](v T) *T { return &v }
