package foreign

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/seccomp"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Filter is the profile as linux.seccomp of config-linux.md, for
// process.Spec.RuntimeSeccomp on a host of the architecture. It means the same
// as the filter that engine/seccomp compiles, but for numbers of calls that the
// runtime's libseccomp does not know, and for 32-bit programs on amd64: their
// calls are for the runtime to kill. (libseccomp makes rules for socket(2) of
// x86 from those for socketcall, which ours contradict.)
func Filter(p *seccomp.Profile, arch seccomp.Arch) ([]byte, error) {
	def, err := ociAction(p.Unknown)
	if err != nil {
		return nil, err
	}
	out := specs.LinuxSeccomp{DefaultAction: def.action, DefaultErrnoRet: def.errno}
	switch arch {
	case seccomp.AMD64:
		out.Architectures = []specs.Arch{specs.ArchX86_64}
	case seccomp.ARM64:
		out.Architectures = []specs.Arch{specs.ArchAARCH64}
	default:
		return nil, fmt.Errorf("system call filter for architecture %q: %w", arch, errdefs.ErrUnsupported)
	}
	plain := map[seccomp.Action][]string{}
	for _, name := range seccomp.Names() {
		rule, ok := p.Calls[name]
		switch {
		case !ok:
			plain[p.Default] = append(plain[p.Default], name)
		case rule.When == nil:
			plain[rule.If] = append(plain[rule.If], name)
		default:
			if err := conditional(&out, p.Unknown, name, rule); err != nil {
				return nil, err
			}
		}
	}
	for _, a := range slices.Sorted(maps.Keys(plain)) {
		if err := add(&out, p.Unknown, a, plain[a], nil); err != nil {
			return nil, err
		}
	}
	return json.Marshal(out)
}

type action struct {
	action specs.LinuxSeccompAction
	errno  *uint
}

func ociAction(a seccomp.Action) (action, error) {
	switch {
	case a == seccomp.Allow:
		return action{action: specs.ActAllow}, nil
	case a&^0xffff == unix.SECCOMP_RET_ERRNO:
		errno := uint(a & 0xffff)
		return action{specs.ActErrno, &errno}, nil
	}
	return action{}, fmt.Errorf("system call filter: action %#x: %w", uint32(a), errdefs.ErrUnsupported)
}

// add makes a rule, unless it says what the default does: libseccomp takes none
// of those.
func add(out *specs.LinuxSeccomp, def, a seccomp.Action, names []string, arg *specs.LinuxSeccompArg) error {
	if a == def {
		return nil
	}
	oci, err := ociAction(a)
	if err != nil {
		return err
	}
	call := specs.LinuxSyscall{Names: names, Action: oci.action, ErrnoRet: oci.errno}
	if arg != nil {
		call.Args = []specs.LinuxSeccompArg{*arg}
	}
	out.Syscalls = append(out.Syscalls, call)
	return nil
}

// conditional makes rules of disjoint blocks of values that together are all
// there are, so that their order means nothing. Only the lower 32 bits of an
// argument count, so each comparison is a masked one.
func conditional(out *specs.LinuxSeccomp, def seccomp.Action, name string, r seccomp.Rule) error {
	for _, b := range blocks(r.When, 0, 32) {
		a := r.Else
		if b.holds {
			a = r.If
		}
		arg := &specs.LinuxSeccompArg{
			Index: uint(r.When.Arg), Value: uint64(b.mask), ValueTwo: uint64(b.value), Op: specs.OpMaskedEqual,
		}
		if b.mask == 0 {
			arg = nil
		}
		if err := add(out, def, a, []string{name}, arg); err != nil {
			return err
		}
	}
	return nil
}

// A block is all values whose bits of mask are those of value.
type block struct {
	mask, value uint32
	holds       bool
}

// blocks divides the values that begin with prefix, of which the lowest free
// bits are open, until a condition holds for all of a block or for none.
func blocks(c *seccomp.Condition, prefix uint32, free int) []block {
	mask := uint32(0)
	if free < 32 {
		mask = ^uint32(0) << free
	}
	open := ^mask
	inside := func(list []uint32) (n int) {
		for _, v := range list {
			if v&mask == prefix {
				n++
			}
		}
		return n
	}
	switch one := inside(c.OneOf); {
	case prefix&c.Clear != 0, len(c.OneOf) > 0 && one == 0:
		return []block{{mask, prefix, false}}
	case free == 0:
		return []block{{mask, prefix, inside(c.NoneOf) == 0}}
	case open&c.Clear == 0 && inside(c.NoneOf) == 0 && len(c.OneOf) == 0:
		return []block{{mask, prefix, true}}
	case len(c.OneOf) == 0 && inside(c.NoneOf) == 0:
		// the rest is decided by bits alone
		var out []block
		known := mask
		for bit := uint32(1); bit != 0; bit <<= 1 {
			if open&c.Clear&bit != 0 {
				out = append(out, block{known | bit, prefix | bit, false})
				known |= bit
			}
		}
		return append(out, block{known, prefix, true})
	}
	half := uint32(1) << (free - 1)
	return append(blocks(c, prefix, free-1), blocks(c, prefix|half, free-1)...)
}
