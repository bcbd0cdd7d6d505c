package foreign

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// specVersion is what runtimes of Debian 12 understand; nothing newer is used.
const specVersion = "1.0.2"

// refused is what a runtime cannot be given, or would pass over in silence if
// it is older than the field.
func refused(s *process.Spec) error {
	for what, has := range map[string]bool{
		"a compiled system call filter":      len(s.Seccomp) > 0 && s.RuntimeSeccomp == nil && s.Join == "",
		"a listener of system calls":         s.SeccompListener != nil,
		"files to preserve":                  len(s.Preserve) > 0,
		"a gate":                             s.Gate != nil,
		"hooks":                              len(s.Hooks.Prestart)+len(s.Hooks.CreateRuntime)+len(s.Hooks.CreateContainer)+len(s.Hooks.StartContainer) > 0,
		"a scheduling policy":                s.Scheduler != nil,
		"a priority of input and output":     s.IOPriority != nil,
		"a processor affinity":               s.CPUAffinity != "" || s.FinalAffinity != "",
		"a domain name":                      s.Domainname != "",
		"a birth in a control group of v2":   s.CgroupDir != nil && len(s.CgroupFiles) == 0,
		"a root that is mounted nowhere":     s.Root != nil,
		"namespaces that are open files":     slices.ContainsFunc(s.Namespaces, func(n process.Namespace) bool { return n.File != nil }),
		"id-mapped mounts":                   slices.ContainsFunc(s.Mounts, idMapped),
		"files of a mount":                   slices.ContainsFunc(s.Mounts, func(m process.Mount) bool { return len(m.Files)+len(m.Links) > 0 }),
		"namespaces without a mount one":     s.Join == "" && !has(s, process.MountNamespace),
		"the joined mount namespace":         joined(s, process.MountNamespace),
		"a user namespace of unknown ids":    has(s, process.UserNamespace) && (len(s.UIDMap) == 0 || len(s.GIDMap) == 0),
		"a pid namespace that is the host's": s.Join == "" && !has(s, process.PIDNamespace),
	} {
		if has {
			return fmt.Errorf("another runtime cannot be given %s: %w", what, errdefs.ErrUnsupported)
		}
	}
	return nil
}

func idMapped(m process.Mount) bool {
	return len(m.UIDMap)+len(m.GIDMap) > 0 || slices.ContainsFunc(m.Options, func(o string) bool {
		return strings.HasPrefix(o, "idmap") || strings.HasPrefix(o, "ridmap")
	})
}

func has(s *process.Spec, kind process.NamespaceKind) bool {
	return slices.ContainsFunc(s.Namespaces, func(n process.Namespace) bool { return n.Kind == kind })
}

func joined(s *process.Spec, kind process.NamespaceKind) bool {
	return slices.ContainsFunc(s.Namespaces, func(n process.Namespace) bool { return n.Kind == kind && n.Path != "" })
}

// rootGID is the host's id of the container's group 0.
func rootGID(s *process.Spec) int { return hostID(s.GIDMap) }

func hostID(maps []process.IDMap) int {
	for _, m := range maps {
		if m.ContainerID == 0 {
			return int(m.HostID)
		}
	}
	return 0
}

// checkIDs refuses ids that the container does not have.
func checkIDs(s *process.Spec) error {
	mapped := func(id uint32, maps []process.IDMap) bool {
		return len(maps) == 0 || slices.ContainsFunc(maps, func(m process.IDMap) bool {
			return id >= m.ContainerID && uint64(id) < uint64(m.ContainerID)+uint64(m.Size)
		})
	}
	ok := mapped(s.UID, s.UIDMap) && mapped(s.GID, s.GIDMap)
	for _, g := range s.Groups {
		ok = ok && mapped(g, s.GIDMap)
	}
	if !ok {
		return errdefs.WithPublic(fmt.Errorf("user %d, groups %d %v: %w", s.UID, s.GID, s.Groups, errdefs.ErrInvalid),
			"the user or a group is outside of the instance's ids")
	}
	return nil
}

// configOf is the configuration of a bundle whose root is at rootfs.
func configOf(s *process.Spec, rootfs string) ([]byte, error) {
	if err := errors.Join(refused(s), checkIDs(s)); err != nil {
		return nil, err
	}
	group, err := groupPath(s)
	if err != nil {
		return nil, err
	}
	c := specs.Spec{
		Version: specVersion, Hostname: s.Hostname, Process: commandOf(s),
		Root: &specs.Root{Path: rootfs, Readonly: s.RootReadonly},
		Linux: &specs.Linux{
			UIDMappings: mappings(s.UIDMap), GIDMappings: mappings(s.GIDMap), Sysctl: s.Sysctls,
			CgroupsPath: group, RootfsPropagation: s.RootPropagation,
			MaskedPaths: s.MaskedPaths, ReadonlyPaths: s.ReadonlyPaths,
			// the control group of the container says what may be used, and
			// devices cannot be made inside; runtimes want to say it themselves
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
	if s.Personality != nil {
		switch *s.Personality {
		case 0:
			c.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux}
		case 8:
			c.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
		default:
			return nil, fmt.Errorf("another runtime cannot be given personality %#x: %w", *s.Personality, errdefs.ErrUnsupported)
		}
	}
	for _, m := range s.Mounts {
		c.Mounts = append(c.Mounts, mountOf(m))
	}
	c.Linux.Namespaces = namespacesOf(s)
	c.Linux.TimeOffsets = timeOffsets(s.TimeOffsets)
	for _, d := range s.Devices {
		mode := os.FileMode(d.Mode)
		c.Linux.Devices = append(c.Linux.Devices, specs.LinuxDevice{
			Path: d.Path, Type: string(d.Type), Major: d.Major, Minor: d.Minor, FileMode: &mode, UID: &d.UID, GID: &d.GID,
		})
		c.Linux.Resources.Devices = append(c.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
			Allow: true, Type: string(d.Type), Major: &d.Major, Minor: &d.Minor, Access: "rwm",
		})
	}
	if s.RuntimeSeccomp != nil {
		if err := json.Unmarshal(s.RuntimeSeccomp, &c.Linux.Seccomp); err != nil {
			return nil, fmt.Errorf("system call filter for another runtime: %w: %w", err, errdefs.ErrInvalid)
		}
	}
	return json.Marshal(c)
}

// processOf is the process object of an exec.
func processOf(s *process.Spec) ([]byte, error) {
	if err := refused(s); err != nil {
		return nil, err
	}
	return json.Marshal(commandOf(s))
}

func commandOf(s *process.Spec) *specs.Process {
	p := &specs.Process{
		Terminal: s.Terminal, Args: s.Args, Env: s.Env, Cwd: s.Cwd, NoNewPrivileges: s.NoNewPrivs,
		User:            specs.User{UID: s.UID, GID: s.GID, AdditionalGids: s.Groups, Umask: s.Umask},
		ApparmorProfile: s.AppArmorProfile, SelinuxLabel: s.SELinuxLabel, OOMScoreAdj: s.OOMScoreAdj,
		Rlimits: rlimitsOf(s.Rlimits),
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	sets := s.Sets
	if sets == nil {
		sets = &process.CapabilitySets{Bounding: s.Capabilities, Permitted: s.Capabilities, Effective: s.Capabilities}
	}
	p.Capabilities = &specs.LinuxCapabilities{
		Bounding: sets.Bounding, Effective: sets.Effective, Inheritable: sets.Inheritable, Permitted: sets.Permitted, Ambient: sets.Ambient,
	}
	if s.Terminal {
		size := sizeOf(s)
		p.ConsoleSize = &specs.Box{Height: uint(size.Row), Width: uint(size.Col)}
	}
	return p
}

// rlimitsOf lowers what is above the runner's own hard limits and cannot be
// raised, as process.Spec says.
func rlimitsOf(list []process.Rlimit) (out []specs.POSIXRlimit) {
	numbers := map[string]int{
		"RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5,
		"RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10,
		"RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
	}
	have, err := linux.Capabilities()
	raise := err == nil && have&(1<<unix.CAP_SYS_RESOURCE) != 0
	for _, l := range list {
		var own unix.Rlimit
		if n, ok := numbers[l.Name]; ok && !raise && unix.Getrlimit(n, &own) == nil {
			l.Hard = min(l.Hard, own.Max)
			l.Soft = min(l.Soft, l.Hard)
		}
		out = append(out, specs.POSIXRlimit{Type: l.Name, Soft: l.Soft, Hard: l.Hard})
	}
	return out
}

func mappings(list []process.IDMap) (out []specs.LinuxIDMapping) {
	for _, m := range list {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size})
	}
	return out
}

// mountOf drops the names of controllers, by which only this engine's own
// runner chooses.
func mountOf(m process.Mount) specs.Mount {
	out := specs.Mount{Destination: m.Destination, Type: m.Type, Source: m.Source, Options: m.Options}
	if m.Type == "cgroup" {
		flags := []string{"ro", "rw", "nosuid", "nodev", "noexec", "relatime"}
		out.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return !slices.Contains(flags, o) })
	}
	if out.Source == "" {
		out.Source = m.Type
	}
	return out
}

// namespacesOf leaves out a new time namespace without offsets: it shows what
// the host's does, and runc knows none before 1.2.
func namespacesOf(s *process.Spec) (out []specs.LinuxNamespace) {
	for _, n := range s.Namespaces {
		if n.Kind == process.TimeNamespace && n.Path == "" && len(s.TimeOffsets) == 0 {
			continue
		}
		out = append(out, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(n.Kind), Path: n.Path})
	}
	return out
}

func timeOffsets(offsets map[string]time.Duration) map[string]specs.LinuxTimeOffset {
	if len(offsets) == 0 {
		return nil
	}
	out := map[string]specs.LinuxTimeOffset{}
	for clock, by := range offsets {
		secs, rest := by/time.Second, by%time.Second
		if rest < 0 {
			secs, rest = secs-1, rest+time.Second
		}
		out[clock] = specs.LinuxTimeOffset{Secs: int64(secs), Nanosecs: uint32(rest)}
	}
	return out
}
