package seccomp

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// More actions of linux/seccomp.h. Trace and Errno carry data in their lower
// 16 bits.
const (
	KillProcess Action = unix.SECCOMP_RET_KILL_PROCESS
	KillThread  Action = unix.SECCOMP_RET_KILL_THREAD
	Trap        Action = unix.SECCOMP_RET_TRAP
	Log         Action = unix.SECCOMP_RET_LOG
	Notify      Action = unix.SECCOMP_RET_USER_NOTIF
)

// Trace hands the call to a tracer with a message for it.
func Trace(message uint16) Action { return Action(unix.SECCOMP_RET_TRACE | uint32(message)) }

// Policy is a profile as the OCI runtime specification has it (config-linux.md,
// Seccomp): any call may have any action, for any comparison of its arguments.
type Policy struct {
	// Default is for calls that no rule matches.
	Default Action
	// Newer is for numbers above all that the tables know. A policy that was
	// written before a call existed cannot mean it; ENOSYS makes libc fall
	// back.
	Newer Action
	// Foreign is for calling conventions that are not listed.
	Foreign Action
	// Conventions that are filtered; those that the host's processor does not
	// have are left out.
	Conventions []Convention
	Rules       []PolicyRule
}

// PolicyRule gives an action to calls whose arguments fulfil all comparisons.
//
// Of the rules for one call, one without comparisons wins over those with; of
// several with, the first that matches. Names that are not in the tables have
// no effect: they are calls of other architectures, or newer.
type PolicyRule struct {
	Names  []string
	Action Action
	Args   []Comparison
}

// Comparison of one argument, 64 bits, unsigned.
type Comparison struct {
	// Index of the argument, 0 to 5.
	Index uint
	Op    Op
	// Value to compare with. For MaskedEqual, the argument's bits of Mask are
	// compared with Value's bits of Mask.
	Value, Mask uint64
}

// Op is an operator.
type Op uint8

// The operators.
const (
	Equal Op = iota
	NotEqual
	Less
	LessOrEqual
	Greater
	GreaterOrEqual
	MaskedEqual
)

func (c Comparison) holds(args [6]uint64) bool {
	v := args[c.Index]
	switch c.Op {
	case Equal:
		return v == c.Value
	case NotEqual:
		return v != c.Value
	case Less:
		return v < c.Value
	case LessOrEqual:
		return v <= c.Value
	case Greater:
		return v > c.Value
	case GreaterOrEqual:
		return v >= c.Value
	}
	return v&c.Mask == c.Value&c.Mask
}

// Convention is a calling convention.
type Convention string

// The conventions that the tables know. X32 shares X8664's constant in the
// kernel and is told by a bit of the number.
const (
	X8664   Convention = "x86_64"
	X86     Convention = "x86"
	X32     Convention = "x32"
	AArch64 Convention = "aarch64"
)

// x32Bit marks calls of x32 (__X32_SYSCALL_BIT).
const x32Bit = 0x40000000

// conventions of an architecture by the kernel's constant.
func (a Arch) conventions() (map[uint32][]Convention, error) {
	switch a {
	case AMD64:
		return map[uint32][]Convention{unix.AUDIT_ARCH_X86_64: {X8664, X32}, unix.AUDIT_ARCH_I386: {X86}}, nil
	case ARM64:
		return map[uint32][]Convention{unix.AUDIT_ARCH_AARCH64: {AArch64}}, nil
	}
	return nil, fmt.Errorf("compile system call filter: unknown architecture %q", a)
}

// outcome is what happens to one call: the first alternative that holds, or
// otherwise.
type outcome struct {
	when      []alternative
	otherwise Action
}

type alternative struct {
	all    []Comparison
	action Action
}

func (o *outcome) equal(p *outcome) bool {
	return o == p || o.otherwise == p.otherwise && slices.EqualFunc(o.when, p.when, func(x, y alternative) bool {
		return x.action == y.action && slices.Equal(x.all, y.all)
	})
}

func (o *outcome) evaluate(args [6]uint64) Action {
	for _, w := range o.when {
		if !slices.ContainsFunc(w.all, func(c Comparison) bool { return !c.holds(args) }) {
			return w.action
		}
	}
	return o.otherwise
}

// alternatives of a rule. The kernel interface that profiles were first
// written for compares each argument once in a rule; several comparisons of
// one argument came to mean any of them, in runc and crun, and profiles in use
// rely on it.
func (r PolicyRule) alternatives() []alternative {
	seen := map[uint]bool{}
	repeated := false
	for _, a := range r.Args {
		repeated = repeated || seen[a.Index]
		seen[a.Index] = true
	}
	if !repeated {
		return []alternative{{r.Args, r.Action}}
	}
	var out []alternative
	for i := range r.Args {
		out = append(out, alternative{r.Args[i : i+1 : i+1], r.Action})
	}
	return out
}

// outcomes by the call's index in calls, nil for calls without a rule.
func (p *Policy) outcomes() ([]*outcome, error) {
	out := make([]*outcome, len(calls))
	settled := make([]bool, len(calls))
	for i, rule := range p.Rules {
		for _, a := range rule.Args {
			if a.Index > 5 || a.Op > MaskedEqual {
				return nil, fmt.Errorf("compile system call filter: rule %d: argument %d, operator %d", i, a.Index, a.Op)
			}
		}
		plain := &outcome{otherwise: rule.Action}
		for _, name := range rule.Names {
			n, known := find(name)
			switch {
			case !known || settled[n]:
				continue
			case len(rule.Args) == 0:
				settled[n] = true
				out[n] = plain
				continue
			case out[n] == nil:
				out[n] = &outcome{otherwise: p.Default}
			}
			out[n].when = append(out[n].when, rule.alternatives()...)
		}
	}
	return out, nil
}

// policySpan is a range of numbers, from first to the next one's first.
type policySpan struct {
	first uint32
	*outcome
}

// spans lists what happens to every number of one convention, from its first.
func (p *Policy) spans(c Convention, outcomes []*outcome) []policySpan {
	unruled := &outcome{otherwise: p.Default}
	var spans []policySpan
	add := func(first uint32, o *outcome) {
		if len(spans) == 0 || !o.equal(spans[len(spans)-1].outcome) {
			spans = append(spans, policySpan{first, o})
		}
	}
	for n, i := range c.numbered() {
		o := unruled
		if i >= 0 && outcomes[i] != nil {
			o = outcomes[i]
		}
		add(c.first()+uint32(n), o)
	}
	add(c.highest()+1, &outcome{otherwise: p.Newer})
	return spans
}

// CompilePolicy turns a policy into a filter for one architecture. The error
// of an impossible comparison names the rule.
func CompilePolicy(p *Policy, arch Arch) ([]Instruction, error) {
	known, err := arch.conventions()
	if err != nil {
		return nil, err
	}
	outcomes, err := p.outcomes()
	if err != nil {
		return nil, err
	}
	b := &builder{returns: map[Action]int{}}
	next := b.ret(p.Foreign)
	for _, audit := range []uint32{unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_X86_64} {
		var spans []policySpan
		for _, c := range known[audit] {
			if slices.Contains(p.Conventions, c) {
				spans = append(spans, p.spans(c, outcomes)...)
			} else if c == X32 && len(spans) > 0 {
				spans = append(spans, policySpan{x32Bit, &outcome{otherwise: p.Foreign}})
			} else if c == X8664 && slices.Contains(p.Conventions, X32) {
				spans = append(spans, policySpan{0, &outcome{otherwise: p.Foreign}})
			}
		}
		if len(spans) == 0 {
			continue
		}
		start := b.load(offNumber, b.policyTree(spans))
		next = b.jump(unix.BPF_JEQ, audit, start, next)
	}
	b.load(offArch, next)
	if len(b.rev) > maxInstructions {
		return nil, fmt.Errorf("compile system call filter: %d instructions", len(b.rev))
	}
	slices.Reverse(b.rev)
	return b.rev, nil
}

// policyTree decides by the loaded number.
func (b *builder) policyTree(spans []policySpan) int {
	if len(spans) == 1 {
		return b.decide(spans[0].outcome)
	}
	middle := len(spans) / 2
	right := b.policyTree(spans[middle:])
	left := b.policyTree(spans[:middle])
	return b.jump(unix.BPF_JGE, spans[middle].first, right, left)
}

// decide goes through the alternatives, made backwards.
func (b *builder) decide(o *outcome) int {
	next := b.ret(o.otherwise)
	for _, w := range slices.Backward(o.when) {
		yes := b.ret(w.action)
		for _, c := range slices.Backward(w.all) {
			yes = b.compare(c, yes, next)
		}
		next = yes
	}
	return next
}

// compare tests the upper half of an argument and, where that does not settle
// it, the lower one.
func (b *builder) compare(c Comparison, yes, no int) int {
	hi, lo := uint32(c.Value>>32), uint32(c.Value)
	word := uint32(offArgs + 8*c.Index)
	low := func(test uint16, k uint32, yes, no int) int { return b.load(word, b.jump(test, k, yes, no)) }
	high := func(then int) int { return b.load(word+4, then) }
	switch c.Op {
	case NotEqual:
		return high(b.jump(unix.BPF_JEQ, hi, low(unix.BPF_JEQ, lo, no, yes), yes))
	case Greater, LessOrEqual:
		if c.Op == LessOrEqual {
			yes, no = no, yes
		}
		l := low(unix.BPF_JGT, lo, yes, no)
		return high(b.jump(unix.BPF_JGT, hi, yes, b.jump(unix.BPF_JEQ, hi, l, no)))
	case GreaterOrEqual, Less:
		if c.Op == Less {
			yes, no = no, yes
		}
		l := low(unix.BPF_JGE, lo, yes, no)
		return high(b.jump(unix.BPF_JGT, hi, yes, b.jump(unix.BPF_JEQ, hi, l, no)))
	case MaskedEqual:
		l := b.masked(word, uint32(c.Mask), lo, yes, no)
		return b.masked(word+4, uint32(c.Mask>>32), hi, l, no)
	}
	return high(b.jump(unix.BPF_JEQ, hi, low(unix.BPF_JEQ, lo, yes, no), no))
}

// masked compares some bits of a word.
func (b *builder) masked(word, mask, value uint32, yes, no int) int {
	if mask == 0 {
		return yes
	}
	test := b.jump(unix.BPF_JEQ, value&mask, yes, no)
	if b.distance(test, 0) != 0 {
		b.emit(Instruction{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(b.distance(test, 0))})
	}
	b.emit(Instruction{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask})
	return b.load(word, len(b.rev)-1)
}

// EvaluatePolicy says what the policy means for one call of a convention. It
// is the definition that compiled filters are tested against, and slow.
func EvaluatePolicy(p *Policy, c Convention, number uint32, args [6]uint64) (Action, error) {
	if !slices.Contains(p.Conventions, c) {
		return p.Foreign, nil
	}
	outcomes, err := p.outcomes()
	if err != nil {
		return 0, err
	}
	return p.meaning(outcomes, c, number, args), nil
}

// meaning is that of one call of a convention that the policy names.
func (p *Policy) meaning(outcomes []*outcome, c Convention, number uint32, args [6]uint64) Action {
	for i, o := range outcomes {
		if o == nil {
			continue
		}
		if n, ok := c.numberAt(i); ok && n == number {
			return o.evaluate(args)
		}
	}
	if number > c.highest() {
		return p.Newer
	}
	return p.Default
}
