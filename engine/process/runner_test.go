package process_test

import (
	"bytes"
	"context"
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
	"github.com/gantry-project/gantry/engine/process/processtest"
	"github.com/gantry-project/gantry/engine/seccomp"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

func newLocal(t testing.TB) *process.Local {
	t.Helper()
	return newLocalWith(t, process.Options{})
}

// newLocalWith returns a runner that is closed after the test.
func newLocalWith(t testing.TB, o process.Options) *process.Local {
	t.Helper()
	o.Log = zerolog.New(zerolog.NewTestWriter(t))
	l, err := process.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func local(t *testing.T) processtest.Harness {
	f := processtest.NewFixture(t)
	return processtest.Harness{
		Runner: newLocal(t),
		Spec:   func(t *testing.T, args ...string) process.Spec { return f.Spec(t, args...) },
	}
}

func TestLocal(t *testing.T) { processtest.Suite(t, local) }

func TestFake(t *testing.T) {
	processtest.Suite(t, func(*testing.T) processtest.Harness {
		return processtest.Harness{
			Runner: &processtest.Fake{},
			Spec: func(t *testing.T, args ...string) process.Spec {
				return processtest.Fixture{Rootfs: "/fake", UserNS: "/fake/user", NetNS: "/fake/net"}.Spec(t, args...)
			},
		}
	})
}

func TestLocalIsolation(t *testing.T) {
	processtest.Isolation(t, func(t *testing.T) process.Runner { return newLocal(t) })
}

// The same with a stage.
func TestStaged(t *testing.T) {
	staged := func(t *testing.T) process.Runner { return newLocalWith(t, process.Options{Resident: true}) }
	t.Run("suite", func(t *testing.T) {
		processtest.Suite(t, func(t *testing.T) processtest.Harness {
			f := processtest.NewFixture(t)
			return processtest.Harness{
				Runner: staged(t),
				Spec:   func(t *testing.T, args ...string) process.Spec { return f.Spec(t, args...) },
			}
		})
	})
	t.Run("isolation", func(t *testing.T) { processtest.Isolation(t, staged) })
	t.Run("places", func(t *testing.T) { processtest.Places(t, staged) })
	t.Run("races", func(t *testing.T) { processtest.Races(t, staged) })
}

func TestLocalPlaces(t *testing.T) {
	processtest.Places(t, func(t *testing.T) process.Runner { return newLocal(t) })
}

func TestLocalRaces(t *testing.T) {
	processtest.Races(t, func(t *testing.T) process.Runner { return newLocal(t) })
}

// A hundred starts leave no descriptor, no zombie and no mount behind.
func TestLocalLeavesNothing(t *testing.T) {
	h := local(t)
	cycle := func(args ...string) {
		t.Helper()
		if _, err := h.Runner.Start(t.Context(), "x", h.Spec(t, args...)); err != nil {
			if len(args) == 1 && args[0] == "no-such" {
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
	// only what is ours: tests of other packages mount and unmount beside this
	root := filepath.Dir(h.Spec(t, "true").Rootfs)
	files, mounts := count(t, "/proc/self/fd"), mountCount(t, root)
	for i := range 100 {
		if i%10 == 9 {
			cycle("no-such")
		}
		cycle("true")
	}
	if now := count(t, "/proc/self/fd"); now > files {
		t.Errorf("%d open files, %d before", now, files)
	}
	if now := mountCount(t, root); now != mounts {
		t.Errorf("%d mounts, %d before", now, mounts)
	}
	if children, err := os.ReadFile("/proc/thread-self/children"); err == nil && len(children) > 0 {
		t.Errorf("children are left: %s", children)
	}
	var ws unix.WaitStatus
	if pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WALL, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("child %d is left (%v)", pid, err)
	}
}

func count(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// mountCount counts the mounts at and below a directory.
func mountCount(t *testing.T, root string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(data, []byte(" "+root))
}

// Starts that are cancelled at any moment leave nothing behind.
func TestLocalStartCancelledAnywhere(t *testing.T) {
	h := local(t)
	for i := range 60 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*50*time.Microsecond)
		_, err := h.Runner.Start(ctx, "x", h.Spec(t, "sleep", "1000"))
		cancel()
		if err == nil {
			processtest.Reap(t, h.Runner, "x")
		} else if !errors.Is(err, errdefs.ErrAborted) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d: %v", i, err)
		}
	}
	var ws unix.WaitStatus
	if pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WALL, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("child %d is left (%v)", pid, err)
	}
}

// A closed runner leaves its processes to the caller.
func TestLocalCloseLeavesProcesses(t *testing.T) {
	f := processtest.NewFixture(t)
	l, err := process.New(process.Options{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Start(t.Context(), "stays", f.Spec(t, "sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(p.Pid, 0); err != nil {
		t.Errorf("the process is gone: %v", err)
	}
	if err := unix.Kill(p.Pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(p.Pid, &ws, 0, nil); err != nil || ws.Signal() != unix.SIGKILL {
		t.Errorf("%v, %v", ws, err)
	}
	if _, err := l.Start(t.Context(), "late", f.Spec(t, "true")); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("start after close: %v", err)
	}
}

func TestDetach(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	flag := filepath.Join(t.TempDir(), "flag")
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	script := "while test -e " + flag + "; do usleep 1000; done; test $PPID != $NOT && echo $X; ls -1 /proc/self/fd; pwd"
	env := []string{"X=y", "PATH=/bin", fmt.Sprint("NOT=", os.Getpid())}
	pid, pidfd, err := process.Detach(t.Context(), []string{"/bin/busybox", "sh", "-c", script}, env, out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pidfd.Close() }()
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	if err := linux.AwaitPidfd(pidfd); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out.Name())
	if want := "y\n0\n1\n2\n3\n/\n"; err != nil || string(data) != want {
		t.Errorf("pid %d printed %q, %v; want %q", pid, data, err, want)
	}
	if _, _, err := process.Detach(t.Context(), []string{"/no/such"}, nil, out); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("missing program: %v", err)
	}
}

// BenchmarkStartExit is one life of /bin/true: start, exit, forget. The
// namespaces are made once; no control group is joined; the filter is the
// default one.
func BenchmarkStartExit(b *testing.B) {
	f := processtest.NewFixture(b)
	l := newLocal(b)
	spec := f.Spec(b, "/bin/true")
	spec.Seccomp = defaultFilter(b, spec.Capabilities)
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

// BenchmarkNamespaces is making and removing a pair.
func BenchmarkNamespaces(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "ns")
	ids := []process.IDMap{{ContainerID: 0, HostID: processtest.HostID, Size: 65536}}
	for b.Loop() {
		if _, _, err := process.CreateNamespaces(b.Context(), dir, ids, ids); err != nil {
			b.Fatal(err)
		}
		if err := process.RemoveNamespaces(dir); err != nil {
			b.Fatal(err)
		}
	}
}

// defaultFilter is the profile of instances, compiled for this host.
func defaultFilter(t testing.TB, capabilities []string) []process.SockFilter {
	t.Helper()
	p, err := seccomp.Default(capabilities)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := seccomp.Compile(p, seccomp.Arch(runtime.GOARCH))
	if err != nil {
		t.Fatal(err)
	}
	var filter []process.SockFilter
	for _, i := range prog {
		filter = append(filter, process.SockFilter(i))
	}
	return filter
}

// The default filter lets the set-up end, as root, as a user, and with
// no_new_privs; what it refuses is refused.
func TestLocalWithDefaultFilter(t *testing.T) {
	h := local(t)
	const script = "unshare -U true 2>/dev/null; a=$?; mount -t tmpfs x /tmp 2>/dev/null; b=$?; poweroff -f 2>/dev/null; " +
		"grep -q 'Seccomp:.2' /proc/self/status; exit $((($a && $b) * 10 + $?))"
	for i, change := range []func(*process.Spec){
		func(*process.Spec) {},
		func(s *process.Spec) { s.NoNewPrivs = true },
		func(s *process.Spec) { s.UID, s.GID = 1000, 1000 },
		func(s *process.Spec) { s.UID, s.GID, s.NoNewPrivs = 1000, 1000, true },
		func(s *process.Spec) { s.Capabilities = nil },
	} {
		spec := h.Spec(t, "sh", "-c", script)
		change(&spec)
		spec.Seccomp = defaultFilter(t, spec.Capabilities)
		id := fmt.Sprint(i)
		if _, err := h.Runner.Start(t.Context(), id, spec); err != nil {
			t.Errorf("%d: %v", i, err)
			continue
		}
		if e, err := h.Runner.Wait(t.Context(), id); err != nil || e.Code != 10 {
			out, _ := conlog.Tail(spec.ConsoleLog, 0, 0)
			t.Errorf("%d: %+v, %v, %s", i, e, err, out)
		}
	}
}

// The child joins the control groups that it was given files of.
func TestLocalJoinsControlGroup(t *testing.T) {
	// v1, the hybrid layout, v2.
	tree, pattern := "/sys/fs/cgroup/pids", ":pids:"
	for _, v2 := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(tree); err != nil {
			tree, pattern = v2, "^0::"
		}
	}
	group, err := os.MkdirTemp(tree, "gantry-test-")
	if err != nil {
		t.Fatal(err)
	}
	h := local(t)
	procs, err := os.OpenFile(filepath.Join(group, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = procs.Close() }()
	spec := h.Spec(t, "grep", pattern, "/proc/self/cgroup")
	spec.CgroupFiles = []*os.File{procs}
	if _, err := h.Runner.Start(t.Context(), "x", spec); err != nil {
		t.Fatal(err)
	}
	if e, err := h.Runner.Wait(t.Context(), "x"); err != nil || e.Code != 0 {
		t.Errorf("%+v, %v", e, err)
	}
	// The control group namespace begins there.
	if out, err := conlog.Tail(spec.ConsoleLog, 0, 0); err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), ":/") {
		t.Errorf("control group inside: %q, %v", out, err)
	}
	if err := os.Remove(group); err != nil {
		t.Errorf("control group is not empty: %v", err)
	}
}
