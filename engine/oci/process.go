package oci

import (
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-project/gantry/engine/process"
)

// process is config.md, Process. A configuration may lack it until start; a
// container without it is refused earlier here, at create.
func (c *converter) process() error {
	if c.spec.Process == nil {
		return invalid("process", "missing")
	}
	_, userNS := c.has[specs.UserNamespace]
	warnings, err := applyProcess(c.spec.Process, &c.out.Process, c.host, userNS)
	c.out.Warnings = append(c.out.Warnings, warnings...)
	return err
}

// ConvertProcess turns a process object into the fields of a Spec that an exec
// session takes (Join is the caller's to set). userNS says that the container
// has a user namespace other than the caller's.
func ConvertProcess(p *specs.Process, host Host, userNS bool) (process.Spec, []string, error) {
	var out process.Spec
	warnings, err := applyProcess(p, &out, host, userNS)
	return out, warnings, err
}

func applyProcess(p *specs.Process, out *process.Spec, host Host, userNS bool) ([]string, error) {
	switch {
	case len(p.Args) == 0 || p.Args[0] == "":
		return nil, invalid("process.args", "no command")
	case p.Cwd == "":
		return nil, invalid("process.cwd", "missing")
	}
	if err := absolute("process.cwd", p.Cwd); err != nil {
		return nil, err
	}
	for _, list := range []struct {
		field  string
		values []string
	}{{"process.args", p.Args}, {"process.env", p.Env}} {
		if slices.ContainsFunc(list.values, func(v string) bool { return strings.ContainsRune(v, 0) }) {
			return nil, invalid(list.field, "a NUL in it")
		}
	}
	out.Args, out.Env, out.Cwd = p.Args, p.Env, p.Cwd
	out.NoNewPrivs = p.NoNewPrivileges
	out.AppArmorProfile, out.SELinuxLabel = p.ApparmorProfile, p.SelinuxLabel
	for _, step := range []func(*specs.Process, *process.Spec) error{applyUser, applyTerminal, applyRlimits, applyOOM, applyScheduling} {
		if err := step(p, out); err != nil {
			return nil, err
		}
	}
	return applyCapabilities(p.Capabilities, out, host, userNS), nil
}

func applyUser(p *specs.Process, out *process.Spec) error {
	for _, id := range append([]uint32{p.User.UID, p.User.GID}, p.User.AdditionalGids...) {
		if id > 1<<31-1 {
			return invalid("process.user", "id %d", id)
		}
	}
	if p.User.Umask != nil && *p.User.Umask > 0o777 {
		return invalid("process.user.umask", "%#o", *p.User.Umask)
	}
	out.UID, out.GID, out.Groups, out.Umask = p.User.UID, p.User.GID, p.User.AdditionalGids, p.User.Umask
	return nil
}

func applyTerminal(p *specs.Process, out *process.Spec) error {
	out.Terminal = p.Terminal
	if p.ConsoleSize == nil || !p.Terminal {
		return nil
	}
	if p.ConsoleSize.Height > 1<<16-1 || p.ConsoleSize.Width > 1<<16-1 {
		return invalid("process.consoleSize", "%d by %d", p.ConsoleSize.Height, p.ConsoleSize.Width)
	}
	out.ConsoleRows, out.ConsoleColumns = uint16(p.ConsoleSize.Height), uint16(p.ConsoleSize.Width)
	return nil
}

func applyRlimits(p *specs.Process, out *process.Spec) error {
	seen := map[string]bool{}
	for _, l := range p.Rlimits {
		field := "process.rlimits." + clip(l.Type)
		switch {
		case !slices.Contains(rlimits(), l.Type):
			return invalid(field, "unknown")
		case seen[l.Type]:
			return invalid(field, "twice")
		case l.Soft > l.Hard:
			return invalid(field, "soft limit %d above hard limit %d", l.Soft, l.Hard)
		}
		seen[l.Type] = true
		out.Rlimits = append(out.Rlimits, process.Rlimit{Name: l.Type, Soft: l.Soft, Hard: l.Hard})
	}
	return nil
}

// rlimits are getrlimit(2)'s.
func rlimits() []string {
	return strings.Fields(`RLIMIT_AS RLIMIT_CORE RLIMIT_CPU RLIMIT_DATA RLIMIT_FSIZE RLIMIT_LOCKS RLIMIT_MEMLOCK
		RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_NOFILE RLIMIT_NPROC RLIMIT_RSS RLIMIT_RTPRIO RLIMIT_RTTIME RLIMIT_SIGPENDING
		RLIMIT_STACK`)
}

func applyOOM(p *specs.Process, out *process.Spec) error {
	if p.OOMScoreAdj == nil {
		return nil
	}
	if *p.OOMScoreAdj < -1000 || *p.OOMScoreAdj > 1000 {
		return invalid("process.oomScoreAdj", "%d", *p.OOMScoreAdj)
	}
	out.OOMScoreAdj = p.OOMScoreAdj
	return nil
}

func applyScheduling(p *specs.Process, out *process.Spec) error {
	if s := p.Scheduler; s != nil {
		if !slices.Contains([]string{
			"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE",
		}, string(s.Policy)) {
			return invalid("process.scheduler.policy", "%q", clip(string(s.Policy)))
		}
		if s.Policy == specs.SchedISO {
			return unsupported("process.scheduler.policy", "Linux has no SCHED_ISO")
		}
		if s.Nice < -20 || s.Nice > 19 {
			return invalid("process.scheduler.nice", "%d", s.Nice)
		}
		realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
		if s.Priority != 0 && !realtime || s.Priority < 0 || s.Priority > 99 {
			return invalid("process.scheduler.priority", "%d with %s", s.Priority, s.Policy)
		}
		if s.Policy != specs.SchedDeadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0) {
			return invalid("process.scheduler", "runtime, deadline or period with %s", s.Policy)
		}
		out.Scheduler = &process.Scheduler{
			Policy: string(s.Policy), Nice: s.Nice, Priority: s.Priority,
			Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
		}
		for _, f := range s.Flags {
			out.Scheduler.Flags = append(out.Scheduler.Flags, string(f))
		}
	}
	if o := p.IOPriority; o != nil {
		switch o.Class {
		case specs.IOPRIO_CLASS_RT, specs.IOPRIO_CLASS_BE, specs.IOPRIO_CLASS_IDLE:
		default:
			return invalid("process.ioPriority.class", "%q", clip(string(o.Class)))
		}
		if o.Priority < 0 || o.Priority > 7 {
			return invalid("process.ioPriority.priority", "%d", o.Priority)
		}
		out.IOPriority = &process.IOPriority{Class: string(o.Class), Priority: o.Priority}
	}
	if a := p.ExecCPUAffinity; a != nil {
		for field, list := range map[string]string{"initial": a.Initial, "final": a.Final} {
			if strings.Trim(list, "0123456789,- ") != "" {
				return invalid("process.execCPUAffinity."+field, "%q", clip(list))
			}
		}
		out.CPUAffinity, out.FinalAffinity = a.Initial, a.Final
	}
	return nil
}

// applyCapabilities leaves out, with a warning, what cannot be granted
// (config.md, capabilities). No capabilities at all are none.
func applyCapabilities(from *specs.LinuxCapabilities, out *process.Spec, host Host, userNS bool) (warnings []string) {
	out.Sets = &process.CapabilitySets{}
	if from == nil {
		return nil
	}
	known := Capabilities()
	grant := func(set string, names []string) (keep []string) {
		for _, n := range names {
			switch {
			case !slices.Contains(known, n):
				warnings = append(warnings, "process.capabilities."+set+": unknown "+clip(n))
			case !userNS && !slices.Contains(host.Capabilities, n):
				warnings = append(warnings, "process.capabilities."+set+": the caller lacks "+n)
			case !slices.Contains(keep, n):
				keep = append(keep, n)
			}
		}
		return keep
	}
	out.Sets.Bounding = grant("bounding", from.Bounding)
	out.Sets.Permitted = grant("permitted", from.Permitted)
	out.Sets.Effective = within("effective", grant("effective", from.Effective), out.Sets.Permitted, &warnings)
	out.Sets.Inheritable = grant("inheritable", from.Inheritable)
	out.Sets.Ambient = within("ambient", grant("ambient", from.Ambient), out.Sets.Permitted, &warnings)
	out.Sets.Ambient = within("ambient", out.Sets.Ambient, out.Sets.Inheritable, &warnings)
	return warnings
}

// within keeps the names of a set that another one has, as the kernel demands
// (capabilities(7)).
func within(set string, names, of []string, warnings *[]string) (keep []string) {
	for _, n := range names {
		if slices.Contains(of, n) {
			keep = append(keep, n)
		} else {
			*warnings = append(*warnings, "process.capabilities."+set+": "+n+" is not in the sets that it needs")
		}
	}
	return keep
}

// Capabilities are the names that Linux knows, by their numbers
// (linux/capability.h).
func Capabilities() []string {
	names := strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
		LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE
		SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
		SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
		WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)
	for i, n := range names {
		names[i] = "CAP_" + n
	}
	return names
}

// kernel is the rest of config-linux.md: what is refused, and personality.
func (c *converter) kernel() error {
	l := c.linux
	switch {
	case l.IntelRdt != nil:
		return unsupported("linux.intelRdt", "cache and bandwidth classes are not managed")
	case len(l.NetDevices) > 0:
		return unsupported("linux.netDevices", "interfaces are not moved")
	case l.MemoryPolicy != nil:
		return unsupported("linux.memoryPolicy", "policies are not set")
	case l.Personality == nil:
		return nil
	case len(l.Personality.Flags) > 0:
		return unsupported("linux.personality.flags", "none is known")
	}
	var persona uint32
	switch l.Personality.Domain {
	case specs.PerLinux:
	case specs.PerLinux32:
		persona = 0x0008
	default:
		return invalid("linux.personality.domain", "%q", clip(string(l.Personality.Domain)))
	}
	c.out.Process.Personality = &persona
	return nil
}

func (c *converter) hooks() error {
	if c.spec.Hooks == nil {
		return nil
	}
	h, out := c.spec.Hooks, &c.out.Process.Hooks
	for _, point := range []struct {
		name string
		from []specs.Hook
		to   *[]process.Hook
	}{
		{"prestart", h.Prestart, &out.Prestart}, //nolint:staticcheck // deprecated, and in use
		{"createRuntime", h.CreateRuntime, &out.CreateRuntime},
		{"createContainer", h.CreateContainer, &out.CreateContainer},
		{"startContainer", h.StartContainer, &out.StartContainer},
		{"poststart", h.Poststart, &c.out.Poststart},
		{"poststop", h.Poststop, &c.out.Poststop},
	} {
		for _, hook := range point.from {
			field := "hooks." + point.name
			if err := absolute(field+".path", hook.Path); err != nil {
				return err
			}
			if slices.ContainsFunc(append(hook.Args, hook.Env...), func(v string) bool { return strings.ContainsRune(v, 0) }) {
				return invalid(field, "a NUL in it")
			}
			one := process.Hook{Path: hook.Path, Args: hook.Args, Env: hook.Env}
			if hook.Timeout != nil {
				if *hook.Timeout <= 0 || *hook.Timeout > 1<<31 {
					return invalid(field+".timeout", "%d s", *hook.Timeout)
				}
				one.Timeout = time.Duration(*hook.Timeout) * time.Second
			}
			*point.to = append(*point.to, one)
		}
	}
	return nil
}
