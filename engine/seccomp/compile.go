package seccomp

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"golang.org/x/sys/unix"
)

// maxInstructions is BPF_MAXINSNS.
const maxInstructions = 4096

// Offsets in struct seccomp_data; arguments are 64 bits, little endian.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// Compile turns a profile into a filter for one architecture. A rule for a
// name that no architecture knows is an error; one for a call that this
// architecture lacks has no effect.
func Compile(p *Profile, arch Arch) ([]Instruction, error) {
	abis, err := arch.abis()
	if err != nil {
		return nil, err
	}
	for name, rule := range p.Calls {
		if _, ok := find(name); !ok {
			return nil, fmt.Errorf("compile system call filter: unknown call %q", name)
		}
		if rule.When != nil && (rule.When.Arg < 0 || rule.When.Arg > 5) {
			return nil, fmt.Errorf("compile system call filter: %s: argument %d", name, rule.When.Arg)
		}
	}
	b := &builder{returns: map[Action]int{}}
	// Backwards: each part is made after all that it jumps to.
	next := b.ret(p.Unknown)
	for _, abi := range slices.Backward(abis) {
		tree := b.tree(p.ranges(abi))
		start := b.load(offNumber, tree)
		next = b.jump(unix.BPF_JEQ, abi.audit, start, next)
	}
	b.load(offArch, next)
	if len(b.rev) > maxInstructions {
		return nil, fmt.Errorf("compile system call filter: %d instructions", len(b.rev))
	}
	slices.Reverse(b.rev)
	return b.rev, nil
}

// span is a range of numbers, from first to the next span's first.
type span struct {
	first uint32
	rule  Rule
}

// ranges lists what happens to every number, in order, equal neighbours joined.
func (p *Profile) ranges(a abi) []span {
	unknown := Rule{If: p.Unknown}
	spans := []span{{0, unknown}}
	add := func(first uint32, rule Rule) {
		if last := &spans[len(spans)-1]; last.first == first {
			last.rule = rule
		} else {
			spans = append(spans, span{first, rule})
		}
	}
	type ruled struct {
		number int16
		rule   Rule
	}
	var list []ruled
	for i := range calls {
		if n := calls[i].numbers[a.column]; n >= 0 {
			rule, ok := p.Calls[calls[i].name]
			if !ok {
				rule = Rule{If: p.Default}
			}
			list = append(list, ruled{n, rule})
		}
	}
	slices.SortFunc(list, func(x, y ruled) int { return cmp.Compare(x.number, y.number) })
	for _, c := range list {
		add(uint32(c.number), c.rule)
		add(uint32(c.number)+1, unknown)
	}
	return slices.CompactFunc(spans, func(x, y span) bool { return reflect.DeepEqual(x.rule, y.rule) })
}

// builder makes a program from its end: rev[0] is the last instruction. An
// instruction is named by its index in rev, so what it jumps to is known.
type builder struct {
	rev     []Instruction
	returns map[Action]int
}

func (b *builder) emit(i Instruction) int {
	b.rev = append(b.rev, i)
	return len(b.rev) - 1
}

// distance is the jump offset from the instruction to be emitted after extra
// others to target.
func (b *builder) distance(target, extra int) int { return len(b.rev) + extra - target - 1 }

// near returns an instruction that leads to target and that a conditional jump
// can reach even after extra more instructions.
func (b *builder) near(target, extra int) int {
	if b.distance(target, extra) <= 255 {
		return target
	}
	if i := b.rev[target]; i.Code == unix.BPF_RET|unix.BPF_K {
		return b.ret(Action(i.K))
	}
	return b.emit(Instruction{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(b.distance(target, 0))})
}

// ret returns an instruction that ends with the action, an old one if near.
func (b *builder) ret(a Action) int {
	const margin = 250
	if i, ok := b.returns[a]; ok && b.distance(i, 0) <= margin {
		return i
	}
	b.returns[a] = b.emit(Instruction{Code: unix.BPF_RET | unix.BPF_K, K: uint32(a)})
	return b.returns[a]
}

// jump tests the loaded word.
func (b *builder) jump(test uint16, k uint32, yes, no int) int {
	yes = b.near(yes, 1) // one more may come for the other
	no = b.near(no, 0)
	return b.emit(Instruction{
		Code: unix.BPF_JMP | unix.BPF_K | test, K: k,
		JT: uint8(b.distance(yes, 0)), JF: uint8(b.distance(no, 0)),
	})
}

// load loads a word and goes on at then.
func (b *builder) load(offset uint32, then int) int {
	if b.distance(then, 0) != 0 {
		b.emit(Instruction{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(b.distance(then, 0))})
	}
	return b.emit(Instruction{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset})
}

// tree decides by the loaded number.
func (b *builder) tree(spans []span) int {
	if len(spans) == 1 {
		return b.leaf(spans[0].rule)
	}
	middle := len(spans) / 2
	right := b.tree(spans[middle:])
	left := b.tree(spans[:middle])
	return b.jump(unix.BPF_JGE, spans[middle].first, right, left)
}

func (b *builder) leaf(r Rule) int {
	if r.When == nil {
		return b.ret(r.If)
	}
	yes, no := b.ret(r.If), b.ret(r.Else)
	next := yes
	if len(r.When.OneOf) > 0 {
		next = no
		for _, v := range r.When.OneOf {
			next = b.jump(unix.BPF_JEQ, v, yes, next)
		}
	}
	for _, v := range r.When.NoneOf {
		next = b.jump(unix.BPF_JEQ, v, no, next)
	}
	if r.When.Clear != 0 {
		next = b.jump(unix.BPF_JSET, r.When.Clear, no, next)
	}
	return b.load(uint32(offArgs+8*r.When.Arg), next)
}
