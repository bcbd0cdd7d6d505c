package processtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// join makes a spec that runs args inside of another process, with the same
// rights.
func (h Harness) join(t *testing.T, id string, args ...string) process.Spec {
	t.Helper()
	s := h.Spec(t, args...)
	return process.Spec{
		Join: id, Args: s.Args, Env: s.Env, Capabilities: s.Capabilities, Terminal: s.Terminal, ConsoleLog: s.ConsoleLog,
	}
}

// testJoin is the part of exec that every runner has.
func testJoin(t *testing.T, h Harness) {
	start(t, h, "first", h.Spec(t, "sleep", "1000"))
	for _, code := range []int{0, 7} {
		id := fmt.Sprint("exec-", code)
		p := start(t, h, id, h.join(t, "first", "sh", "-c", fmt.Sprint("exit ", code)))
		if e := wait(t, h, id); e.Code != code || p.Pid <= 0 {
			t.Errorf("%+v of %+v, want code %d", e, p, code)
		}
	}
	start(t, h, "long", h.join(t, "first", "sleep", "1000"))
	if _, err := h.Runner.Start(bounded(t), "exec", h.join(t, "nobody", "true")); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("join an unknown one: %v", err)
	}
	if _, err := h.Runner.Start(bounded(t), "exec", h.join(t, "first", "no-such")); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("missing command: %v", err)
	}
	for name, change := range map[string]func(*process.Spec){
		"root":      func(s *process.Spec) { s.Rootfs = "/x" },
		"namespace": func(s *process.Spec) { s.Namespaces = []process.Namespace{{Kind: process.IPCNamespace}} },
		"mount":     func(s *process.Spec) { s.Mounts = []process.Mount{{Destination: "/x"}} },
		"file":      func(s *process.Spec) { s.Files = []process.File{{Path: "/x"}} },
		"host name": func(s *process.Spec) { s.Hostname = "x" },
		"mask":      func(s *process.Spec) { s.MaskedPaths = []string{"/x"} },
		"hook":      func(s *process.Spec) { s.Hooks.Prestart = []process.Hook{{Path: "/x"}} },
		"log":       func(s *process.Spec) { s.ConsoleLog = "relative" },
		"cwd":       func(s *process.Spec) { s.Cwd = "relative" },
	} {
		spec := h.join(t, "first", "true")
		change(&spec)
		if _, err := h.Runner.Start(bounded(t), "exec", spec); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
			Reap(t, h.Runner, "exec")
		}
	}
	// The end of the first process is that of all.
	if err := h.Runner.Signal(bounded(t), "first", 9); err != nil {
		t.Fatal(err)
	}
	wait(t, h, "first")
	if e := wait(t, h, "long"); e.Signal != 9 {
		t.Errorf("exec outlived its container: %+v", e)
	}
	if _, err := h.Runner.Start(bounded(t), "exec", h.join(t, "first", "true")); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("join an ended one: %v", err)
	}
}

// inside runs a script in the running process "first" and returns its output.
func (r real) inside(t *testing.T, script string, changes ...func(*process.Spec)) (string, process.Exit) {
	t.Helper()
	spec := r.join(t, "first", "sh", "-c", script)
	for _, change := range changes {
		change(&spec)
	}
	start(t, r.Harness, "exec", spec)
	e := wait(t, r.Harness, "exec")
	if err := r.Runner.Forget(bounded(t), "exec"); err != nil {
		t.Error(err)
	}
	out, err := conlog.Tail(spec.ConsoleLog, 0, 0)
	must(t, err)
	return string(out), e
}

func (r real) expectInside(t *testing.T, script, want string, changes ...func(*process.Spec)) {
	t.Helper()
	if got, e := r.inside(t, script, changes...); got != want || e.Code != 0 {
		t.Errorf("%s: code %d, output %q, want %q", script, e.Code, got, want)
	}
}

func (r real) first(t *testing.T, script string, changes ...func(*process.Spec)) process.Process {
	t.Helper()
	spec := r.Spec(t, "sh", "-c", script)
	for _, change := range changes {
		change(&spec)
	}
	return start(t, r.Harness, "first", spec)
}

func testExec(t *testing.T, r real) {
	r.first(t, "sleep 1000; true")
	r.expectInside(t, "pwd; cd /proc/1/ns; for n in *; do test $(readlink $n) = $(readlink /proc/self/ns/$n) || echo $n differs; done; hostname; id -u; ls /; test $$ -ne 1",
		"/\nfixture\n0\nbin\ndev\netc\nhome\nproc\nsys\ntmp\n", func(s *process.Spec) {
			s.Capabilities = append(s.Capabilities, "CAP_SYS_PTRACE") // to look at another's namespaces
			s.Args[2] = strings.Replace(s.Args[2], "ls /", "ls -1 /", 1)
		})
	r.expectInside(t, "cat /proc/self/status | grep -E 'CapEff|CapInh|CapAmb|NoNewPrivs|^Seccomp:'; id -u; id -G; ulimit -n; umask",
		"CapInh:\t0000000000000000\nCapEff:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n1000\n1000 7\n55\n0077\n",
		func(s *process.Spec) {
			s.UID, s.GID, s.Groups, s.NoNewPrivs = 1000, 1000, []uint32{7}, true
			s.Seccomp = []process.SockFilter{{Code: 0x06, K: 0x7fff0000}}
			s.Rlimits = []process.Rlimit{{Name: "RLIMIT_NOFILE", Soft: 55, Hard: 66}}
			mask := uint32(0o077)
			s.Umask = &mask
		})
	r.expectInside(t, "", "0\n1\n2\n3\n", func(s *process.Spec) { s.Args = []string{"ls", "-1", "/proc/self/fd"} })
	r.expectInside(t, "case $(tty) in /dev/pts/[1-9]*) echo own; esac; stty size; set -- $(cat /proc/self/stat); test $7 -ne 0", "own\n24 80\n")
	r.expectInside(t, "pwd", "/srv/new\n", func(s *process.Spec) { s.Cwd = "/srv/new" })
}

// testExecForkAway: what an exec leaves behind is the container's.
func testExecForkAway(t *testing.T, r real) {
	r.first(t, "sleep 1000; true")
	if _, e := r.inside(t, "trap '' HUP; sleep 1000 & sleep 1000 & exit 3"); e.Code != 3 {
		t.Errorf("exit %+v", e)
	}
	r.expectInside(t, "n=0; for c in /proc/[0-9]*/comm; do test $(cat $c) = sleep && n=$(($n+1)); done; test $n -ge 3", "")
	// ... and of a first process: its end is the end of all.
	if _, e := r.sh(t, "sleep 1000 & exit 4"); e.Code != 4 {
		t.Errorf("exit %+v", e)
	}
}

// testExecHostileCwd: CVE-2024-21626 for exec.
func testExecHostileCwd(t *testing.T, r real) {
	must(t, os.Symlink("/proc/self/fd/7", filepath.Join(r.fixture.Rootfs, "link")))
	must(t, os.Symlink("/proc/1/root/../../..", filepath.Join(r.fixture.Rootfs, "up")))
	must(t, chownAll(r.fixture.Rootfs))
	r.first(t, "sleep 1000; true")
	cwds := []string{"/link", "/up", "/proc/self/cwd", "/proc/self/root", "/proc/thread-self/root"}
	for n := range 24 {
		cwds = append(cwds, fmt.Sprintf("/proc/self/fd/%d", n), fmt.Sprintf("/proc/1/fd/%d", n))
	}
	for _, cwd := range cwds {
		spec := r.join(t, "first", "readlink", "/proc/self/cwd")
		spec.Cwd = cwd
		if _, err := r.Runner.Start(bounded(t), "cwd", spec); err != nil {
			continue
		}
		wait(t, r.Harness, "cwd")
		out, err := conlog.Tail(spec.ConsoleLog, 0, 0)
		t.Errorf("%s: started in %q, %v", cwd, out, err)
		Reap(t, r.Runner, "cwd")
	}
	r.expectInside(t, "readlink /proc/self/cwd", "/\n", func(s *process.Spec) { s.Cwd = "/../../.." })
}

// testExecHostileContainer: nothing of the container's file system is needed.
func testExecHostileContainer(t *testing.T, r real) {
	admin := func(s *process.Spec) { s.Capabilities = append(s.Capabilities, "CAP_SYS_ADMIN", "CAP_MKNOD") }
	r.first(t, `umount /proc/sys; mount -t tmpfs x /proc && mkdir -p /proc/self/ns /proc/self/attr /proc/self/fd && echo x >/proc/self/attr/exec &&
		echo x >/proc/self/oom_score_adj && mount -t tmpfs x /dev/pts && mknod /dev/pts/ptmx p && mount -t tmpfs x /sys && echo ready; sleep 1000; true`, admin)
	null := func(s *process.Spec) { s.Terminal, s.ConsoleLog = false, "" }
	deadline := time.Now().Add(limit)
	for {
		spec := r.join(t, "first", "test", "-p", "/dev/pts/ptmx", "-a", "-d", "/sys")
		null(&spec)
		start(t, r.Harness, "exec", spec)
		e := wait(t, r.Harness, "exec")
		must(t, r.Runner.Forget(bounded(t), "exec"))
		if e.Code == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the container has not become hostile")
		}
	}
	// A fifo is no terminal, and does not block.
	for _, hostile := range []string{"", "rm /dev/pts/ptmx", "ln -s /dev/full /dev/pts/ptmx", "rm /dev/pts/ptmx; mkdir /dev/pts/ptmx", "rmdir /dev/pts/ptmx; echo >/dev/pts/ptmx"} {
		if hostile != "" {
			spec := r.join(t, "first", "busybox", "sh", "-c", strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll("; "+hostile, "; rm ", "; busybox rm "), "; ln ", "; busybox ln "), "; rmdir ", "; busybox rmdir ")[2:])
			null(&spec)
			start(t, r.Harness, "change", spec)
			if e := wait(t, r.Harness, "change"); e.Code != 0 {
				t.Errorf("%s: %+v", hostile, e)
			}
			must(t, r.Runner.Forget(bounded(t), "change"))
		}
		if _, err := r.Runner.Start(bounded(t), "exec", r.join(t, "first", "true")); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("terminal of a hostile /dev/pts (%s): %v", hostile, err)
			Reap(t, r.Runner, "exec")
		}
	}
}

// testExecUntraceable: CVE-2016-9962. While an exec is being set up, the
// container's root cannot look into it, not even with CAP_SYS_PTRACE.
func testExecUntraceable(t *testing.T, r real) {
	ptrace := func(s *process.Spec) { s.Capabilities = append(s.Capabilities, "CAP_SYS_PTRACE", "CAP_SYS_ADMIN") }
	r.first(t, "sleep 1000; true", ptrace)
	// Its last moment before the command, held by a gate.
	dir := t.TempDir()
	gate, err := process.OpenGate(filepath.Join(dir, "gate"))
	must(t, err)
	spec := r.join(t, "first", "sleep", "1000")
	spec.Gate = gate
	ptrace(&spec)
	p := start(t, r.Harness, "gated", spec)
	must(t, gate.Close())
	const probe = `for d in /proc/[0-9]*; do
		test $(cat $d/comm) = sleep && continue; test $(cat $d/comm) = sh && continue; test $(cat $d/comm) = cat && continue; test -d $d || continue
		echo found; ls $d/fd; readlink $d/exe; readlink $d/cwd; readlink $d/root; cat $d/environ; readlink $d/ns/mnt; cat $d/maps; head -c 1 $d/mem; echo x >$d/mem; done 2>/dev/null`
	out, _ := r.inside(t, probe, ptrace)
	if !strings.HasPrefix(out, "found\n") || strings.Trim(strings.ReplaceAll(out, "found", ""), "\n") != "" {
		t.Errorf("seen of a process that is set up: %q", out)
	}
	// And its first ones, in a race.
	spec = r.join(t, "first", "sh", "-c", `while test ! -e /stop; do for d in /proc/[0-9]*; do
		for l in $d/exe $d/cwd $d/root $d/fd/3 $d/fd/4 $d/fd/5 $d/fd/6; do x=$(readlink $l); case $x in ""|/|/bin/busybox|/proc/*|/dev/*|pipe:*) ;; *) echo $l $x; esac; done; done; done 2>/dev/null`)
	ptrace(&spec)
	start(t, r.Harness, "spy", spec)
	for range 50 {
		r.expectInside(t, "true", "")
	}
	r.expectInside(t, "mkdir /stop", "") // touch has it open, for the spy to see
	wait(t, r.Harness, "spy")
	if out, err := conlog.Tail(spec.ConsoleLog, 0, 0); err != nil || len(out) > 0 {
		t.Errorf("seen: %q, %v", out, err)
	}
	must(t, process.ReleaseGate(bounded(t), filepath.Join(dir, "gate")))
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Pid)); err != nil || string(comm) != "sleep\n" {
		t.Errorf("behind the gate: %q, %v", comm, err)
	}
}

// testExecOwnBinary: CVE-2019-5736 for exec.
func testExecOwnBinary(t *testing.T, r real) {
	self, err := os.Executable()
	must(t, err)
	before, err := os.Stat(self)
	must(t, err)
	for name, text := range map[string]string{"trick": "#!/proc/self/exe\n", "trick1": "#!/proc/1/exe\n", "trick2": "#!/proc/self/fd/4\n"} {
		must(t, os.WriteFile(filepath.Join(r.fixture.Rootfs, "bin", name), []byte(text), 0o755))
	}
	must(t, chownAll(r.fixture.Rootfs))
	r.first(t, "while true; do for f in /proc/[0-9]*/exe; do case $(readlink $f) in /bin/busybox|\"\") ;; *) (exec 3>$f && echo owned) ;; esac; done; done 2>/dev/null")
	for range 10 {
		for _, name := range []string{"trick", "trick1", "trick2"} {
			if _, err := r.Runner.Start(bounded(t), "trick", r.join(t, "first", name)); err == nil {
				Reap(t, r.Runner, "trick")
			}
		}
	}
	after, err := os.Stat(self)
	must(t, err)
	if before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
		t.Error("the host's binary has changed")
	}
}

// elf is the head of an executable for a machine, with an interpreter.
func elf(machine uint16, interpreter string) []byte {
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57+2*56)...)
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], 0x400000+176)
	le.PutUint64(b[32:], 64)
	for i, v := range []uint16{64, 56, 2} {
		le.PutUint16(b[52+2*i:], v)
	}
	segment := func(at int, kind, flags uint32, offset, address, size uint64) {
		le.PutUint32(b[at:], kind)
		le.PutUint32(b[at+4:], flags)
		for i, v := range []uint64{offset, address, address, size, size, 4096} {
			le.PutUint64(b[at+8+8*i:], v)
		}
	}
	segment(64, 3, 4, 176, 0, uint64(len(interpreter)+1))
	segment(120, 1, 5, 0, 0x400000, uint64(len(b)+len(interpreter)+1))
	return append(append(b, interpreter...), 0)
}

// testForeignCommands: executables that this host cannot run, at start and at
// exec.
func testForeignCommands(t *testing.T, r real) {
	own, other := uint16(62), uint16(183)
	if runtime.GOARCH == "arm64" {
		own, other = other, own
	}
	for name, data := range map[string][]byte{
		"otherarch": elf(other, "/bin/busybox"), "nointerpreter": elf(own, "/lib/no-such-ld.so"),
		"empty": nil, "text": []byte("echo no interpreter named\n"), "dirinterpreter": elf(own, "/etc"),
	} {
		must(t, os.WriteFile(filepath.Join(r.fixture.Rootfs, "bin", name), data, 0o755))
	}
	must(t, chownAll(r.fixture.Rootfs))
	r.first(t, "sleep 1000; true")
	for command, text := range map[string]string{
		"otherarch": "no executable format", "empty": "no executable format", "text": "no executable format",
		"nointerpreter": "not found", "dirinterpreter": "may not be executed", "notallowed": "may not be executed", "no-such": "not found",
	} {
		for id, spec := range map[string]process.Spec{"boot": r.Spec(t, command), "exec": r.join(t, "first", command)} {
			_, err := r.Runner.Start(bounded(t), id, spec)
			if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(errdefs.PublicText(err, ""), text) {
				t.Errorf("%s of %s: %v, public %q", id, command, err, errdefs.PublicText(err, ""))
				Reap(t, r.Runner, id)
			}
		}
	}
}

// cpus returns the processors that a process may use.
func cpus(t *testing.T, pid int) string {
	t.Helper()
	var set unix.CPUSet
	must(t, unix.SchedGetaffinity(pid, &set))
	var list []string
	for n := range 1024 {
		if set.IsSet(n) {
			list = append(list, fmt.Sprint(n))
		}
	}
	return strings.Join(list, ",")
}
