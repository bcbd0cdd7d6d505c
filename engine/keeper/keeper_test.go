package keeper_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/engine/keeper"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/process/processtest"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be a keeper ("keeper SOCKET IDLE [BUILD]") and a
// client that starts one process and waits for it ("client SOCKET ID SPEC").
func TestMain(m *testing.M) {
	if len(os.Args) >= 4 && os.Args[1] == "keeper" {
		idle, err := time.ParseDuration(os.Args[3])
		if err == nil {
			err = keeper.Serve(context.Background(), keeper.ServeOptions{
				Socket: os.Args[2], Log: zerolog.New(os.Stderr), IdleExit: idle, OwnsProcess: true,
				Build: strings.Join(os.Args[4:], ""),
			})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 5 && os.Args[1] == "client" {
		os.Exit(client(os.Args[2], os.Args[3], os.Args[4]))
	}
	os.Exit(m.Run())
}

func client(socket, id, text string) int {
	var spec process.Spec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return 2
	}
	ctx := context.Background()
	c, err := keeper.Dial(ctx, socket)
	if err != nil {
		return 3
	}
	if _, err := c.Start(ctx, id, spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 4
	}
	fmt.Println("started")
	_, _ = c.Wait(ctx, id)
	return 0
}

func options(t testing.TB, idle time.Duration) keeper.Options {
	t.Helper()
	dir, err := os.MkdirTemp("", "k") // short: socket paths are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	return keeper.Options{Socket: socket, Command: []string{self, "keeper", socket, idle.String()}, LogFile: filepath.Join(dir, "log")}
}

// start ensures a keeper that is gone after the test.
func start(t testing.TB, o keeper.Options) *keeper.Client {
	t.Helper()
	c, err := keeper.Ensure(t.Context(), o)
	if err != nil {
		log, _ := os.ReadFile(o.LogFile)
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() { stop(t, c) })
	return c
}

// stop kills a keeper with its guard, at once, and waits until both are gone.
// Absent is fine.
func stop(t testing.TB, c *keeper.Client) {
	t.Helper()
	hello, err := c.Hello(context.Background())
	if errors.Is(err, errdefs.ErrUnavailable) {
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	// A keeper that is stopped does not make a guard.
	signal(t, hello.Pid, unix.SIGSTOP)
	if hello.Guard != 0 {
		kill(t, hello.Guard)
	}
	kill(t, hello.Pid)
}

func signal(t testing.TB, pid int, sig unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		t.Errorf("kill %d: %v", pid, err)
	}
}

// kill ends a process and waits for that.
func kill(t testing.TB, pid int) {
	t.Helper()
	pidfd, err := linux.PidfdOpen(pid)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = pidfd.Close() }()
	if err := linux.PidfdSignal(pidfd, int(unix.SIGKILL)); err != nil {
		t.Error(err)
	}
	if err := linux.AwaitPidfd(pidfd); err != nil {
		t.Error(err)
	}
}

func TestClient(t *testing.T) {
	processtest.Suite(t, func(t *testing.T) processtest.Harness {
		f := processtest.NewFixture(t)
		return processtest.Harness{
			Runner: start(t, options(t, 0)),
			Spec:   func(t *testing.T, args ...string) process.Spec { return f.Spec(t, args...) },
		}
	})
}

func TestClientIsolation(t *testing.T) {
	processtest.Isolation(t, func(t *testing.T) process.Runner { return start(t, options(t, 0)) })
}

func TestClientPlaces(t *testing.T) {
	processtest.Places(t, func(t *testing.T) process.Runner { return start(t, options(t, 0)) })
}

// A client that is killed takes nothing with it: the process runs on, another
// client gets its output, all of it, and its exit.
func TestClientKilled(t *testing.T) {
	f := processtest.NewFixture(t)
	o := options(t, 0)
	c := start(t, o)
	gate := filepath.Join(f.Rootfs, "gate")
	script := "echo before; while ! test -e /gate; do busybox usleep 2000; done; seq 1000; exit 5"
	spec := f.Spec(t, "sh", "-c", script)
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(o.Command[0], "client", o.Socket, "vm", string(text))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 8)
	if _, err := out.Read(line); err != nil || string(line) != "started\n" {
		t.Fatalf("%q, %v, %s", line, err, stderr.String())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	if s, err := c.Status(t.Context(), "vm"); err != nil || !s.Running {
		t.Fatalf("after the kill: %+v, %v", s, err)
	}
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if e, err := c.Wait(t.Context(), "vm"); err != nil || e.Code != 5 {
		t.Errorf("%+v, %v", e, err)
	}
	log, err := conlog.Tail(spec.ConsoleLog, 0, 0)
	if err != nil || !strings.HasPrefix(string(log), "before\n1\n2\n") || !strings.HasSuffix(string(log), "\n999\n1000\n") {
		t.Errorf("console of %d bytes, %v", len(log), err)
	}
}

func TestTwoClientsSeeTheSame(t *testing.T) {
	f := processtest.NewFixture(t)
	o := options(t, 0)
	a := start(t, o)
	b, err := keeper.Ensure(t.Context(), o) // finds the first keeper
	if err != nil {
		t.Fatal(err)
	}
	ha, errA := a.Hello(t.Context())
	hb, errB := b.Hello(t.Context())
	if errA != nil || errB != nil || ha.Pid != hb.Pid || ha.Version != keeper.Version {
		t.Errorf("%+v %v, %+v %v", ha, errA, hb, errB)
	}
	if _, err := a.Start(t.Context(), "x", f.Spec(t, "sleep", "1000")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Start(t.Context(), "x", f.Spec(t, "true")); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("%v", err)
	}
	processtest.Reap(t, b, "x")
	if list, err := a.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestEnsureAtOnceStartsOne(t *testing.T) {
	o := options(t, 0)
	type result struct {
		c   *keeper.Client
		err error
	}
	results := make(chan result, 4)
	for range cap(results) {
		go func() {
			c, err := keeper.Ensure(t.Context(), o)
			results <- result{c, err}
		}()
	}
	pids := map[int]bool{}
	for range cap(results) {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
			continue
		}
		hello, err := r.c.Hello(t.Context())
		if err != nil {
			t.Error(err)
		}
		pids[hello.Pid] = true
		t.Cleanup(func() { stop(t, r.c) })
	}
	if len(pids) != 1 {
		t.Errorf("keepers: %v", pids)
	}
}

func TestEnsureReportsABadCommand(t *testing.T) {
	o := options(t, 0)
	o.Command = []string{"/no/such/program"}
	if _, err := keeper.Ensure(t.Context(), o); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("%v", err)
	}
	o.Command = []string{"/bin/false"}
	if _, err := keeper.Ensure(t.Context(), o); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestWithoutKeeper(t *testing.T) {
	o := options(t, 0)
	if _, err := keeper.Dial(t.Context(), o.Socket); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("dial: %v", err)
	}
	f := processtest.NewFixture(t)
	c := start(t, o)
	if _, err := c.Start(t.Context(), "x", f.Spec(t, "sleep", "1000")); err != nil {
		t.Fatal(err)
	}
	s, err := c.Status(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := c.Wait(t.Context(), "x")
		waited <- err
	}()
	stop(t, c)
	if err := <-waited; !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("wait: %v", err)
	}
	if _, err := c.List(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("list: %v", err)
	}
	// The process outlives even the keeper.
	if err := unix.Kill(s.Process.Pid, unix.SIGKILL); err != nil {
		t.Errorf("the process is gone: %v", err)
	}
	// The next start brings a new keeper, which begins empty.
	if _, err := c.Start(t.Context(), "y", f.Spec(t, "true")); err != nil {
		t.Fatal(err)
	}
	processtest.Reap(t, c, "y")
	if list, err := c.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// serve runs a keeper in this process and returns a function that waits for
// its end.
func serve(t *testing.T, o keeper.ServeOptions) func() error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- keeper.Serve(ctx, o) }()
	t.Cleanup(cancel)
	for {
		_, err := keeper.Dial(t.Context(), o.Socket)
		if err == nil {
			return func() error { return <-done }
		}
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestServeIdleExit(t *testing.T) {
	o := options(t, 0)
	wait := serve(t, keeper.ServeOptions{Socket: o.Socket, Log: zerolog.Nop(), IdleExit: 20 * time.Millisecond})
	if err := wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(o.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket is left: %v", err)
	}
}

// A client from Ensure keeps an idle keeper alive until it is closed.
func TestAttachedClientKeepsKeeper(t *testing.T) {
	const idle = 300 * time.Millisecond
	o := options(t, idle)
	c := start(t, o)
	hello, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := linux.PidfdOpen(hello.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pidfd.Close() }()
	<-time.After(3 * idle)
	if now, err := c.Hello(t.Context()); err != nil || now.Pid != hello.Pid {
		t.Errorf("%+v, %v", now, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := linux.AwaitPidfd(pidfd); err != nil {
		t.Error(err)
	}
	// It is back when it is needed.
	if _, err := c.List(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("list: %v", err)
	}
	f := processtest.NewFixture(t)
	if _, err := c.Start(t.Context(), "x", f.Spec(t, "true")); err != nil {
		t.Fatal(err)
	}
	processtest.Reap(t, c, "x")
}

func TestServeOnce(t *testing.T) {
	o := options(t, 0)
	serve(t, keeper.ServeOptions{Socket: o.Socket, Log: zerolog.Nop()})
	if err := keeper.Serve(t.Context(), keeper.ServeOptions{Socket: o.Socket, Log: zerolog.Nop()}); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("second keeper: %v", err)
	}
	if info, err := os.Stat(filepath.Dir(o.Socket)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.Chmod(filepath.Dir(o.Socket), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := keeper.Serve(t.Context(), keeper.ServeOptions{Socket: o.Socket, Log: zerolog.Nop()}); !errors.Is(err, errdefs.ErrForbidden) {
		t.Errorf("open directory: %v", err)
	}
}

// The keeper is small and holds nothing for ended processes.
func TestKeeperLeaksNothing(t *testing.T) {
	f := processtest.NewFixture(t)
	c := start(t, options(t, 0))
	hello, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cycle := func() {
		t.Helper()
		if _, err := c.Start(t.Context(), "x", f.Spec(t, "true")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Wait(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if err := c.Forget(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
	}
	cycle()
	// The connection of the last request is closed after its answer.
	files := func() int { return len(must(os.ReadDir(fmt.Sprintf("/proc/%d/fd", hello.Pid)))) }
	before := files()
	for range 50 {
		cycle()
	}
	deadline := time.After(2 * time.Minute)
	for now := files(); now > before; now = files() {
		select {
		case <-deadline:
			t.Fatalf("%d open files, %d before", now, before)
		case <-time.After(time.Millisecond):
		}
	}
	status := string(must(os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", hello.Pid))))
	for line := range strings.Lines(status) {
		if strings.HasPrefix(line, "Pss:") || strings.HasPrefix(line, "Private_Dirty:") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// BenchmarkStartExit is engine/process's, through the keeper.
func BenchmarkStartExit(b *testing.B) {
	f := processtest.NewFixture(b)
	c := start(b, options(b, 0))
	spec := f.Spec(b, "/bin/true")
	for b.Loop() {
		if _, err := c.Start(b.Context(), "x", spec); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Wait(b.Context(), "x"); err != nil {
			b.Fatal(err)
		}
		if err := c.Forget(b.Context(), "x"); err != nil {
			b.Fatal(err)
		}
	}
}
