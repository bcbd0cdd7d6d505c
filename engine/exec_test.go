package engine_test

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// execOutput runs a shell script in container c and returns what it said.
func execOutput(t *testing.T, e *engine.Engine, req engine.ExecRequest) (string, engine.ExitState) {
	t.Helper()
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	req.Stdio = [3]*os.File{nil, w, w}
	s, err := e.Exec(t.Context(), "c", req)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	check(t, err)
	exit, err := e.ExecWait(t.Context(), "c", s.ID)
	check(t, err)
	return string(out), exit
}

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestExec(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	check(t, e.Start(t.Context(), "c", engine.StartRequest{
		Args: sh("echo ready; " + forever), Env: []string{"PATH=/bin", "OF=start"}, Cwd: "/etc", ConsoleBytes: 1 << 16,
	}))
	console(t, e, "c", "ready")
	out, exit := execOutput(t, e, engine.ExecRequest{Args: sh(`echo $OF $ADDED $HOME; pwd; id -u; echo err >&2; exit 7`), Env: []string{"ADDED=x"}})
	if out != "start x /root\n/etc\n0\nerr\n" || exit.Code != 7 || !exit.Known {
		t.Errorf("said %q, ended %+v", out, exit)
	}
	if out, _ := execOutput(t, e, engine.ExecRequest{Args: []string{"id", "-u"}, User: "1000:1000", Cwd: "/tmp"}); out != "1000\n" {
		t.Errorf("as a user, found in PATH: %q", out)
	}
	// confined as the first process is
	const privileges = `grep -E "^(Cap(Prm|Eff|Bnd|Inh|Amb)|NoNewPrivs|Seccomp):" /proc/$1/status; readlink /proc/$1/ns/*; sed "s/^[0-9]*://" /proc/$1/cgroup; grep -E "core file|open files" /proc/$1/limits`
	script := strings.ReplaceAll(privileges, "grep", "/bin/busybox grep")
	script = strings.ReplaceAll(strings.ReplaceAll(script, "readlink", "/bin/busybox readlink"), "sed", "/bin/busybox sed")
	mine, _ := execOutput(t, e, engine.ExecRequest{Args: []string{"/bin/sh", "-c", script, "sh", "self"}})
	first, _ := execOutput(t, e, engine.ExecRequest{Args: []string{"/bin/sh", "-c", script, "sh", "1"}})
	if mine != first || !strings.Contains(mine, "Seccomp:\t2") {
		t.Errorf("a session has\n%s\nthe first process\n%s", mine, first)
	}
	if out, _ := execOutput(t, e, engine.ExecRequest{Args: sh("for i in 0 1 2 3 4 5 6 7 8 9 10 63 255; do [ -e /proc/$$/fd/$i ] && echo -n $i; done")}); out != "012" {
		t.Errorf("descriptors: %q", out)
	}
	check(t, e.Delete(t.Context(), "c"))
}

func TestExecBadRequests(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	if _, err := e.Exec(t.Context(), "c", engine.ExecRequest{Args: sh("true")}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	if _, err := e.Exec(t.Context(), "c", engine.ExecRequest{Args: sh("true")}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("not started: %v", err)
	}
	check(t, e.Start(t.Context(), "c", initRequest))
	for name, req := range map[string]engine.ExecRequest{
		"no command":        {},
		"empty command":     {Args: []string{""}},
		"absent command":    {Args: []string{"/bin/absent"}},
		"a directory":       {Args: []string{"/etc"}},
		"not executable":    {Args: []string{"/etc/passwd"}},
		"NUL":               {Args: []string{"/bin/sh", "a\x00b"}},
		"relative cwd":      {Args: sh("true"), Cwd: "tmp"},
		"cwd is a file":     {Args: sh("true"), Cwd: "/etc/passwd"},
		"unknown user":      {Args: sh("true"), User: "nobody-here"},
		"user out of range": {Args: sh("true"), User: "2147483648"},
		"user of hex":       {Args: sh("true"), User: "0x0"},
		"bad environment":   {Args: sh("true"), Env: []string{"novalue"}},
		"terminal to nobody": {
			Args: sh("true"), Terminal: true,
		},
	} {
		if s, err := e.Exec(t.Context(), "c", req); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %+v %v", name, s, err)
		}
	}
	check(t, e.Pause(t.Context(), "c"))
	if _, err := e.Exec(t.Context(), "c", engine.ExecRequest{Args: sh("true")}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("paused: %v", err)
	}
	check(t, e.Resume(t.Context(), "c"))
	if list, err := e.Execs(t.Context(), "c"); err != nil || len(list) != 0 {
		t.Errorf("sessions left: %+v %v", list, err)
	}
	if _, err := e.ExecWait(t.Context(), "c", "absent"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("absent session: %v", err)
	}
	check(t, e.Delete(t.Context(), "c"))
}

func TestExecTerminal(t *testing.T) {
	_, e, done := fixture(t)
	defer done()
	run(t, e, "c")
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	s, err := e.Exec(t.Context(), "c", engine.ExecRequest{
		Args: sh("/bin/busybox stty size; read line; echo got $line; tty; " + forever), Terminal: true, Rows: 33, Columns: 101, Console: theirs,
	})
	theirs.Close()
	check(t, err)
	_, files, err := linux.RecvFiles(ours, make([]byte, 4096), 1)
	if err != nil || len(files) != 1 {
		t.Fatalf("terminal: %v %v", files, err)
	}
	master := files[0]
	if _, err := io.WriteString(master, "hello\n"); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	buf := make([]byte, 1024)
	for !strings.Contains(said.String(), "got hello") {
		n, err := master.Read(buf)
		check(t, err)
		said.Write(buf[:n])
	}
	if !strings.Contains(said.String(), "33 101") {
		t.Errorf("said %q", said.String())
	}
	// nobody looks any more: the kernel hangs the terminal up
	master.Close()
	if exit, err := e.ExecWait(t.Context(), "c", s.ID); err != nil || exit.Signal != int(unix.SIGHUP) {
		t.Errorf("hung up: %+v %v", exit, err)
	}
	check(t, e.Delete(t.Context(), "c"))
}

// TestExecEnds: a session ends by itself, by a signal, all of it at once, or
// with its container, and nothing of it is left.
func TestExecEnds(t *testing.T) {
	h, e, done := fixture(t)
	defer func() { done() }()
	run(t, e, "c")
	// each session has sleepers of a length of its own, by which they are known
	begin := func(seconds string) string {
		t.Helper()
		r, w, err := os.Pipe()
		check(t, err)
		defer r.Close()
		s, err := e.Exec(t.Context(), "c", engine.ExecRequest{Args: sh(strings.ReplaceAll("sleep 1000 & echo ready; "+forever, "1000", seconds)), Stdio: [3]*os.File{nil, w, nil}})
		w.Close()
		check(t, err)
		if _, err := io.ReadFull(r, make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		return s.ID
	}
	ended := func(exec string, signal int) {
		t.Helper()
		if exit, err := e.ExecWait(t.Context(), "c", exec); err != nil || exit.Signal != signal {
			t.Errorf("ended %+v %v, want signal %d", exit, err, signal)
		}
	}
	one := begin("1001")
	check(t, e.ExecSignal(t.Context(), "c", one, int(unix.SIGTERM)))
	ended(one, int(unix.SIGTERM))
	if err := e.ExecSignal(t.Context(), "c", one, int(unix.SIGTERM)); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("signal to an ended one: %v", err)
	}
	two := begin("1002")
	for range 2 {
		check(t, e.ExecKill(t.Context(), "c", two))
	}
	ended(two, int(unix.SIGKILL))
	await(t, func() bool { return !mentioned(t, e, "1002") })
	await(t, func() bool { return mentioned(t, e, "1001") }) // what another has left stays
	three := begin("1003")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.ExecWait(ctx, "c", three); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// the next engine finds it
	done()
	e, done = h.Engine(t)
	list, err := e.Execs(t.Context(), "c")
	if err != nil || len(list) != 1 || list[0].ID != three || !list[0].Running {
		t.Errorf("adopted: %+v %v", list, err)
	}
	check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
	ended(three, int(unix.SIGKILL))
	check(t, e.Delete(t.Context(), "c"))
	if _, err := e.Execs(t.Context(), "c"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("sessions of a deleted one: %v", err)
	}
	await(t, func() bool {
		left, err := h.Runner.List(t.Context())
		return err == nil && len(left) == 0
	})
}

// mentioned tells whether a process has a word in its command line.
func mentioned(t *testing.T, e *engine.Engine, word string) bool {
	t.Helper()
	list, err := e.Top(t.Context(), "c")
	check(t, err)
	return slices.ContainsFunc(list, func(p engine.ProcessInfo) bool {
		return strings.Contains(strings.Join(p.Args, " "), word)
	})
}

// await polls for a condition.
func await(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 24000 {
		if ok() {
			return
		}
		<-tick.C
	}
	t.Fatal("it does not come")
}
