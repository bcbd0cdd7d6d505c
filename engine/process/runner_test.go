package process_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/process/processtest"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

func newLocal(t testing.TB) *process.Local {
	t.Helper()
	l, err := process.New(process.Options{Log: zerolog.New(zerolog.NewTestWriter(t))})
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
	files, mounts := count(t, "/proc/self/fd"), mountCount(t)
	for i := range 100 {
		if i%10 == 9 {
			cycle("no-such")
		}
		cycle("true")
	}
	if now := count(t, "/proc/self/fd"); now > files {
		t.Errorf("%d open files, %d before", now, files)
	}
	if now := mountCount(t); now != mounts {
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

func mountCount(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(data, []byte("\n"))
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
// namespaces are made once; a control group is not joined.
func BenchmarkStartExit(b *testing.B) {
	f := processtest.NewFixture(b)
	l := newLocal(b)
	spec := f.Spec(b, "/bin/true")
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
