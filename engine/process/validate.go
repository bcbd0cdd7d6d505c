package process

import (
	"fmt"
	"math"
	"path"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// capabilityNumbers is linux/capability.h.
var capabilityNumbers = func() map[string]int {
	names := strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
		LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE
		SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
		SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
		WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)
	m := make(map[string]int, len(names))
	for i, n := range names {
		m["CAP_"+n] = i
	}
	return m
}()

// rlimitNumbers is asm-generic/resource.h.
var rlimitNumbers = map[string]int{
	"RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5,
	"RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10,
	"RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}

func capabilitySet(names []string) (set uint64) {
	for _, n := range names {
		set |= 1 << capabilityNumbers[n]
	}
	return set
}

// maxID is the largest user or group id that is accepted: larger ones change
// their sign, or mean "leave as it is", somewhere (CVE-2024-40635).
const maxID = math.MaxInt32

func invalid(format string, args ...any) error {
	return fmt.Errorf("process spec: %s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalid)
}

// Validate reports whether spec can be started as far as the spec alone shows
// it; errdefs.ErrInvalid otherwise. Runner.Start does it too.
func Validate(spec *Spec) error { return spec.validate() }

// validate checks everything that compile relies on.
func (s *Spec) validate() error {
	checks := []func() error{
		s.checkPlaces, s.checkNamespaces, s.checkMounts, s.checkDevices,
		s.checkCommand, s.checkRights, s.checkFiles, s.checkPaths, s.checkSettings, s.checkProcess,
	}
	if s.Restore != nil {
		checks = []func() error{s.checkRestore, s.checkConsoleLog}
	} else if s.Join != "" {
		checks = []func() error{s.checkJoin, s.checkCommand, s.checkRights, s.checkProcess}
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spec) checkPlaces() error {
	if s.Root == nil && !path.IsAbs(s.Rootfs) || hasNUL(s.Rootfs) {
		return invalid("root directory %q is not an absolute path", s.Rootfs)
	}
	for name, v := range map[string]string{"host name": s.Hostname, "domain name": s.Domainname} {
		if len(v) > 64 || strings.ContainsAny(v, "\x00/\n ") {
			return invalid("%s %q", name, v)
		}
		if v != "" && !s.has(UTSNamespace) {
			return invalid("%s %q without a uts namespace", name, v)
		}
	}
	if s.Runtime != "" && (!path.IsAbs(s.Runtime) || hasNUL(s.Runtime)) {
		return invalid("runtime %q is not an absolute path", s.Runtime)
	}
	return s.checkConsoleLog()
}

func (s *Spec) checkRestore() error {
	if s.Join != "" || s.Runtime != "" || s.Terminal {
		return invalid("a checkpoint is no command")
	}
	for name, v := range map[string]string{"root directory": s.Rootfs, "checkpoint": s.Restore.Images, "program": s.Restore.Program} {
		if !path.IsAbs(v) || hasNUL(v) {
			return invalid("%s %q is not an absolute path", name, v)
		}
	}
	return nil
}

func (s *Spec) checkCommand() error {
	if len(s.Args) == 0 || s.Args[0] == "" {
		return errdefs.WithPublic(invalid("no command"), "the image names no command to run")
	}
	for _, list := range [][]string{s.Args, s.Env} {
		for _, v := range list {
			if hasNUL(v) {
				return invalid("argument or environment with a NUL")
			}
		}
	}
	if s.Cwd != "" && (!path.IsAbs(s.Cwd) || hasNUL(s.Cwd)) {
		return errdefs.WithPublic(invalid("working directory %q", s.Cwd), "the working directory of the image is not an absolute path")
	}
	return nil
}

func (s *Spec) checkRights() error {
	for _, id := range append([]uint32{s.UID, s.GID}, s.Groups...) {
		if id > maxID {
			return invalid("id %d", id)
		}
	}
	if len(s.Groups) > 65536 {
		return invalid("%d groups", len(s.Groups))
	}
	for _, c := range s.Capabilities {
		if _, ok := capabilityNumbers[c]; !ok {
			return invalid("unknown capability %q", c)
		}
	}
	if len(s.Seccomp) > 4096 { // BPF_MAXINSNS
		return invalid("system call filter of %d instructions", len(s.Seccomp))
	}
	seen := map[string]bool{}
	for _, l := range s.Rlimits {
		if _, ok := rlimitNumbers[l.Name]; !ok || seen[l.Name] {
			return invalid("unknown or repeated limit %q", l.Name)
		}
		if l.Soft > l.Hard {
			return invalid("limit %s: %d above %d", l.Name, l.Soft, l.Hard)
		}
		seen[l.Name] = true
	}
	return nil
}

func (s *Spec) checkFiles() error {
	for _, f := range s.Files {
		clean := path.Clean(f.Path)
		switch {
		case !path.IsAbs(f.Path) || hasNUL(f.Path) || clean == "/" || strings.HasSuffix(f.Path, "/"):
			return invalid("file %q", f.Path)
		case hasDotDot(f.Path):
			return invalid("file %q leaves its directory", f.Path)
		case f.Mode&^0o7777 != 0 || f.UID > maxID || f.GID > maxID:
			return invalid("file %q: mode %#o, owner %d:%d", f.Path, f.Mode, f.UID, f.GID)
		}
		if top, hidden := s.hides(clean); hidden {
			return invalid("file %q would be hidden by the mount at %s", f.Path, top)
		}
	}
	return nil
}

func (s *Spec) checkPaths() error {
	for _, list := range [][]string{s.MaskedPaths, s.ReadonlyPaths} {
		for _, p := range list {
			if !path.IsAbs(p) || hasNUL(p) || hasDotDot(p) || path.Clean(p) == "/" {
				return invalid("path %q to mask or protect", p)
			}
		}
	}
	return nil
}

func hasNUL(s string) bool { return strings.ContainsRune(s, 0) }

func hasDotDot(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// hardLimits reads the caller's own hard limits.
func hardLimits() map[int]uint64 {
	m := map[int]uint64{}
	for _, n := range rlimitNumbers {
		var l unix.Rlimit
		if unix.Getrlimit(n, &l) == nil {
			m[n] = l.Max
		}
	}
	return m
}
