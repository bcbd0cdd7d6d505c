package oci

import (
	"math"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/seccomp"
)

// filter is config-linux.md, Seccomp.
func (c *converter) filter() error {
	s := c.linux.Seccomp
	if s == nil {
		return nil
	}
	policy, flags, err := policyOf(s, c.host.Arch)
	if err != nil {
		return err
	}
	code, err := seccomp.CompilePolicy(policy, seccomp.Arch(c.host.Arch))
	if err != nil {
		return invalid("linux.seccomp", "%v", err)
	}
	for _, i := range code {
		c.out.Process.Seccomp = append(c.out.Process.Seccomp, process.SockFilter(i))
	}
	c.out.Process.SeccompFlags = flags
	if flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
		if s.ListenerMetadata != "" && s.ListenerPath == "" {
			return invalid("linux.seccomp.listenerMetadata", "without listenerPath")
		}
		return nil
	}
	if s.ListenerPath == "" {
		return invalid("linux.seccomp.listenerPath", "missing: SCMP_ACT_NOTIFY needs a listener")
	}
	if err := absolute("linux.seccomp.listenerPath", s.ListenerPath); err != nil {
		return err
	}
	c.out.ListenerPath, c.out.ListenerMetadata = s.ListenerPath, s.ListenerMetadata
	return nil
}

// policyOf converts the profile and its flags; NEW_LISTENER is among them when
// a rule notifies.
func policyOf(s *specs.LinuxSeccomp, arch string) (*seccomp.Policy, uint, error) {
	var p seccomp.Policy
	var err error
	if p.Default, err = action("linux.seccomp.default", s.DefaultAction, s.DefaultErrnoRet); err != nil {
		return nil, 0, err
	}
	if p.Default == seccomp.Notify {
		return nil, 0, invalid("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY would stop the set-up itself")
	}
	p.Foreign = seccomp.KillProcess
	// A profile that refuses what it does not list cannot mean calls that are
	// newer than the profile; libc has to see that they do not exist.
	p.Newer = p.Default
	if s.DefaultAction == specs.ActErrno {
		p.Newer = seccomp.Errno(unix.ENOSYS)
	}
	if p.Conventions, err = conventions(s.Architectures, arch); err != nil {
		return nil, 0, err
	}
	flags, err := filterFlags(s.Flags)
	if err != nil {
		return nil, 0, err
	}
	for _, call := range s.Syscalls {
		rule, err := ruleOf(call)
		if err != nil {
			return nil, 0, err
		}
		if rule.Action == seccomp.Notify {
			flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
		}
		p.Rules = append(p.Rules, rule)
	}
	if flags&filterWaitKillable != 0 && flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
		return nil, 0, invalid("linux.seccomp.flags", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV without SCMP_ACT_NOTIFY")
	}
	return &p, flags, nil
}

func ruleOf(call specs.LinuxSyscall) (seccomp.PolicyRule, error) {
	const field = "linux.seccomp.syscalls"
	rule := seccomp.PolicyRule{Names: call.Names}
	if len(call.Names) == 0 {
		return rule, invalid(field, "a rule without names")
	}
	var err error
	if rule.Action, err = action(field+"."+clip(call.Names[0])+".", call.Action, call.ErrnoRet); err != nil {
		return rule, err
	}
	if rule.Action == seccomp.Notify && slices.Contains(call.Names, "write") {
		return rule, invalid(field, "SCMP_ACT_NOTIFY for write would stop the set-up itself")
	}
	for _, a := range call.Args {
		op, ok := operators()[a.Op]
		if !ok || a.Index > 5 {
			return rule, invalid(field+"."+clip(call.Names[0]), "operator %q of argument %d", clip(string(a.Op)), a.Index)
		}
		c := seccomp.Comparison{Index: a.Index, Op: op, Value: a.Value}
		if op == seccomp.MaskedEqual {
			c.Mask, c.Value = a.Value, a.ValueTwo
		}
		rule.Args = append(rule.Args, c)
	}
	return rule, nil
}

func operators() map[specs.LinuxSeccompOperator]seccomp.Op {
	return map[specs.LinuxSeccompOperator]seccomp.Op{
		specs.OpNotEqual: seccomp.NotEqual, specs.OpLessThan: seccomp.Less, specs.OpLessEqual: seccomp.LessOrEqual,
		specs.OpEqualTo: seccomp.Equal, specs.OpGreaterEqual: seccomp.GreaterOrEqual, specs.OpGreaterThan: seccomp.Greater,
		specs.OpMaskedEqual: seccomp.MaskedEqual,
	}
}

// action converts an action; field is that of the rule, to which "Action" and
// "ErrnoRet" are appended.
func action(field string, a specs.LinuxSeccompAction, ret *uint) (seccomp.Action, error) {
	plain := map[specs.LinuxSeccompAction]seccomp.Action{
		specs.ActKill: seccomp.KillThread, specs.ActKillThread: seccomp.KillThread, specs.ActKillProcess: seccomp.KillProcess,
		specs.ActTrap: seccomp.Trap, specs.ActAllow: seccomp.Allow, specs.ActLog: seccomp.Log, specs.ActNotify: seccomp.Notify,
	}
	value := uint(unix.EPERM)
	if ret != nil {
		value = *ret
	}
	const maxErrno = 4095
	switch a {
	case specs.ActErrno:
		if value > maxErrno {
			return 0, invalid(field+"ErrnoRet", "%d", value)
		}
		return seccomp.Errno(unix.Errno(value)), nil
	case specs.ActTrace:
		if value > math.MaxUint16 {
			return 0, invalid(field+"ErrnoRet", "%d", value)
		}
		return seccomp.Trace(uint16(value)), nil
	}
	known, ok := plain[a]
	switch {
	case !ok:
		return 0, invalid(field+"Action", "%q", clip(string(a)))
	case ret != nil:
		return 0, invalid(field+"ErrnoRet", "%s takes none", a)
	}
	return known, nil
}

// conventions are those of the list that this host's processor has, and its
// own, which an empty list means.
func conventions(list []specs.Arch, arch string) ([]seccomp.Convention, error) {
	own := map[string]seccomp.Convention{"amd64": seccomp.X8664, "arm64": seccomp.AArch64}[arch]
	out := []seccomp.Convention{own}
	for _, a := range list {
		if !slices.Contains(architectures(), string(a)) {
			return nil, invalid("linux.seccomp.architectures", "%q", clip(string(a)))
		}
		c := map[specs.Arch]seccomp.Convention{
			specs.ArchX86: seccomp.X86, specs.ArchX86_64: seccomp.X8664, specs.ArchX32: seccomp.X32, specs.ArchAARCH64: seccomp.AArch64,
		}[a]
		if c != "" && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out, nil
}

func architectures() []string {
	names := strings.Fields(`X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE
		S390 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB`)
	for i, n := range names {
		names[i] = "SCMP_ARCH_" + n
	}
	return names
}

// filterWaitKillable is SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (linux/seccomp.h).
const filterWaitKillable = 1 << 5

// filterFlags: absent flags are SPEC_ALLOW (config-linux.md), an empty list is
// none.
func filterFlags(list []specs.LinuxSeccompFlag) (uint, error) {
	if list == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var flags uint
	for _, f := range list {
		switch f {
		case "SECCOMP_FILTER_FLAG_TSYNC": // there is one thread
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			flags |= filterWaitKillable
		default:
			return 0, invalid("linux.seccomp.flags", "%q", clip(string(f)))
		}
	}
	return flags, nil
}
