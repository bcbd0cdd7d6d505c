package processtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// badAttributes are specs that every runner refuses.
func badAttributes() map[string]func(*process.Spec) {
	number := func(n int) *int { return &n }
	bits := func(n uint32) *uint32 { return &n }
	hook := func(change func(*process.Hooks)) func(*process.Spec) {
		return func(s *process.Spec) {
			change(&s.Hooks)
			s.Hooks.State = func(string, int) []byte { return []byte("{}") }
		}
	}
	return map[string]func(*process.Spec){
		"umask":       func(s *process.Spec) { s.Umask = bits(0o1000) },
		"oom above":   func(s *process.Spec) { s.OOMScoreAdj = number(1001) },
		"oom below":   func(s *process.Spec) { s.OOMScoreAdj = number(-1001) },
		"personality": func(s *process.Spec) { s.Personality = bits(1<<32 - 1) },
		"set":         func(s *process.Spec) { s.Sets = &process.CapabilitySets{Bounding: []string{"CAP_X"}} },
		"effective":   func(s *process.Spec) { s.Sets = &process.CapabilitySets{Effective: []string{"CAP_KILL"}} },
		"ambient": func(s *process.Spec) {
			s.Sets = &process.CapabilitySets{Permitted: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"}}
		},
		"policy":             func(s *process.Spec) { s.Scheduler = &process.Scheduler{Policy: "SCHED_X"} },
		"nice":               func(s *process.Spec) { s.Scheduler = &process.Scheduler{Policy: "SCHED_OTHER", Nice: 20} },
		"priority":           func(s *process.Spec) { s.Scheduler = &process.Scheduler{Policy: "SCHED_OTHER", Priority: 1} },
		"no priority":        func(s *process.Spec) { s.Scheduler = &process.Scheduler{Policy: "SCHED_FIFO"} },
		"priority above":     func(s *process.Spec) { s.Scheduler = &process.Scheduler{Policy: "SCHED_RR", Priority: 100} },
		"runtime":            func(s *process.Spec) { s.Scheduler = &process.Scheduler{Policy: "SCHED_BATCH", Runtime: 1} },
		"scheduler flag":     func(s *process.Spec) { s.Scheduler = &process.Scheduler{Policy: "SCHED_BATCH", Flags: []string{"X"}} },
		"io class":           func(s *process.Spec) { s.IOPriority = &process.IOPriority{Class: "BE"} },
		"io priority":        func(s *process.Spec) { s.IOPriority = &process.IOPriority{Class: "IOPRIO_CLASS_BE", Priority: 8} },
		"affinity":           func(s *process.Spec) { s.CPUAffinity = "0-" },
		"affinity order":     func(s *process.Spec) { s.FinalAffinity = "3-1" },
		"affinity above":     func(s *process.Spec) { s.FinalAffinity = "0-9999" },
		"label":              func(s *process.Spec) { s.SELinuxLabel = "a\x00" },
		"filter flags":       func(s *process.Spec) { s.Seccomp, s.SeccompFlags = []process.SockFilter{{Code: 6}}, 1<<20 },
		"flags, no filter":   func(s *process.Spec) { s.SeccompFlags = 2 },
		"listener, no agent": func(s *process.Spec) { s.Seccomp, s.SeccompFlags = []process.SockFilter{{Code: 6}}, 8 },
		"log, no terminal":   func(s *process.Spec) { s.Terminal = false },
		"size, no terminal":  func(s *process.Spec) { s.Terminal, s.ConsoleLog, s.ConsoleRows = false, "", 5 },
		"hook path":          hook(func(h *process.Hooks) { h.Prestart = []process.Hook{{Path: "x"}} }),
		"hook timeout":       hook(func(h *process.Hooks) { h.CreateRuntime = []process.Hook{{Path: "/x", Timeout: -1}} }),
		"hook argument":      hook(func(h *process.Hooks) { h.StartContainer = []process.Hook{{Path: "/x", Args: []string{"\x00"}}} }),
		"hook, no state":     func(s *process.Spec) { s.Hooks.CreateContainer = []process.Hook{{Path: "/x"}} },
	}
}

func testBadAttributes(t *testing.T, h Harness) {
	for name, change := range badAttributes() {
		spec := h.Spec(t, "true")
		change(&spec)
		if _, err := h.Runner.Start(bounded(t), "bad", spec); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
			Reap(t, h.Runner, "bad")
		}
	}
}

func testAttributes(t *testing.T, r real) {
	mask, persona, oom := uint32(0o027), uint32(8), 321 // PER_LINUX32
	r.expect(t, "umask; touch /tmp/x; stat -c %a /tmp/x; cat /proc/self/personality /proc/self/oom_score_adj", "0027\n640\n00000008\n321\n", func(s *process.Spec) {
		s.Umask, s.Personality, s.OOMScoreAdj = &mask, &persona, &oom
	})
	r.expect(t, "umask", "0022\n")
	r.expect(t, "grep ^Cap /proc/self/status; id -u",
		"CapInh:\t0000000000000021\nCapPrm:\t0000000000000001\nCapEff:\t0000000000000001\nCapBnd:\t0000000000040021\nCapAmb:\t0000000000000001\n1000\n",
		func(s *process.Spec) {
			s.Args = []string{"sh", "-c", "exec sh -c '" + s.Args[2] + "'"}
			s.UID, s.GID = 1000, 1000
			s.Sets = &process.CapabilitySets{
				Bounding: []string{"CAP_CHOWN", "CAP_KILL", "CAP_SYS_CHROOT"}, Permitted: []string{"CAP_CHOWN", "CAP_KILL"},
				Effective: []string{"CAP_CHOWN"}, Inheritable: []string{"CAP_CHOWN", "CAP_KILL"}, Ambient: []string{"CAP_CHOWN"},
			}
		})
	for name, change := range map[string]func(*process.Spec){
		"AppArmor": func(s *process.Spec) { s.AppArmorProfile = "gantry-no-such-profile" },
		"SELinux":  func(s *process.Spec) { s.SELinuxLabel = "system_u:no:such" },
	} {
		spec := r.Spec(t, "true")
		change(&spec)
		_, err := r.Runner.Start(bounded(t), "label", spec)
		if !errors.Is(err, errdefs.ErrUnsupported) && !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
			Reap(t, r.Runner, "label")
		}
	}
}

func testScheduling(t *testing.T, r real) {
	all := strings.Split(cpus(t, 0), ",")
	last := all[len(all)-1]
	spec := r.Spec(t, "sleep", "1000")
	spec.Scheduler = &process.Scheduler{Policy: "SCHED_BATCH", Nice: 7, Flags: []string{"SCHED_FLAG_RESET_ON_FORK"}}
	spec.IOPriority = &process.IOPriority{Class: "IOPRIO_CLASS_BE", Priority: 6}
	spec.CPUAffinity, spec.FinalAffinity = all[0], last
	p := start(t, r.Harness, "scheduled", spec)
	attr, err := unix.SchedGetAttr(p.Pid, 0)
	if err != nil || attr.Policy != 3 || attr.Nice != 7 || attr.Flags&1 == 0 {
		t.Errorf("scheduler %+v, %v", attr, err)
	}
	if prio, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(p.Pid), 0); errno != 0 || prio != 2<<13|6 {
		t.Errorf("io priority %#x, %v", prio, errno)
	}
	if got := cpus(t, p.Pid); got != last {
		t.Errorf("processors %s, want %s", got, last)
	}
	spec = r.Spec(t, "sleep", "1000")
	spec.Scheduler = &process.Scheduler{Policy: "SCHED_RR", Priority: 3}
	p = start(t, r.Harness, "realtime", spec)
	if attr, err := unix.SchedGetAttr(p.Pid, 0); err != nil || attr.Policy != 2 || attr.Priority != 3 {
		t.Errorf("scheduler %+v, %v", attr, err)
	}
	for name, change := range map[string]func(*process.Spec){
		"deadline": func(s *process.Spec) {
			s.Scheduler = &process.Scheduler{Policy: "SCHED_DEADLINE", Runtime: 5, Deadline: 4, Period: 3}
		},
		"processor": func(s *process.Spec) { s.FinalAffinity = "8000" },
	} {
		spec := r.Spec(t, "true")
		change(&spec)
		if _, err := r.Runner.Start(bounded(t), "bad", spec); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
			Reap(t, r.Runner, "bad")
		}
	}
}

// pipe returns both ends, closed after the test.
func pipe(t *testing.T) (read, write *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { _, _ = read.Close(), write.Close() })
	return read, write
}

// noTerminal makes a spec write to a pipe, whose other end it returns.
func noTerminal(t *testing.T, s *process.Spec) (output *os.File, started func()) {
	t.Helper()
	read, write := pipe(t)
	s.Terminal, s.ConsoleLog = false, ""
	s.Stdio[1], s.Stdio[2] = write, write
	return read, func() { _ = write.Close() }
}

func drain(t *testing.T, f *os.File) string {
	t.Helper()
	must(t, f.SetReadDeadline(time.Now().Add(limit)))
	data, err := io.ReadAll(f)
	must(t, err)
	return string(data)
}

func testStdio(t *testing.T, r real) {
	r.first(t, "sleep 1000; true")
	for name, base := range map[string]func(args ...string) process.Spec{
		"start": func(args ...string) process.Spec { return r.Spec(t, args...) },
		"exec":  func(args ...string) process.Spec { return r.join(t, "first", args...) },
	} {
		// Plain files, the null device for what is missing, no terminal at all.
		spec := base("sh", "-c", "cat; test -t 0 || test -t 1 || echo plain; echo x >/dev/tty; ls -l /proc/self/fd/0 | grep -c /dev/null; stat -L -c %u:%g /proc/self/fd/1")
		output, started := noTerminal(t, &spec)
		var before unix.Stat_t
		must(t, unix.Fstat(int(spec.Stdio[1].Fd()), &before))
		start(t, r.Harness, name, spec)
		started()
		got := drain(t, output)
		// An owner without an id inside is shown as 65534: it was not re-owned.
		if !strings.HasPrefix(got, "plain\n") || !strings.Contains(got, "/dev/tty") || !strings.HasSuffix(got, "1\n65534:65534\n") {
			t.Errorf("%s: output %q", name, got)
		}
		Reap(t, r.Runner, name)

		// stdin, and preserved files in their order, also from numbers that clash.
		in, feed := pipe(t)
		spec = base("sh", "-c", "cat; echo three >&3; echo four >&4; cat <&5; ls /proc/self/fd | tr '\\n' ' '")
		spec.Args[2] = strings.Replace(spec.Args[2], "| tr", "| busybox tr", 1)
		output, started = noTerminal(t, &spec)
		spec.Stdio[0] = in
		three, w3 := pipe(t)
		four, w4 := pipe(t)
		five, w5 := pipe(t)
		spec.Preserve = []*os.File{w3, w4, five}
		_, err := feed.WriteString("input\n")
		must(t, err)
		_, err = w5.WriteString("fifth\n")
		must(t, err)
		must(t, feed.Close())
		must(t, w5.Close())
		start(t, r.Harness, name, spec)
		started()
		_, _ = w3.Close(), w4.Close()
		if a, b, c := drain(t, three), drain(t, four), drain(t, output); a != "three\n" || b != "four\n" || c != "input\nfifth\n0 1 2 3 4 5 6 " {
			t.Errorf("%s: %q, %q, %q", name, a, b, c)
		}
		Reap(t, r.Runner, name)
	}
}

// testPreserveFailure: the report of a failure survives the move of its socket.
func testPreserveFailure(t *testing.T, r real) {
	spec := r.Spec(t, "no-such")
	for range 5 {
		_, w := pipe(t)
		spec.Preserve = append(spec.Preserve, w)
	}
	if _, err := r.Runner.Start(bounded(t), "missing", spec); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "execute command") {
		t.Errorf("%v", err)
	}
}

// socketPair is a connected pair of unix sockets of a kind.
func socketPair(t *testing.T, kind int) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	ours, theirs = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	must(t, ours.SetDeadline(time.Now().Add(limit)))
	return ours, theirs
}

func testConsoleSocket(t *testing.T, r real) {
	r.first(t, "sleep 1000; true")
	for name, spec := range map[string]process.Spec{
		"start": r.Spec(t, "sh", "-c", "tty; stty size; read x; echo got $x"),
		"exec":  r.join(t, "first", "sh", "-c", "tty; stty size; read x; echo got $x"),
	} {
		ours, theirs := socketPair(t, unix.SOCK_STREAM)
		spec.ConsoleLog, spec.ConsoleSocket = "", theirs
		spec.ConsoleRows, spec.ConsoleColumns = 33, 99
		start(t, r.Harness, name, spec)
		buf := make([]byte, 4096)
		n, files, err := linux.RecvFiles(ours, buf, 4)
		if err != nil || len(files) != 1 || n == 0 {
			t.Fatalf("%s: message of %d bytes and %d files, %v", name, n, len(files), err)
		}
		master := files[0]
		_, err = master.WriteString("hello\n")
		must(t, err)
		var out strings.Builder
		for {
			n, err := master.Read(buf)
			out.Write(buf[:n])
			if err != nil || strings.Contains(out.String(), "got hello\r\n") {
				break
			}
		}
		if got := out.String(); !strings.Contains(got, "/dev/pts/") || !strings.Contains(got, "33 99\r\n") || !strings.Contains(got, "got hello\r\n") {
			t.Errorf("%s: %q", name, got)
		}
		must(t, master.Close())
		Reap(t, r.Runner, name)
	}
	// Nobody to send it to.
	ours, theirs := socketPair(t, unix.SOCK_STREAM)
	must(t, ours.Close())
	spec := r.Spec(t, "true")
	spec.ConsoleLog, spec.ConsoleSocket = "", theirs
	if _, err := r.Runner.Start(bounded(t), "nobody", spec); err == nil {
		t.Error("started without its console being taken")
		Reap(t, r.Runner, "nobody")
	}
}

// hookState makes the state of the tests' hooks.
func hookState(status string, pid int) []byte {
	text, err := json.Marshal(map[string]any{"ociVersion": "1.2.0", "id": "x", "status": status, "pid": pid, "bundle": "/b"})
	if err != nil {
		return nil
	}
	return text
}

func testHooks(t *testing.T, r real) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o777))
	log := filepath.Join(dir, "log")
	must(t, os.WriteFile(log, nil, 0o666))
	must(t, os.Chmod(log, 0o666))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	shell := func(script string) process.Hook {
		return process.Hook{Path: busybox, Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin", "V=" + log}}
	}
	spec := r.Spec(t, "sh", "-c", "cat /tmp/inside; exec >/dev/null 2>&1; sleep 1000")
	spec.Hooks.State = hookState
	// The host's root is still to be seen by all but the last.
	spec.Hooks.Prestart = []process.Hook{shell("busybox cat >$V; echo >>$V")}
	spec.Hooks.CreateRuntime = []process.Hook{shell("echo runtime $(busybox readlink /proc/self/ns/mnt) >>$V")}
	spec.Hooks.CreateContainer = []process.Hook{shell("echo container $(busybox hostname) $(busybox readlink /proc/self/ns/mnt) >>$V")}
	spec.Hooks.StartContainer = []process.Hook{{
		Path: "/bin/sh", Args: []string{"sh", "-c", "echo $$ $PWD; cat; echo; grep CapEff /proc/self/status; busybox id -u; ls -1 /proc/self/fd"},
	}}
	spec.Hooks.StartContainer[0].Args[2] = "(" + spec.Hooks.StartContainer[0].Args[2] + ") >/tmp/inside"
	spec.Hooks.StartContainer[0].Env = []string{"PATH=/bin"}
	spec.Capabilities = []string{"CAP_CHOWN"}
	output, started := noTerminal(t, &spec)
	p := start(t, r.Harness, "hooked", spec)
	started()
	own, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", p.Pid))
	must(t, err)
	want := fmt.Sprintf("%s\nruntime %s\ncontainer fixture %s\n", hookState("creating", p.Pid), own, theirs)
	if data, err := os.ReadFile(log); err != nil || string(data) != want {
		t.Errorf("hooks wrote %q, want %q, %v", data, want, err)
	}
	got := drain(t, output)
	pid, rest, _ := strings.Cut(got, " ")
	if want := fmt.Sprintf("/\n%s\nCapEff:\t0000000000000001\n0\n0\n1\n2\n3\n", hookState("created", p.Pid)); rest != want || pid == "1" {
		t.Errorf("inside: %q, want %q", got, want)
	}
}

func testHookFailures(t *testing.T, r real) {
	for point, set := range map[string]func(*process.Hooks, process.Hook){
		"prestart":        func(h *process.Hooks, one process.Hook) { h.Prestart = []process.Hook{one} },
		"createRuntime":   func(h *process.Hooks, one process.Hook) { h.CreateRuntime = []process.Hook{one} },
		"createContainer": func(h *process.Hooks, one process.Hook) { h.CreateContainer = []process.Hook{one} },
		"startContainer":  func(h *process.Hooks, one process.Hook) { h.StartContainer = []process.Hook{one} },
	} {
		for name, hook := range map[string]process.Hook{
			"fails":   {Path: "/bin/busybox", Args: []string{"sh", "-c", "exit 5"}},
			"killed":  {Path: "/bin/busybox", Args: []string{"sh", "-c", "kill -9 $$"}},
			"missing": {Path: "/no/such/hook"},
			"hangs":   {Path: "/bin/busybox", Args: []string{"sh", "-c", "sleep 1000 & sleep 1000"}, Timeout: 50 * time.Millisecond},
		} {
			spec := r.Spec(t, "sleep", "1000")
			spec.Hooks.State = hookState
			set(&spec.Hooks, hook)
			_, err := r.Runner.Start(bounded(t), "hooked", spec)
			if err == nil || !strings.Contains(err.Error(), point) {
				t.Errorf("%s %s: %v", point, name, err)
				Reap(t, r.Runner, "hooked")
			}
			if want := map[string]error{"missing": errdefs.ErrInvalid, "hangs": errdefs.ErrAborted}[name]; want != nil && !errors.Is(err, want) {
				t.Errorf("%s %s: %v, want %v", point, name, err, want)
			}
			if _, err := r.Runner.Status(bounded(t), "hooked"); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("%s %s: something is left: %v", point, name, err)
			}
		}
	}
}

func testGate(t *testing.T, r real) {
	dir := t.TempDir()
	// Longer than the address of a unix socket.
	dir = filepath.Join(dir, strings.Repeat("d", 100))
	must(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "gate")
	open := func() *os.File {
		gate, err := process.OpenGate(path)
		must(t, err)
		t.Cleanup(func() { _ = gate.Close() })
		return gate
	}
	gated := func(id string, spec process.Spec) process.Process {
		spec.Gate = open()
		p := start(t, r.Harness, id, spec)
		must(t, spec.Gate.Close())
		return p
	}
	refused := func(what string, want error) {
		t.Helper()
		if err := process.ReleaseGate(bounded(t), path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	refused("no gate", errdefs.ErrNotFound)
	p := gated("good", r.Spec(t, "sleep", "1000"))
	if _, err := process.OpenGate(path); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("a second gate: %v", err)
	}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Pid)); err != nil || string(comm) == "sleep\n" {
		t.Errorf("it did not wait: %q, %v", comm, err)
	}
	if s, err := r.Runner.Status(bounded(t), "good"); err != nil || !s.Running || s.Process != p {
		t.Errorf("status %+v, %v", s, err)
	}
	// Somebody comes, and goes away.
	for range 3 {
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		d, err := os.Open(dir)
		must(t, err)
		must(t, unix.Connect(c, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/gate", d.Fd())}))
		must(t, unix.Close(c))
		must(t, d.Close())
	}
	must(t, process.ReleaseGate(bounded(t), path))
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Pid)); err != nil || string(comm) != "sleep\n" {
		t.Errorf("behind the gate: %q, %v", comm, err)
	}
	refused("released before", errdefs.ErrConflict)
	must(t, os.Remove(path))

	for command, text := range map[string]string{"no-such": "not found", "notallowed": "may not be executed", "badformat": "no executable format"} {
		gated("bad", r.Spec(t, command))
		err := process.ReleaseGate(bounded(t), path)
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(errdefs.PublicText(err, ""), text) {
			t.Errorf("%s: %v", command, err)
		}
		Reap(t, r.Runner, "bad")
		must(t, os.Remove(path))
	}

	gated("dead", r.Spec(t, "sleep", "1000"))
	must(t, r.Runner.Signal(bounded(t), "dead", 9))
	wait(t, r.Harness, "dead")
	refused("a dead child", errdefs.ErrConflict)
	must(t, os.Remove(path))

	// Set-up fails before the gate: that is Start's.
	spec := r.Spec(t, "true")
	spec.Gate, spec.UID = open(), 70000
	if _, err := r.Runner.Start(bounded(t), "early", spec); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("bad user: %v", err)
	}
	must(t, spec.Gate.Close())
	refused("a failed start", errdefs.ErrConflict)
	must(t, os.Remove(path))
}

// testGateHooks: the process that opens the gate runs the hooks behind it.
func testGateHooks(t *testing.T, r real) {
	path := filepath.Join(t.TempDir(), "gate")
	for name, tt := range map[string]struct {
		script string
		fails  bool
	}{"good": {"cat >/tmp/state; busybox id -u >>/tmp/state", false}, "bad": {"exit 9", true}} {
		gate, err := process.OpenGate(path)
		must(t, err)
		spec := r.Spec(t, "sh", "-c", "cat /tmp/state; exec >/dev/null 2>&1; sleep 1000")
		spec.Gate, spec.UID, spec.GID = gate, 1000, 1000
		spec.Hooks.State = hookState
		spec.Hooks.StartContainer = []process.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", tt.script}, Env: []string{"PATH=/bin"}}}
		must(t, os.Chmod(filepath.Join(r.fixture.Rootfs, "tmp"), 0o777))
		output, started := noTerminal(t, &spec)
		p := start(t, r.Harness, name, spec)
		started()
		must(t, gate.Close())
		err = process.ReleaseGate(bounded(t), path)
		must(t, os.Remove(path))
		if tt.fails {
			if err == nil || !strings.Contains(err.Error(), "startContainer hook 0 (/bin/sh): exit status 9") {
				t.Errorf("%s: %v", name, err)
			}
			if e := wait(t, r.Harness, name); e.Signal != 9 {
				t.Errorf("%s: %+v", name, e)
			}
			continue
		}
		must(t, err)
		if got, want := drain(t, output), string(hookState("created", p.Pid))+"1000\n"; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
