package seccomp

import (
	_ "embed" // the profile
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

//go:embed default.txt
var defaultText string

// namespaceFlags are the flags of clone(2) that make namespaces:
// CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}.
const namespaceFlags = 0x7e020000

// Default is the profile of instances (default.txt) for processes that hold
// the given capabilities in their user namespace. It refuses with EPERM what
// is known and not allowed, and denies the existence of what is newer than its
// tables.
func Default(capabilities []string) (*Profile, error) {
	listed, err := sections(defaultText)
	if err != nil {
		return nil, err
	}
	p := &Profile{Calls: map[string]Rule{}, Default: Errno(unix.EPERM), Unknown: Errno(unix.ENOSYS)}
	for heading, names := range listed {
		rule := Rule{If: Allow}
		capability, conditional := strings.CutPrefix(heading, "allow with ")
		switch {
		case heading == "allow":
		case conditional && slices.Contains(capabilities, capability):
		case conditional, heading == "refuse":
			rule.If = p.Default
		case heading == "unknown":
			rule.If = p.Unknown
		default:
			return nil, fmt.Errorf("profile: unknown section %q", heading)
		}
		for _, name := range names {
			if _, ok := p.Calls[name]; ok {
				return nil, fmt.Errorf("profile: %s twice", name)
			}
			p.Calls[name] = rule
		}
	}
	p.checked(slices.Contains(capabilities, "CAP_SYS_ADMIN"))
	return p, nil
}

// checked adds the rules that look at arguments.
func (p *Profile) checked(admin bool) {
	p.Calls["clone"] = Rule{If: Allow, When: &Condition{Clear: namespaceFlags}, Else: p.Default}
	// The flags of clone3 are behind a pointer. libc falls back to clone.
	p.Calls["clone3"] = Rule{If: p.Unknown}
	if admin {
		p.Calls["clone"] = Rule{If: Allow}
		p.Calls["clone3"] = Rule{If: Allow}
	}
	// AF_ALG gives the kernel's cryptography a way into shared pages
	// (CVE-2026-31431); AF_VSOCK reaches the host's hypervisor, whatever the
	// network namespace.
	p.Calls["socket"] = Rule{If: Allow, When: &Condition{NoneOf: []uint32{unix.AF_ALG, unix.AF_VSOCK}}, Else: p.Default}
	// On x86, socketcall(SYS_SOCKET) hides the family behind a pointer. Any
	// program, 64-bit ones too, can make x86 calls, so that one has to go:
	// libc has used the direct call since Linux 4.3 where it was built for it;
	// older 32-bit programs get no sockets.
	const sysSocket = 1
	p.Calls["socketcall"] = Rule{If: Allow, When: &Condition{NoneOf: []uint32{sysSocket}}, Else: p.Unknown}
	// PER_LINUX, PER_LINUX32, each with UNAME26, and the query.
	p.Calls["personality"] = Rule{If: Allow, When: &Condition{OneOf: []uint32{0, 8, 0x20000, 0x20008, 0xffffffff}}, Else: p.Default}
}
