package foreign

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/seccomp"
)

// Any value is in exactly one block, which says what the condition says.
func TestBlocks(t *testing.T) {
	for name, c := range map[string]*seccomp.Condition{
		"flags":   {Clear: 0x7e020000},
		"none of": {NoneOf: []uint32{unix.AF_ALG, unix.AF_VSOCK}},
		"one of":  {OneOf: []uint32{0, 8, 0x20000, 0x20008, 0xffffffff}},
		"all":     {Clear: 0xf0, OneOf: []uint32{1, 2, 0x13}, NoneOf: []uint32{2}},
		"empty":   {},
	} {
		list := blocks(c, 0, 32)
		values := []uint32{0, 1, 2, 8, 0x13, 38, 40, 0x20000, 0x20008, 0x7e020000, 1 << 17, 0xffffffff}
		for range 1000 {
			values = append(values, rand.Uint32(), rand.Uint32N(64))
		}
		for _, v := range values {
			hits, holds := 0, false
			for _, b := range list {
				if v&b.mask == b.value {
					hits, holds = hits+1, b.holds
				}
			}
			if want := means(c, v); hits != 1 || holds != want {
				t.Fatalf("%s: %#x is in %d blocks, holds %v, want %v", name, v, hits, holds, want)
			}
		}
	}
}

// means is the definition in seccomp.Condition.
func means(c *seccomp.Condition, v uint32) bool {
	p := seccomp.Profile{
		Calls:   map[string]seccomp.Rule{"personality": {When: c, If: seccomp.Allow, Else: seccomp.Errno(unix.EPERM)}},
		Unknown: seccomp.Errno(unix.ENOSYS),
	}
	return p.Evaluate(unix.AUDIT_ARCH_X86_64, 135, [6]uint64{uint64(v)}) == seccomp.Allow
}

// The default profile can be said, and each call has its rule.
func TestFilterOfDefaultProfile(t *testing.T) {
	p, err := seccomp.Default(nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := Filter(p, seccomp.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	var got specs.LinuxSeccomp
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got.DefaultAction != specs.ActErrno || *got.DefaultErrnoRet != uint(unix.ENOSYS) {
		t.Errorf("default %s %v", got.DefaultAction, got.DefaultErrnoRet)
	}
	rules := map[string]specs.LinuxSyscall{}
	for _, call := range got.Syscalls {
		for _, name := range call.Names {
			rules[name] = call
		}
	}
	if rules["read"].Action != specs.ActAllow || rules["bpf"].Action != specs.ActErrno || *rules["bpf"].ErrnoRet != uint(unix.EPERM) {
		t.Errorf("read %+v, bpf %+v", rules["read"].Action, rules["bpf"].Action)
	}
	if _, err := Filter(p, "other"); err == nil {
		t.Error("an unknown architecture is taken")
	}
}
