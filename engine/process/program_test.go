package process

import (
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "rewrite golden files")

// compile is Program.compile for a new program.
func compile(spec *Spec, facts facts) (*Program, error) {
	p := newProgram()
	if err := p.compile(spec, facts); err != nil {
		return nil, err
	}
	return p, nil
}

// compileExec is Program.compileExec for a new program.
func compileExec(spec *Spec, facts facts, t *target) (*Program, error) {
	p := newProgram()
	if err := p.compileExec(spec, facts, t); err != nil {
		return nil, err
	}
	return p, nil
}

func goldenSpec() *Spec {
	return &Spec{
		Rootfs: "/rootfs", Namespaces: DefaultNamespaces("/ns/user", "/ns/net"), Mounts: DefaultMounts(),
		CgroupFiles: make([]*os.File, 2),
		Hostname:    "vm-1",
		Args:        []string{"app", "-v"},
		Env:         []string{"PATH=/usr/bin:/bin"},
		Cwd:         "/srv/app",
		UID:         1000, GID: 1000, Groups: []uint32{1000, 27},
		Files: []File{
			{Path: "/etc/hosts", Data: []byte("127.0.0.1 localhost\n"), Mode: 0o644},
			{Path: "/etc/hostname", Mode: 0o600, UID: 7},
		},
		Capabilities:  []string{"CAP_CHOWN", "CAP_SETPCAP", "CAP_AUDIT_WRITE"},
		MaskedPaths:   []string{"/proc/kcore"},
		ReadonlyPaths: []string{"/proc/sys"},
		Seccomp:       []SockFilter{{Code: 6, K: 0x7fff0000}},
		Rlimits:       []Rlimit{{Name: "RLIMIT_NOFILE", Soft: 1024, Hard: 1048576}, {Name: "RLIMIT_CORE"}},
		Terminal:      true,
		Sysctls:       map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
	}
}

func goldenFacts() facts {
	return facts{cgroups: []hierarchy{{}}, hardLimits: map[int]uint64{4: 1 << 40, 7: 20000}}
}

// detachedSpec is goldenSpec with nothing by path.
func detachedSpec() *Spec {
	s := goldenSpec()
	s.Rootfs, s.Root = "", &os.File{}
	for i := range s.Namespaces {
		if n := &s.Namespaces[i]; n.Path != "" {
			n.Path, n.File = "", &os.File{}
		}
	}
	return s
}

// stagedFacts are those of a runner with a stage.
func stagedFacts() facts {
	f := goldenFacts()
	f.stage = &os.File{}
	return f
}

// groupedFacts are those of a runner with a stage on the hybrid layout, for a
// container with a group in each hierarchy.
func groupedFacts() facts {
	f := hybridFacts()
	f.stage, f.cgroups = &os.File{}, slices.Clone(f.cgroups)
	for i := range f.cgroups {
		f.cgroups[i].own = filepath.Join(cgroupRoot, f.cgroups[i].name, "gantry/vm-1")
	}
	return f
}

func TestCompileGolden(t *testing.T) {
	strict := goldenSpec()
	strict.NoNewPrivs = true
	strict.Files, strict.MaskedPaths, strict.ReadonlyPaths, strict.Rlimits, strict.Sysctls, strict.CgroupFiles = nil, nil, nil, nil, nil, nil
	for name, tt := range map[string]struct {
		spec  *Spec
		facts facts
	}{
		"full.golden":       {goldenSpec(), goldenFacts()},
		"restricted.golden": {strict, facts{}},
		"places.golden":     {placesSpec(), hybridFacts()},
		"host.golden":       {hostSpec(), goldenFacts()},
		"staged.golden":     {goldenSpec(), stagedFacts()},
		"detached.golden":   {detachedSpec(), stagedFacts()},
		"grouped.golden":    {detachedSpec(), groupedFacts()},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := compile(tt.spec, tt.facts)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(file, []byte(p.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), p.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Equal specs give equal programs, byte for byte.
func TestCompileIsDeterministic(t *testing.T) {
	var first []byte
	for range 5 {
		spec := goldenSpec()
		spec.Sysctls["net.a"], spec.Sysctls["net.b"] = "1", "2"
		p, err := compile(spec, goldenFacts())
		if err != nil {
			t.Fatal(err)
		}
		image, err := p.encode()
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = image
		}
		if string(first) != string(image) {
			t.Fatal("programs differ")
		}
	}
}

// A program is the same in the memory of another.
func TestProgramMemoryIsUsedAgain(t *testing.T) {
	used := newProgram()
	for _, spec := range []*Spec{placesSpec(), goldenSpec(), placesSpec(), hostSpec()} {
		want, err := compile(spec, groupedFacts())
		if err != nil {
			t.Fatal(err)
		}
		if err := used.compile(spec, groupedFacts()); err != nil {
			t.Fatal(err)
		}
		a, errA := want.encode()
		b, errB := used.encode()
		if errA != nil || errB != nil || string(a) != string(b) || want.String() != used.String() || len(want.places) != len(used.places) {
			t.Errorf("programs differ: %v, %v", errA, errB)
		}
		used.reset()
	}
}

// Every result is set before it is used, every skip lands inside.
func TestCompiledProgramIsSound(t *testing.T) {
	for _, spec := range []*Spec{goldenSpec(), placesSpec(), hostSpec(), detachedSpec()} {
		for _, f := range []facts{goldenFacts(), hybridFacts(), stagedFacts(), groupedFacts()} {
			p, err := compile(spec, f)
			if err != nil {
				t.Fatal(err)
			}
			checkSound(t, p)
		}
	}
}

func checkSound(t *testing.T, p *Program) {
	t.Helper()
	set := map[int]bool{}
	for i, s := range p.steps {
		for _, a := range s.args {
			if a.kind == kindResult && !set[a.off] {
				t.Errorf("step %d (%s) uses %s before it is set", i, s.name, a.text)
			}
			if a.kind != kindNumber && a.off >= len(p.data)+1 {
				t.Errorf("step %d (%s) points outside", i, s.name)
			}
		}
		if s.out >= 0 {
			set[s.out] = true
		}
		if s.nr == unix.SYS_FSTAT { // it sets all of its buffer
			for k := range int(unsafe.Sizeof(unix.Stat_t{})) {
				set[s.args[1].off+k] = true
			}
		}
		if skip := max(s.skipIgnored, s.skipZero); skip > 0 && i+1+skip >= len(p.steps) {
			t.Errorf("step %d (%s) skips to %d of %d", i, s.name, i+1+skip, len(p.steps))
		}
	}
	if last := p.steps[len(p.steps)-1]; last.nr != nrFail {
		t.Errorf("the last step is %s", last.name)
	}
}

// run executes a program in a plain child and returns its messages.
func run(t *testing.T, p *Program) (records [][2]uint64, code int) {
	t.Helper()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	child, status, err := launch(p, null, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = status.Close() }()
	ended := child.wait()
	buf := make([]byte, recordSize)
	for {
		n, err := status.Read(buf)
		if n == 0 || err != nil {
			return records, ended.ExitStatus()
		}
		records = append(records, [2]uint64{binary.LittleEndian.Uint64(buf), binary.LittleEndian.Uint64(buf[8:])})
	}
}

// The failing cases end in the last instructions of the interpreter: so all of
// it is within what is copied.
func TestInterpreter(t *testing.T) {
	t.Run("results, jumps, expectations", func(t *testing.T) {
		p := newProgram()
		c := &compiler{Program: p}
		msg, out := c.record(42, "record")
		fd := p.slot("fd")
		p.call("open", unix.SYS_OPENAT, atCwd(), p.str("/dev/null"), num(unix.O_WRONLY)).to(fd)
		p.call("write", unix.SYS_WRITE, fd, p.str("abc"), num(3)).to(out).wants(3)
		p.call("skip on zero", unix.SYS_CLOSE, fd)
		j := p.jumpZero()
		p.call("skipped", unix.SYS_EXIT_GROUP, num(50))
		p.land(j)
		p.call("ignored", unix.SYS_CLOSE, fd).ignore(unix.ENOENT, unix.EIO, unix.EPERM, unix.EBADF)
		j = p.jumpIgnored()
		p.call("skipped", unix.SYS_EXIT_GROUP, num(51))
		p.call("skipped", unix.SYS_EXIT_GROUP, num(52))
		p.land(j)
		p.call("report", unix.SYS_WRITE, num(statusFD), msg, num(recordSize))
		p.call("six arguments", unix.SYS_MMAP, num(0), num(4096), num(1), num(unix.MAP_PRIVATE|unix.MAP_ANON), num(uint64(1<<64-1)), num(0))
		p.call("end", unix.SYS_EXIT_GROUP, num(7))
		records, code := run(t, p)
		if code != 7 || len(records) != 1 || records[0] != [2]uint64{42, 3} {
			t.Errorf("code %d, records %v", code, records)
		}
	})
	for name, tt := range map[string]struct {
		build func(p *Program)
		errno unix.Errno
	}{
		"error":            {func(p *Program) { p.call("x", unix.SYS_CLOSE, num(77)) }, unix.EBADF},
		"not ignored":      {func(p *Program) { p.call("x", unix.SYS_CLOSE, num(77)).ignore(unix.EPERM, unix.EIO) }, unix.EBADF},
		"unknown call":     {func(p *Program) { p.call("x", 9999) }, unix.ENOSYS},
		"explicit failure": {func(p *Program) { p.call("x", nrFail, num(int(unix.EACCES))) }, unix.EACCES},
		"wrong result":     {func(p *Program) { p.call("x", unix.SYS_WRITE, num(1), p.str("abc"), num(3)).wants(4) }, unix.ENOSPC},
		"bad address":      {func(p *Program) { p.call("x", unix.SYS_OPENAT, atCwd(), num(8), num(0)) }, unix.EFAULT},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProgram()
			p.call("first", unix.SYS_GETPID)
			tt.build(p)
			p.call("last", unix.SYS_EXIT_GROUP, num(0))
			records, code := run(t, p)
			if code != 1 || len(records) != 1 || records[0] != [2]uint64{1<<32 | recordFailed, uint64(tt.errno)} {
				t.Errorf("code %d, records %v", code, records)
			}
		})
	}
}

func TestFailureClasses(t *testing.T) {
	p := newProgram()
	p.call("mount proc", unix.SYS_FSOPEN)
	if err := p.failure(0, unix.EPERM); err.Error() != "mount proc: operation not permitted" {
		t.Errorf("%v", err)
	}
	if err := p.failure(0, unix.ENOSPC); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("%v", err)
	}
	if err := p.failure(9, unix.EPERM); err == nil {
		t.Error("unknown step")
	}
}
