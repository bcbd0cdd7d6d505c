package cgroup

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// run interprets the instructions that deviceProgram uses, as in the kernel's
// Documentation/bpf/standardization/instruction-set.rst.
func run(t *testing.T, p []bpfInsn, typ, access, major, minor uint32) bool {
	t.Helper()
	ctx := map[int16]uint64{0: uint64(typ | access<<16), 4: uint64(major), 8: uint64(minor)}
	var r [11]uint64
	for pc, steps := 0, 0; steps < 10000; pc, steps = pc+1, steps+1 {
		i := p[pc]
		dst, src := i.Regs&15, i.Regs>>4
		switch i.Code {
		case bpfLdxW:
			if src != 1 {
				t.Fatalf("instruction %d reads from register %d", pc, src)
			}
			r[dst] = ctx[i.Off]
		case bpfMovReg:
			r[dst] = r[src]
		case bpfMovImm:
			r[dst] = uint64(int64(i.Imm))
		case bpfAndImm:
			r[dst] &= uint64(int64(i.Imm))
		case bpfRshImm:
			r[dst] >>= i.Imm
		case bpfJneImm:
			if r[dst] != uint64(int64(i.Imm)) {
				pc += int(i.Off)
			}
		case bpfJeqImm:
			if r[dst] == uint64(int64(i.Imm)) {
				pc += int(i.Off)
			}
		case bpfExitFun:
			return r[0] == 1
		default:
			t.Fatalf("instruction %d: unknown code %#x", pc, i.Code)
		}
	}
	t.Fatal("does not end")
	return false
}

// allowed is what the rules say, as one reads them: the last one that matches
// decides, for each access.
func allowed(rules []DeviceRule, char bool, access uint32, major, minor int64) bool {
	for _, bit := range []uint32{accMknod, accRead, accWrite} {
		if access&bit == 0 {
			continue
		}
		ok := false
		for _, r := range rules {
			if (r.Type == 'a' || (r.Type == 'c') == char) && (r.Major < 0 || r.Major == major) && (r.Minor < 0 || r.Minor == minor) &&
				uint32(accessBits(r.Access))&bit != 0 {
				ok = r.Allow
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// byKernel is what v1 does with a set (security/device_cgroup.c,
// match_exception and match_exception_partial).
func (s deviceSet) byKernel(char bool, access uint32, major, minor int64) bool {
	typ := byte('b')
	if char {
		typ = 'c'
	}
	for n, bits := range s.exceptions {
		if !n.covers(deviceNumber{typ, major, minor}) {
			continue
		}
		if !s.allow && access&^uint32(bits) == 0 {
			return true
		}
		if s.allow && access&uint32(bits) != 0 {
			return false
		}
	}
	return s.allow
}

func eachAccess(fn func(char bool, access uint32, major, minor int64)) {
	for _, char := range []bool{false, true} {
		for access := uint32(1); access < 8; access++ {
			for _, major := range []int64{0, 1, 8, 136, 4095} {
				for _, minor := range []int64{0, 3, 5, 1048575} {
					fn(char, access, major, minor)
				}
			}
		}
	}
}

func kind(char bool) uint32 {
	if char {
		return devChar
	}
	return devBlock
}

func deviceLists() map[string][]DeviceRule {
	return map[string][]DeviceRule{
		"none": {},
		"usual": {
			{false, 'a', -1, -1, "rwm"},
			{true, 'c', 1, 3, "rwm"},
			{true, 'c', 1, 5, "r"},
			{true, 'c', 136, -1, "rw"},
			{true, 'b', -1, -1, "m"},
			{true, 'c', 1, 5, "w"},
			{true, 'b', 8, 1048575, "rm"},
		},
		"all":            {{true, 'c', -1, -1, "rwm"}, {true, 'b', -1, -1, "rwm"}},
		"all but":        {{true, 'a', -1, -1, "rwm"}, {false, 'b', 8, 3, "rwm"}, {false, 'c', 1, -1, "w"}},
		"allowed again":  {{true, 'a', -1, -1, "rwm"}, {false, 'b', 8, -1, "rwm"}, {true, 'b', 8, -1, "r"}},
		"forbidden last": {{true, 'c', 1, 3, "rwm"}, {true, 'a', 8, 0, "r"}, {false, 'a', -1, -1, "rwm"}},
		"part taken":     {{true, 'c', 1, 3, "rwm"}, {false, 'c', 1, 3, "w"}, {false, 'c', -1, -1, "m"}},
	}
}

func checkRules(t *testing.T, name string, rules []DeviceRule) {
	t.Helper()
	p := deviceProgram(rules)
	set, err := evaluate(rules)
	eachAccess(func(char bool, access uint32, major, minor int64) {
		want := allowed(rules, char, access, major, minor)
		if got := run(t, p, kind(char), access, uint32(major), uint32(minor)); got != want {
			t.Fatalf("%s: program: char %v access %d %d:%d = %v, want %v", name, char, access, major, minor, got, want)
		}
		// v1 asks for one exception that covers all access at once.
		if got := set.byKernel(char, access, major, minor); err == nil && got != want && (got || access&(access-1) == 0) {
			t.Fatalf("%s: v1: char %v access %d %d:%d = %v, want %v (%v)", name, char, access, major, minor, got, want, set.lines())
		}
	})
}

// Program and v1 set agree with the rules as one reads them.
func TestDeviceRules(t *testing.T) {
	for name, rules := range deviceLists() {
		if _, err := evaluate(rules); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkRules(t, name, rules)
	}
}

func TestDeviceRulesAtRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(ns ...int64) int64 { return ns[r.IntN(len(ns))] }
	expressed := 0
	for range 100 {
		var rules []DeviceRule
		for range r.IntN(6) {
			access := []string{"r", "w", "m", "rw", "rwm", "wm"}[r.IntN(6)]
			rules = append(rules, DeviceRule{r.IntN(3) > 0, "abc"[r.IntN(3)], pick(-1, 1, 8), pick(-1, 3, 5), access})
		}
		if _, err := evaluate(rules); err == nil {
			expressed++
		} else if !errors.Is(err, errdefs.ErrUnsupported) {
			t.Fatal(err)
		}
		checkRules(t, "random", rules)
	}
	if expressed < 10 {
		t.Errorf("v1 can say only %d of 100", expressed)
	}
}

func TestDeviceRuleV1CannotSay(t *testing.T) {
	_, err := evaluate([]DeviceRule{{true, 'c', 1, -1, "rwm"}, {false, 'c', 1, 3, "w"}})
	if !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), "limit devices: cgroup v1 cannot take c 1:3 w out of c 1:* rwm") {
		t.Errorf("error = %v", err)
	}
}

func TestDeviceWrites(t *testing.T) {
	null, zero := DeviceRule{true, 'c', 1, 3, "rwm"}, DeviceRule{true, 'c', 1, 5, "r"}
	for name, c := range map[string]struct {
		rules     []DeviceRule
		old, want string
	}{
		"new":           {[]DeviceRule{null, zero}, "", "devices.deny=a devices.allow=c 1:3 rwm devices.allow=c 1:5 r"},
		"was all":       {[]DeviceRule{null}, "a *:* rwm", "devices.deny=a devices.allow=c 1:3 rwm"},
		"same":          {[]DeviceRule{null, zero}, "c 1:3 rwm\nc 1:5 r", ""},
		"one goes":      {[]DeviceRule{null}, "c 1:3 rwm\nc 1:5 r", "devices.deny=c 1:5 r"},
		"one comes":     {[]DeviceRule{null, zero}, "c 1:3 rwm", "devices.allow=c 1:5 r"},
		"less access":   {[]DeviceRule{zero}, "c 1:5 rwm", "devices.allow=c 1:5 r devices.deny=c 1:5 wm"},
		"all forbidden": {[]DeviceRule{}, "c 1:3 rwm\nb *:* m", "devices.deny=c 1:3 rwm devices.deny=b *:* m"},
		"all but":       {[]DeviceRule{{true, 'a', -1, -1, "rwm"}, {false, 'b', 8, -1, "w"}}, "", "devices.allow=a devices.deny=b 8:* w"},
	} {
		set, err := evaluate(c.rules)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, render(set.writes(c.old))); d != "" {
			t.Errorf("%s -want +got:\n%s", name, d)
		}
	}
}

func FuzzDeviceLine(f *testing.F) {
	for _, line := range []string{"a *:* rwm", "c 1:3 rwm", "b 8:* r", "c *:5 m", "c 1: r", "c -1:3 r"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		n, bits, ok := parseDeviceLine(line)
		if !ok {
			return
		}
		again, bits2, ok := parseDeviceLine(n.line(bits))
		if bits != 0 && (!ok || again != n || bits2 != bits) {
			t.Fatalf("%q is %v %d, then %v %d %v", line, n, bits, again, bits2, ok)
		}
	})
}
