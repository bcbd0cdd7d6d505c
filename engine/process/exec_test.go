package process_test

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/process/processtest"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// BenchmarkExec is one exec of /bin/true in a running container: start, exit,
// forget; with the default filter, no control group, no terminal.
func BenchmarkExec(b *testing.B) {
	f := processtest.NewFixture(b)
	l := newLocal(b)
	if _, err := l.Start(b.Context(), "first", f.Spec(b, "/bin/sleep", "1000")); err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := l.Signal(b.Context(), "first", 9); err != nil {
			b.Error(err)
		}
		if _, err := l.Wait(b.Context(), "first"); err != nil {
			b.Error(err)
		}
	}()
	was := f.Spec(b, "/bin/true")
	spec := process.Spec{
		Join: "first", Args: was.Args, Env: was.Env, Capabilities: was.Capabilities,
		Seccomp: defaultFilter(b, was.Capabilities),
	}
	b.ResetTimer()
	for b.Loop() {
		if _, err := l.Start(b.Context(), "x", spec); err != nil {
			b.Fatal(err)
		}
		if _, err := l.Wait(b.Context(), "x"); err != nil {
			b.Fatal(err)
		}
		if err := l.Forget(b.Context(), "x"); err != nil {
			b.Fatal(err)
		}
	}
}

// notifyOn is a filter that asks its listener about the given calls.
func notifyOn(calls ...uint32) []process.SockFilter {
	const load, equal, ret, allow, notify = 0x20, 0x15, 0x06, 0x7fff0000, 0x7fc00000
	filter := []process.SockFilter{{Code: load}} // seccomp_data.nr
	for i, nr := range calls {
		filter = append(filter, process.SockFilter{Code: equal, JT: uint8(len(calls) - i), K: nr})
	}
	return append(filter, process.SockFilter{Code: ret, K: allow}, process.SockFilter{Code: ret, K: notify})
}

// The listener of the filter comes to the agent with the state, and decides
// what the command may do, with and without no_new_privs, at start and at exec.
func TestLocalSeccompListener(t *testing.T) {
	h := local(t)
	if _, err := h.Runner.Start(t.Context(), "first", h.Spec(t, "sleep", "1000")); err != nil {
		t.Fatal(err)
	}
	defer processtest.Reap(t, h.Runner, "first")
	for name, change := range map[string]func(*process.Spec){
		"start": func(*process.Spec) {},
		"nnp":   func(s *process.Spec) { s.NoNewPrivs = true },
		"exec": func(s *process.Spec) {
			*s = process.Spec{Join: "first", Args: s.Args, Env: s.Env, Terminal: s.Terminal, ConsoleLog: s.ConsoleLog}
		},
	} {
		t.Run(name, func(t *testing.T) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			agent, socket := os.NewFile(uintptr(fds[0]), "agent"), os.NewFile(uintptr(fds[1]), "socket")
			defer linux.CloseAll([]*os.File{agent, socket})
			spec := h.Spec(t, "mkdir", "/tmp/refused")
			change(&spec)
			spec.Seccomp = notifyOn(unix.SYS_MKDIRAT, mkdirCall)
			spec.SeccompFlags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
			spec.SeccompListener = socket
			spec.SeccompState = []byte(`{"ociVersion":"1.2.0","fds":["seccompFd"],"pid":0,"state":{"id":"x","pid":0}}`)
			p, err := h.Runner.Start(t.Context(), name, spec)
			if err != nil {
				t.Fatal(err)
			}
			defer processtest.Reap(t, h.Runner, name)
			answerNotification(t, agent, p.Pid)
			if e, err := h.Runner.Wait(t.Context(), name); err != nil || e.Code != 1 {
				t.Errorf("%+v, %v", e, err)
			}
			if _, err := os.Stat(filepath.Join(h.Spec(t).Rootfs, "tmp/refused")); err == nil {
				t.Error("what was refused was done")
			}
		})
	}
}

// answerNotification takes a listener from the agent's socket and refuses the
// first call that it is asked about.
func answerNotification(t *testing.T, agent *os.File, pid int) {
	t.Helper()
	if err := agent.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, files, err := linux.RecvFiles(agent, buf, 4)
	defer linux.CloseAll(files)
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var state struct {
		Pid   int
		State struct{ Pid int }
	}
	if err := json.Unmarshal(buf[:n], &state); err != nil || state.Pid != pid || state.State.Pid != pid {
		t.Errorf("state %s, %v; want pid %d", buf[:n], err, pid)
	}
	// struct seccomp_notif and seccomp_notif_resp (linux/seccomp.h)
	const recv, send = 3<<30 | 80<<16 | '!'<<8, 3<<30 | 24<<16 | '!'<<8 | 1
	var notif [80]byte
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, files[0].Fd(), recv, uintptr(unsafe.Pointer(&notif))); errno != 0 {
		t.Fatal(errno)
	}
	if got := binary.LittleEndian.Uint32(notif[8:]); int(got) != pid {
		t.Errorf("asked about process %d, want %d", got, pid)
	}
	var resp [24]byte
	copy(resp[:], notif[:8])
	refusal := -int32(unix.EROFS)
	binary.LittleEndian.PutUint32(resp[16:], uint32(refusal))
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, files[0].Fd(), send, uintptr(unsafe.Pointer(&resp))); errno != 0 {
		t.Fatal(errno)
	}
}

// A hundred execs, good and bad, leave nothing behind in the runner.
func TestLocalExecLeavesNothing(t *testing.T) {
	h := local(t)
	if _, err := h.Runner.Start(t.Context(), "first", h.Spec(t, "sleep", "1000")); err != nil {
		t.Fatal(err)
	}
	defer processtest.Reap(t, h.Runner, "first")
	cycle := func(args ...string) {
		t.Helper()
		was := h.Spec(t, args...)
		spec := process.Spec{Join: "first", Args: args, Env: was.Env, Terminal: true, ConsoleLog: was.ConsoleLog}
		if _, err := h.Runner.Start(t.Context(), "x", spec); err != nil {
			if strings.HasPrefix(args[0], "no-such") {
				return
			}
			t.Fatal(err)
		}
		if _, err := h.Runner.Wait(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if err := h.Runner.Forget(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
	}
	cycle("true")
	cycle("no-such")
	before := count(t, "/proc/self/fd")
	for i := range 100 {
		cycle("true")
		if i%10 == 0 {
			cycle("no-such")
		}
	}
	if now := count(t, "/proc/self/fd"); now > before {
		t.Errorf("%d open files, %d before", now, before)
	}
}
