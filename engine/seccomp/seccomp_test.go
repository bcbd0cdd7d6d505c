package seccomp

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// execute runs a filter as the kernel would.
func execute(t *testing.T, prog []Instruction, audit, number uint32, args [6]uint64) Action {
	t.Helper()
	var acc uint32
	for pc := 0; pc < len(prog); pc++ {
		i := prog[pc]
		taken := false
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			switch {
			case i.K == offNumber:
				acc = number
			case i.K == offArch:
				acc = audit
			case i.K >= offArgs && i.K < offArgs+48 && i.K%4 == 0:
				acc = uint32(args[(i.K-offArgs)/8] >> (i.K % 8 * 8))
			default:
				t.Fatalf("load of %d", i.K)
			}
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= i.K
			continue
		case unix.BPF_RET | unix.BPF_K:
			return Action(i.K)
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			taken = acc == i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			taken = acc >= i.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			taken = acc > i.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			taken = acc&i.K != 0
		default:
			t.Fatalf("instruction %+v", i)
		}
		if taken {
			pc += int(i.JT)
		} else {
			pc += int(i.JF)
		}
	}
	t.Fatal("ran off the end")
	return 0
}

func compiled(t testing.TB, arch Arch, capabilities ...string) (*Profile, []Instruction) {
	t.Helper()
	p, err := Default(capabilities)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := Compile(p, arch)
	if err != nil {
		t.Fatal(err)
	}
	return p, prog
}

var interesting = []uint64{
	0, 1, 2, 8, 16, 38, 40, 0x11, 0x20000, 0x20008, 0xffffffff, 0x10000000, 0x3d0f00, 1<<32 | 38, 1<<32 | 1, 1<<63 | 0x20000,
}

// The compiled filter and the definition agree on every number, and on
// arguments around the checked values.
func TestCompiledMeansTheSame(t *testing.T) {
	audits := []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM, 0}
	for _, arch := range []Arch{AMD64, ARM64} {
		own, err := arch.abis()
		if err != nil {
			t.Fatal(err)
		}
		for _, caps := range [][]string{nil, {"CAP_SYS_CHROOT"}, {"CAP_SYS_ADMIN", "CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_BOOT"}} {
			p, prog := compiled(t, arch, caps...)
			t.Logf("%s %v: %d instructions", arch, caps, len(prog))
			for _, audit := range audits {
				known := slices.ContainsFunc(own, func(a abi) bool { return a.audit == audit })
				for number := range uint32(600) {
					for _, v := range interesting {
						args := [6]uint64{v}
						want := p.Unknown
						if known {
							want = p.Evaluate(audit, number, args)
						}
						if got := execute(t, prog, audit, number, args); got != want {
							t.Fatalf("%s: %#x %d(%#x): %#x, want %#x", arch, audit, number, v, got, want)
						}
						if known && !hasRule(p, audit, number) {
							break
						}
					}
				}
				for _, number := range []uint32{1 << 30, 1<<30 | 1, 1<<30 | 520, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
					if got := execute(t, prog, audit, number, [6]uint64{}); got != Errno(unix.ENOSYS) {
						t.Errorf("%s: %#x %#x: %#x", arch, audit, number, got)
					}
				}
			}
		}
	}
}

func hasRule(p *Profile, audit, number uint32) bool {
	return p.Evaluate(audit, number, [6]uint64{}) != p.Evaluate(audit, number, [6]uint64{0xffffffff}) ||
		p.Evaluate(audit, number, [6]uint64{38}) != p.Evaluate(audit, number, [6]uint64{1})
}

// Random profiles too, so that long jumps and all forms of rules occur.
func TestRandomProfiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		p := &Profile{Calls: map[string]Rule{}, Default: Errno(unix.EPERM), Unknown: Errno(unix.ENOSYS)}
		var names []string
		for name := range table() {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			r := Rule{If: Errno(unix.Errno(rng.IntN(40) + 1)), Else: Errno(unix.Errno(rng.IntN(40) + 1))}
			if rng.IntN(3) == 0 {
				r.When = &Condition{Arg: rng.IntN(6), Clear: rng.Uint32() & rng.Uint32() & rng.Uint32()}
				for range rng.IntN(4) {
					r.When.OneOf = append(r.When.OneOf, uint32(rng.IntN(5)))
				}
				for range rng.IntN(4) {
					r.When.NoneOf = append(r.When.NoneOf, uint32(rng.IntN(5)))
				}
			}
			p.Calls[name] = r
		}
		prog, err := Compile(p, AMD64)
		if err != nil {
			t.Fatal(err)
		}
		for _, audit := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386} {
			for number := range uint32(480) {
				for range 3 {
					var args [6]uint64
					for i := range args {
						args[i] = uint64(rng.IntN(6)) | uint64(rng.Uint32()&rng.Uint32())<<3*uint64(rng.IntN(2))
					}
					if got, want := execute(t, prog, audit, number, args), p.Evaluate(audit, number, args); got != want {
						t.Fatalf("%#x %d %v: %#x, want %#x", audit, number, args, got, want)
					}
				}
			}
		}
	}
}

func TestFilterIsSmall(t *testing.T) {
	for arch, most := range map[Arch]int{AMD64: 400, ARM64: 150} {
		if _, prog := compiled(t, arch); len(prog) > most {
			t.Errorf("%s: %d instructions, at most %d expected", arch, len(prog), most)
		}
	}
}

func TestDefaultPolicy(t *testing.T) {
	eperm, enosys := Errno(unix.EPERM), Errno(unix.ENOSYS)
	p, _ := compiled(t, AMD64)
	admin, _ := compiled(t, AMD64, "CAP_SYS_ADMIN")
	for _, tt := range []struct {
		name  string
		arg   uint64
		want  Action
		admin Action
	}{
		{"read", 0, Allow, Allow},
		{"execve", 0, Allow, Allow},
		{"ptrace", 0, Allow, Allow},
		{"mount", 0, eperm, Allow},
		{"fsconfig", 0, eperm, Allow},
		{"open_tree_attr", 0, eperm, Allow},
		{"unshare", 0x10000000, eperm, Allow},
		{"clone", 0x11, Allow, Allow},
		{"clone", 0x10000011, eperm, Allow},
		{"clone", 0x02000000, eperm, Allow},
		{"clone3", 0, enosys, Allow},
		{"socket", unix.AF_INET, Allow, Allow},
		{"socket", unix.AF_ALG, eperm, eperm},
		{"socket", unix.AF_VSOCK, eperm, eperm},
		{"socket", 1<<32 | unix.AF_ALG, eperm, eperm},
		{"personality", 0xffffffff, Allow, Allow},
		{"personality", 0x0040000, eperm, eperm},
		{"bpf", 0, eperm, eperm},
		{"keyctl", 0, eperm, eperm},
		{"add_key", 0, eperm, eperm},
		{"userfaultfd", 0, eperm, eperm},
		{"io_uring_setup", 0, eperm, eperm},
		{"perf_event_open", 0, eperm, eperm},
		{"kexec_load", 0, eperm, eperm},
		{"init_module", 0, eperm, eperm},
		{"open_by_handle_at", 0, eperm, eperm},
		{"reboot", 0, eperm, eperm},
		{"syslog", 0, eperm, eperm},
		{"create_module", 0, enosys, enosys},
	} {
		n := uint32(table()[tt.name][0])
		if got := p.Evaluate(unix.AUDIT_ARCH_X86_64, n, [6]uint64{tt.arg}); got != tt.want {
			t.Errorf("%s(%#x): %#x, want %#x", tt.name, tt.arg, got, tt.want)
		}
		if got := admin.Evaluate(unix.AUDIT_ARCH_X86_64, n, [6]uint64{tt.arg}); got != tt.admin {
			t.Errorf("%s(%#x) with CAP_SYS_ADMIN: %#x, want %#x", tt.name, tt.arg, got, tt.admin)
		}
	}
	socketcall := uint32(table()["socketcall"][1])
	if got := p.Evaluate(unix.AUDIT_ARCH_I386, socketcall, [6]uint64{1}); got != enosys {
		t.Errorf("socketcall(SYS_SOCKET): %#x", got)
	}
	if got := p.Evaluate(unix.AUDIT_ARCH_I386, socketcall, [6]uint64{3}); got != Allow {
		t.Errorf("socketcall(SYS_CONNECT): %#x", got)
	}
}

// table is calls, by name.
func table() map[string][3]int64 {
	t := map[string][3]int64{}
	for _, c := range calls {
		t[c.name] = [3]int64{int64(c.numbers[0]), int64(c.numbers[1]), int64(c.numbers[2])}
	}
	return t
}

func TestCallsAreInOrder(t *testing.T) {
	for i := range calls[1:] {
		if calls[i].name >= calls[i+1].name {
			t.Errorf("%s is before %s", calls[i].name, calls[i+1].name)
		}
	}
	for _, name := range x32Only() {
		if _, ok := find(name); !ok {
			t.Errorf("%s of x32 is no call", name)
		}
	}
}

// Every known call is named by the profile: a new line of the table needs a
// decision.
func TestEveryCallIsConsidered(t *testing.T) {
	p, _ := compiled(t, AMD64)
	for name, numbers := range table() {
		if _, ok := p.Calls[name]; !ok {
			t.Errorf("%s is in no section", name)
		}
		if numbers == [3]int64{-1, -1, -1} {
			t.Errorf("%s has no number", name)
		}
	}
	if len(table()) < 470 || table()["execve"] != [3]int64{59, 11, 221} {
		t.Errorf("table of %d calls", len(table()))
	}
}

func TestTableMatchesThisArchitecture(t *testing.T) {
	column := map[string]int{"amd64": 0, "arm64": 2}[runtime.GOARCH]
	for name, number := range map[string]int{
		"openat2": unix.SYS_OPENAT2, "clone": unix.SYS_CLONE, "socket": unix.SYS_SOCKET, "bpf": unix.SYS_BPF,
		"personality": unix.SYS_PERSONALITY, "mount_setattr": unix.SYS_MOUNT_SETATTR, "mseal": unix.SYS_MSEAL,
	} {
		if got := table()[name][column]; got != int64(number) {
			t.Errorf("%s: %d, want %d", name, got, number)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	if _, err := Compile(&Profile{Calls: map[string]Rule{"reed": {}}}, AMD64); err == nil {
		t.Error("unknown call")
	}
	if _, err := Compile(&Profile{}, "mips"); err == nil {
		t.Error("unknown architecture")
	}
	if _, err := Compile(&Profile{Calls: map[string]Rule{"read": {When: &Condition{Arg: 6}}}}, AMD64); err == nil {
		t.Error("argument 6")
	}
}

func FuzzSections(f *testing.F) {
	f.Add(defaultText)
	f.Add("[a]\nb c\n[a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := sections(text)
		if err != nil && got != nil {
			t.Errorf("%v with an error", got)
		}
	})
}

// TestMain lets the test run itself as a child under the filter.
func TestMain(m *testing.M) {
	if os.Getenv("SECCOMP_TEST_CHILD") == "1" {
		os.Exit(underFilter())
	}
	os.Exit(m.Run())
}

// underFilter loads the filter for all threads and tries calls (RT-13).
func underFilter() int {
	p, err := Default(nil)
	if err != nil {
		return 2
	}
	prog, err := Compile(p, Arch(runtime.GOARCH))
	if err != nil {
		return 3
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 4
	}
	fprog := struct {
		len    uint16
		filter *Instruction
	}{uint16(len(prog)), &prog[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&fprog))); errno != 0 {
		fmt.Fprintln(os.Stderr, "load:", errno)
		return 5
	}
	bad := 0
	for _, c := range []struct {
		name string
		nr   uintptr
		arg  uintptr
		want unix.Errno
	}{
		{"socket AF_ALG", unix.SYS_SOCKET, unix.AF_ALG, unix.EPERM},
		{"socket AF_VSOCK", unix.SYS_SOCKET, unix.AF_VSOCK, unix.EPERM},
		{"fsopen", unix.SYS_FSOPEN, 0, unix.EPERM},
		{"mount", unix.SYS_MOUNT, 0, unix.EPERM},
		{"keyctl", unix.SYS_KEYCTL, 0, unix.EPERM},
		{"add_key", unix.SYS_ADD_KEY, 0, unix.EPERM},
		{"userfaultfd", unix.SYS_USERFAULTFD, 0, unix.EPERM},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, 0, unix.EPERM},
		{"bpf", unix.SYS_BPF, 0, unix.EPERM},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, 0, unix.EPERM},
		{"unshare", unix.SYS_UNSHARE, unix.CLONE_NEWUSER, unix.EPERM},
		{"clone new user", unix.SYS_CLONE, unix.CLONE_NEWUSER, unix.EPERM},
		{"clone3", unix.SYS_CLONE3, 0, unix.ENOSYS},
		{"future call", 999, 0, unix.ENOSYS},
		{"getpid", unix.SYS_GETPID, 0, 0},
	} {
		if _, _, errno := unix.Syscall(c.nr, c.arg, 0, 0); errno != c.want {
			fmt.Fprintf(os.Stderr, "%s: %v, want %v\n", c.name, errno, c.want)
			bad++
		}
	}
	// Ordinary work goes on: threads, files, child processes.
	if out, err := exec.Command("/bin/sh", "-c", "echo ok").Output(); err != nil || string(out) != "ok\n" {
		fmt.Fprintf(os.Stderr, "child: %q, %v\n", out, err)
		bad++
	}
	return min(bad, 1)
}

func TestUnderFilter(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "SECCOMP_TEST_CHILD=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		compiled(b, AMD64)
	}
}
