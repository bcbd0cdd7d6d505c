// Package seccomp compiles an allow-list of system calls to a filter for the
// kernel (classic BPF, Documentation/userspace-api/seccomp_filter.rst).
//
// A profile is data: names and what to do with them. The filter is a search
// tree over ranges of numbers, so it has few instructions and short paths; the
// kernel checks both when a filter is loaded, which is most of what a filter
// costs. Compile once and keep the result: equal input gives an equal filter.
//
// A Policy is the same for profiles in the form of the OCI runtime
// specification, with all its actions and comparisons (policy.go).
//
// The package makes no system call and imports no other package of ours. Its
// Instruction converts to process.SockFilter.
package seccomp

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Instruction is one instruction of classic BPF (linux/filter.h).
type Instruction struct {
	Code   uint16
	JT, JF uint8
	K      uint32
}

// Action is what the kernel does with a call (linux/seccomp.h).
type Action uint32

// Allow lets the call happen.
const Allow Action = unix.SECCOMP_RET_ALLOW

// Errno makes the call fail with e.
func Errno(e unix.Errno) Action { return Action(unix.SECCOMP_RET_ERRNO | uint32(e)) }

// Rule says what happens to one call: If when the condition holds or is nil,
// Else otherwise.
type Rule struct {
	When *Condition
	If   Action
	Else Action
}

// Condition looks at the lower 32 bits of one argument; all calls that rules
// are made for ignore the upper ones. It holds when the argument has none of
// the bits of Clear and, if OneOf is not empty, is one of it, and is none of
// NoneOf.
type Condition struct {
	Arg    int
	Clear  uint32
	OneOf  []uint32
	NoneOf []uint32
}

func (c *Condition) holds(arg uint64) bool {
	v := uint32(arg)
	if v&c.Clear != 0 {
		return false
	}
	for _, n := range c.NoneOf {
		if v == n {
			return false
		}
	}
	for _, n := range c.OneOf {
		if v == n {
			return true
		}
	}
	return len(c.OneOf) == 0
}

// Profile is a policy for system calls.
type Profile struct {
	// Calls are the rules by name of the call.
	Calls map[string]Rule
	// Default is for calls that are known but have no rule.
	Default Action
	// Unknown is for numbers that are no known call, among them all calls of
	// x32, and for architectures that are not known.
	Unknown Action
}

// Arch is what a host runs: its own programs, and on amd64 those of x86 too.
type Arch string

// The architectures, by their names in Go.
const (
	AMD64 Arch = "amd64"
	ARM64 Arch = "arm64"
)

// abi is one calling convention of an architecture.
type abi struct {
	audit  uint32 // linux/audit.h
	column int    // in calls
}

func (a Arch) abis() ([]abi, error) {
	x86, x8664, arm64 := abi{unix.AUDIT_ARCH_I386, 1}, abi{unix.AUDIT_ARCH_X86_64, 0}, abi{unix.AUDIT_ARCH_AARCH64, 2}
	switch a {
	case AMD64:
		return []abi{x8664, x86}, nil
	case ARM64:
		return []abi{arm64}, nil
	}
	return nil, fmt.Errorf("compile system call filter: unknown architecture %q", a)
}

// Evaluate says what the profile means for one call, given by its number and
// the kernel's constant for the calling convention. It is the definition that
// compiled filters are tested against, and slow.
func (p *Profile) Evaluate(audit uint32, number uint32, args [6]uint64) Action {
	for _, a := range []Arch{AMD64, ARM64} {
		abis, _ := a.abis()
		for _, abi := range abis {
			if abi.audit != audit {
				continue
			}
			for i := range calls {
				if int64(calls[i].numbers[abi.column]) != int64(number) {
					continue
				}
				rule, ok := p.Calls[calls[i].name]
				switch {
				case !ok:
					return p.Default
				case rule.When == nil || rule.When.holds(args[rule.When.Arg]):
					return rule.If
				}
				return rule.Else
			}
		}
	}
	return p.Unknown
}
