package engine_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// systemID is the id of an instance of a cloud.
const systemID = "6f9a1c1e-3b47-4f0e-8d2a-5a0d6c1b2e3f"

// systemd is an engine with an image whose init is the probe where systemd lies.
func systemd(t *testing.T) (*engine.Engine, func()) {
	t.Helper()
	own, err := probe()
	check(t, err)
	box, err := os.ReadFile("/bin/busybox")
	check(t, err)
	_, e, done := hostile(t, dir("lib"), dir("lib/sh"), file("lib/sh/systemd", string(box)), link("lib/sh/poweroff", "systemd"), dir("lib/systemd"), dir("sbin"),
		file("lib/systemd/systemd", string(own)), link("sbin/init", "/lib/systemd/systemd"))
	return e, done
}

func boot(t *testing.T, e *engine.Engine, id engine.ContainerID, profile engine.Profile) {
	t.Helper()
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: id, Image: "busybox", Limits: limits}))
	check(t, e.Start(t.Context(), id, engine.StartRequest{Candidates: initRequest.Candidates, Env: initRequest.Env, ConsoleBytes: 1 << 16, Profile: profile}))
}

// TestSystem: an init that does what systemd does at a boot comes up, ends when
// it is asked to, and comes up again; commands run beside it.
func TestSystem(t *testing.T) {
	e, done := systemd(t)
	defer done()
	boot(t, e, systemID, engine.ProfileAuto)
	console(t, e, systemID, "told container=gantry uuid="+systemID+"\nup")
	s, err := e.Exec(t.Context(), systemID, engine.ExecRequest{Args: []string{"/bin/sh", "-c", "grep -q '^0::/init.scope$' /proc/self/cgroup"}})
	check(t, err)
	if exit, err := e.ExecWait(t.Context(), systemID, s.ID); err != nil || exit.Code != 0 {
		t.Errorf("the session is not where the first process is: %+v %v", exit, err)
	}
	for try := 1; try <= 2; try++ {
		check(t, e.Stop(t.Context(), systemID, engine.StopRequest{Timeout: time.Minute, Retry: 50 * time.Millisecond}))
		if n := strings.Count(console(t, e, systemID, "down"), "down"); n != try {
			t.Errorf("it was asked %d times and went down %d times", try, n)
		}
		check(t, e.Start(t.Context(), systemID, engine.StartRequest{Candidates: initRequest.Candidates, Env: initRequest.Env, ConsoleBytes: 1 << 16}))
		console(t, e, systemID, strings.Repeat("told container=gantry uuid="+systemID+"\nup\ndown\n", try)+"told container=gantry uuid="+systemID+"\nup")
	}
}

// TestSystemIsChosen: by the program and by the request; a profile that does not
// exist is refused, and then nothing runs.
func TestSystemIsChosen(t *testing.T) {
	e, done := systemd(t)
	defer done()
	// without the rights it cannot mount, and ends
	boot(t, e, "plain", engine.ProfileInstance)
	if exit, err := e.Wait(t.Context(), "plain"); err != nil || exit.Code != 1 {
		t.Errorf("an init without the profile: %+v %v", exit, err)
	}
	console(t, e, "plain", "mount /run: operation not permitted")
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	start := func(args []string, profile engine.Profile) error {
		return e.Start(t.Context(), "c", engine.StartRequest{Args: args, Env: initRequest.Env, ConsoleBytes: 1 << 16, Profile: profile})
	}
	if err := start(sh(forever), "privileged"); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("an unknown profile: %v", err)
	}
	for _, tc := range []struct {
		name    string
		ready   string
		args    []string
		profile engine.Profile
		system  bool
	}{
		{"a shell", "one", sh("echo one; " + forever), engine.ProfileAuto, false},
		{"a shell as a system", "two", sh("echo two; " + forever), engine.ProfileSystem, true},
		{"systemd", "up\n", []string{"/sbin/init"}, engine.ProfileAuto, true},
	} {
		check(t, start(tc.args, tc.profile))
		console(t, e, "c", tc.ready)
		// the bounding set of a session is that of the first process
		out, _ := execOutput(t, e, engine.ExecRequest{Args: sh("grep CapBnd /proc/self/status")})
		set, err := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(out, "CapBnd:")), 16, 64)
		check(t, err)
		if got := set&(1<<unix.CAP_SYS_ADMIN) != 0; got != tc.system {
			t.Errorf("%s: %s", tc.name, out)
		}
		check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
	}
}

// TestSecuritySystem: root of a system container, who may mount, reaches nothing
// of the host by it: RT-7, RT-13, RT-14.
func TestSecuritySystem(t *testing.T) {
	hostCanary(t)
	e, done := systemd(t)
	defer done()
	boot(t, e, "c", engine.ProfileAuto)
	console(t, e, "c", "up\n")
	out, exit := execOutput(t, e, engine.ExecRequest{Args: []string{"/bin/probe", "reach"}})
	n := 0
	for line := range strings.Lines(out) {
		name, word, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n++; word != "EPERM" && word != "EACCES" && (word != "ENOENT" || name != "sysrq") && (word != "EBUSY" || name != "mount-hierarchy") &&
			(name != "mount-ext4" || word != "ENOTBLK") {
			t.Errorf("%s: %s", name, word)
		}
	}
	if n < 23 || exit.Code != 0 {
		t.Errorf("it ended %+v with\n%s", exit, out)
	}
	const bits = 1<<unix.CAP_SYS_MODULE | 1<<unix.CAP_SYS_RAWIO | 1<<unix.CAP_SYS_TIME | 1<<unix.CAP_SYSLOG | 1<<unix.CAP_MAC_ADMIN |
		1<<unix.CAP_MAC_OVERRIDE | 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_MKNOD
	for _, text := range []string{"/proc/1/status", "/proc/self/status"} {
		out, _ := execOutput(t, e, engine.ExecRequest{Args: sh("grep -E 'Cap(Prm|Bnd)' " + text)})
		for line := range strings.Lines(out) {
			_, number, _ := strings.Cut(strings.TrimSpace(line), "\t")
			set, err := strconv.ParseUint(number, 16, 64)
			check(t, err)
			if set&bits != 0 {
				t.Errorf("%s: %s", text, line)
			}
		}
	}
}
