package seccomp

import (
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func callNames() []string {
	var names []string
	for name := range table() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// values that differ in their upper, lower and both halves.
var values = []uint64{0, 1, 2, 3, 7, 0x80000000, 0xffffffff, 1 << 32, 1<<32 | 1, 1<<32 | 2, 2 << 32, 1<<63 | 7, 1<<64 - 1}

func randomPolicy(rng *rand.Rand, names []string) *Policy {
	actions := []Action{Allow, Errno(unix.EPERM), Errno(unix.ENOSYS), KillProcess, KillThread, Trap, Log, Notify, Trace(7)}
	action := func() Action { return actions[rng.IntN(len(actions))] }
	p := &Policy{Default: action(), Newer: action(), Foreign: action()}
	for _, c := range []Convention{X8664, X86, X32, AArch64} {
		if rng.IntN(4) > 0 {
			p.Conventions = append(p.Conventions, c)
		}
	}
	for range rng.IntN(60) {
		r := PolicyRule{Action: action()}
		for range 1 + rng.IntN(4) {
			r.Names = append(r.Names, names[rng.IntN(len(names))])
		}
		for range rng.IntN(4) {
			r.Args = append(r.Args, Comparison{
				Index: uint(rng.IntN(6)), Op: Op(rng.IntN(int(MaskedEqual) + 1)),
				Value: values[rng.IntN(len(values))], Mask: values[rng.IntN(len(values))],
			})
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}

func audit(c Convention) uint32 {
	return map[Convention]uint32{
		X8664: unix.AUDIT_ARCH_X86_64, X32: unix.AUDIT_ARCH_X86_64, X86: unix.AUDIT_ARCH_I386, AArch64: unix.AUDIT_ARCH_AARCH64,
	}[c]
}

// The compiled filter and the definition agree, for every number, operator and
// calling convention.
func TestCompiledPolicyMeansTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	names := callNames()
	for range 40 {
		p := randomPolicy(rng, names)
		for _, arch := range []Arch{AMD64, ARM64} {
			prog, err := CompilePolicy(p, arch)
			if err != nil {
				t.Fatal(err)
			}
			outcomes, err := p.outcomes() // EvaluatePolicy makes them for each call
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range map[Arch][]Convention{AMD64: {X8664, X86, X32}, ARM64: {AArch64}}[arch] {
				for i := range uint32(600) {
					number := i
					if c == X32 {
						number |= x32Bit
					}
					for k := range 6 {
						var args [6]uint64
						for k := range args {
							args[k] = values[rng.IntN(len(values))]
						}
						want := p.Foreign
						if k == 0 {
							want, err = EvaluatePolicy(p, c, number, args)
						} else if slices.Contains(p.Conventions, c) {
							want = p.meaning(outcomes, c, number, args)
						}
						if err != nil {
							t.Fatal(err)
						}
						if got := execute(t, prog, audit(c), number, args); got != want {
							t.Fatalf("%s %d %#x: %#x, want %#x of %+v", c, number, args, got, want, p)
						}
					}
				}
			}
			if got := execute(t, prog, unix.AUDIT_ARCH_ARM, 1, [6]uint64{}); got != p.Foreign {
				t.Errorf("foreign convention: %#x, want %#x", got, p.Foreign)
			}
		}
	}
}

func TestPolicyRules(t *testing.T) {
	eq := func(index uint, v uint64) Comparison { return Comparison{Index: index, Value: v} }
	base := Policy{Default: Errno(unix.EPERM), Newer: Errno(unix.ENOSYS), Foreign: KillProcess, Conventions: []Convention{X8664}}
	for _, tt := range []struct {
		name  string
		rules []PolicyRule
		args  [6]uint64
		want  Action
	}{
		{"no rule", nil, [6]uint64{}, Errno(unix.EPERM)},
		{"unknown name", []PolicyRule{{Names: []string{"socket2"}, Action: Allow}}, [6]uint64{}, Errno(unix.EPERM)},
		{"first of two that match", []PolicyRule{
			{[]string{"socket"}, Log, []Comparison{eq(0, 1)}},
			{[]string{"socket"}, Trap, []Comparison{eq(1, 2)}},
		}, [6]uint64{1, 2}, Log},
		{"all of a rule", []PolicyRule{{[]string{"socket"}, Allow, []Comparison{eq(0, 1), eq(1, 2)}}}, [6]uint64{1, 3}, Errno(unix.EPERM)},
		{"one of a repeated argument", []PolicyRule{{[]string{"socket"}, Allow, []Comparison{eq(0, 1), eq(0, 2)}}}, [6]uint64{2}, Allow},
		{"unconditional wins", []PolicyRule{
			{[]string{"socket"}, Trap, []Comparison{eq(0, 1)}},
			{[]string{"read", "socket"}, Allow, nil},
			{[]string{"socket"}, Log, []Comparison{eq(0, 1)}},
		}, [6]uint64{1}, Allow},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := base
			p.Rules = tt.rules
			prog, err := CompilePolicy(&p, AMD64)
			if err != nil {
				t.Fatal(err)
			}
			if got := execute(t, prog, unix.AUDIT_ARCH_X86_64, unix.SYS_SOCKET, tt.args); runsHere() && got != tt.want {
				t.Errorf("%#x, want %#x", got, tt.want)
			}
			for _, number := range []uint32{5000, 1<<30 - 1} {
				if got := execute(t, prog, unix.AUDIT_ARCH_X86_64, number, tt.args); got != base.Newer {
					t.Errorf("newer call %d: %#x", number, got)
				}
			}
			if got := execute(t, prog, unix.AUDIT_ARCH_X86_64, x32Bit|1, tt.args); got != base.Foreign {
				t.Errorf("x32 without asking: %#x", got)
			}
		})
	}
}

// runsHere: unix.SYS_SOCKET is x86-64's number.
func runsHere() bool { return unix.SYS_SOCKET == 41 }

func TestCompilePolicyRefuses(t *testing.T) {
	for _, c := range []Comparison{{Index: 6}, {Op: MaskedEqual + 1}} {
		p := &Policy{Rules: []PolicyRule{{Names: []string{"read"}, Args: []Comparison{c}}}}
		if _, err := CompilePolicy(p, AMD64); err == nil {
			t.Errorf("%+v", c)
		}
	}
	if _, err := CompilePolicy(&Policy{}, "mips"); err == nil {
		t.Error("unknown architecture")
	}
}

func BenchmarkCompilePolicy(b *testing.B) {
	names := callNames()
	p := &Policy{Default: Errno(unix.EPERM), Conventions: []Convention{X8664, X86, X32}, Rules: []PolicyRule{
		{Names: names[:350], Action: Allow},
		{Names: []string{"personality"}, Action: Allow, Args: []Comparison{{Value: 8}}},
		{Names: []string{"clone"}, Action: Allow, Args: []Comparison{{Op: MaskedEqual, Mask: 0x7e020000}}},
	}}
	for b.Loop() {
		prog, err := CompilePolicy(p, AMD64)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(prog)), "instructions")
	}
}
