package process

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// checkProcess checks the fields that concern the process itself.
func (s *Spec) checkProcess() error {
	for _, check := range []func() error{s.checkSets, s.checkFilter, s.checkScheduling, s.checkStdio, s.checkHooks} {
		if err := check(); err != nil {
			return err
		}
	}
	if s.Umask != nil && *s.Umask&^0o777 != 0 {
		return invalid("umask %#o", *s.Umask)
	}
	if a := s.OOMScoreAdj; a != nil && (*a < -1000 || *a > 1000) {
		return invalid("oom_score_adj %d", *a)
	}
	if s.Personality != nil && *s.Personality == ^uint32(0) { // a question, to the kernel
		return invalid("personality %#x", *s.Personality)
	}
	for _, label := range []string{s.AppArmorProfile, s.SELinuxLabel} {
		if strings.ContainsAny(label, "\x00\n") || len(label) > 4000 {
			return invalid("label %q", label)
		}
	}
	return nil
}

// checkJoin: a process that joins another has nothing of its own to set up.
func (s *Spec) checkJoin() error {
	for name, given := range map[string]bool{
		"Rootfs": s.Rootfs != "", "Root": s.Root != nil, "RootReadonly": s.RootReadonly, "RootPropagation": s.RootPropagation != "",
		"Namespaces": len(s.Namespaces) > 0, "UIDMap": len(s.UIDMap) > 0, "GIDMap": len(s.GIDMap) > 0,
		"TimeOffsets": len(s.TimeOffsets) > 0, "Hostname": s.Hostname != "", "Domainname": s.Domainname != "",
		"Mounts": len(s.Mounts) > 0, "Devices": len(s.Devices) > 0, "MaskedPaths": len(s.MaskedPaths) > 0,
		"ReadonlyPaths": len(s.ReadonlyPaths) > 0, "Sysctls": len(s.Sysctls) > 0, "Files": len(s.Files) > 0,
		"Hooks": s.Hooks.count() > 0, "Runtime": s.Runtime != "",
	} {
		if given {
			return invalid("%s of a process that joins %q", name, s.Join)
		}
	}
	return s.checkConsoleLog()
}

func (s *Spec) checkConsoleLog() error {
	if s.ConsoleLog != "" && (!path.IsAbs(s.ConsoleLog) || hasNUL(s.ConsoleLog)) {
		return invalid("console log %q is not an absolute path", s.ConsoleLog)
	}
	if s.ConsoleLimit < 0 {
		return invalid("console limit %d", s.ConsoleLimit)
	}
	return nil
}

func (s *Spec) checkSets() error {
	sets := s.Sets
	if sets == nil {
		return nil
	}
	for name, list := range map[string][]string{
		"bounding": sets.Bounding, "effective": sets.Effective, "inheritable": sets.Inheritable,
		"permitted": sets.Permitted, "ambient": sets.Ambient,
	} {
		for _, c := range list {
			if _, ok := capabilityNumbers[c]; !ok {
				return invalid("unknown capability %q in the %s set", c, name)
			}
		}
	}
	permitted, ambient := capabilitySet(sets.Permitted), capabilitySet(sets.Ambient)
	if capabilitySet(sets.Effective)&^permitted != 0 {
		return invalid("effective capabilities that are not permitted")
	}
	if ambient&^(permitted&capabilitySet(sets.Inheritable)) != 0 {
		return invalid("ambient capabilities that are not permitted and inheritable")
	}
	return nil
}

func (s *Spec) checkFilter() error {
	const known = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW |
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	listens := s.SeccompFlags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0
	switch {
	case s.SeccompFlags&^known != 0:
		return invalid("flags %#x of the system call filter", s.SeccompFlags)
	case len(s.Seccomp) == 0 && (s.SeccompFlags != 0 || s.SeccompListener != nil):
		return invalid("flags or a listener without a system call filter")
	case listens != (s.SeccompListener != nil):
		return invalid("a listener of the system call filter needs both the flag and a socket")
	}
	return nil
}

func (s *Spec) checkScheduling() error {
	for _, list := range []string{s.CPUAffinity, s.FinalAffinity} {
		if list == "" {
			continue
		}
		if _, err := parseCPUs(list); err != nil {
			return err
		}
	}
	if p := s.IOPriority; p != nil {
		if _, ok := ioClasses[p.Class]; !ok || p.Priority < 0 || p.Priority > 7 {
			return invalid("io priority %s %d", p.Class, p.Priority)
		}
	}
	a := s.Scheduler
	if a == nil {
		return nil
	}
	if _, ok := schedPolicies[a.Policy]; !ok {
		return invalid("scheduler policy %q", a.Policy)
	}
	realtime := a.Policy == "SCHED_FIFO" || a.Policy == "SCHED_RR"
	switch {
	case a.Nice < -20 || a.Nice > 19:
		return invalid("nice %d", a.Nice)
	case realtime != (a.Priority != 0) || a.Priority < 0 || a.Priority > 99:
		return invalid("scheduler priority %d with policy %s", a.Priority, a.Policy)
	case a.Policy != "SCHED_DEADLINE" && (a.Runtime|a.Deadline|a.Period) != 0:
		return invalid("scheduler runtime, deadline or period with policy %s", a.Policy)
	}
	for _, f := range a.Flags {
		if _, ok := schedFlags[f]; !ok {
			return invalid("scheduler flag %q", f)
		}
	}
	return nil
}

// maxPreserve is how many descriptors one message of a socket carries
// (unix(7), SCM_RIGHTS), less those of the other fields.
const maxPreserve = 128

func (s *Spec) checkStdio() error {
	switch {
	case s.Terminal && s.Stdio != [3]*os.File{}:
		return invalid("both a terminal and files for stdin, stdout or stderr")
	case !s.Terminal && (s.ConsoleSocket != nil || s.ConsoleLog != "" || s.ConsoleRows != 0 || s.ConsoleColumns != 0):
		return invalid("a console without a terminal")
	case s.ConsoleSocket != nil && s.ConsoleLog != "":
		return invalid("both a socket and a log for the console")
	case len(s.Preserve) > maxPreserve || slices.Contains(s.Preserve, nil):
		return invalid("%d files to preserve", len(s.Preserve))
	}
	return nil
}

func (h *Hooks) count() int {
	return len(h.Prestart) + len(h.CreateRuntime) + len(h.CreateContainer) + len(h.StartContainer)
}

func (s *Spec) checkHooks() error {
	h := &s.Hooks
	for point, list := range map[string][]Hook{
		"prestart": h.Prestart, "createRuntime": h.CreateRuntime, "createContainer": h.CreateContainer, "startContainer": h.StartContainer,
	} {
		for i, hook := range list {
			if err := hook.check(); err != nil {
				return fmt.Errorf("process spec: %s hook %d: %w: %w", point, i, err, errdefs.ErrInvalid)
			}
		}
	}
	if h.count() > 0 && h.State == nil {
		return invalid("hooks without a state")
	}
	return nil
}

func (h *Hook) check() error {
	if !path.IsAbs(h.Path) || h.Timeout < 0 {
		return fmt.Errorf("path %q, timeout %v", h.Path, h.Timeout)
	}
	for _, text := range append(append([]string{h.Path}, h.Args...), h.Env...) {
		if hasNUL(text) {
			return fmt.Errorf("argument or environment with a NUL")
		}
	}
	return nil
}
