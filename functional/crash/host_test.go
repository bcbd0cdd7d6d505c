//go:build functional

package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/keeper"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// patience bounds each wait; the time that is really taken is reported.
const patience = 60 * time.Second

const image = "busybox"

// host is one engine: its state, its service while it runs, its keeper.
type host struct {
	root, group, binary string
	api                 *api.Client
	log                 *os.File
	service             *exec.Cmd
	ended               chan struct{} // closed when service has
}

// newHost makes an empty engine and starts its service, with the image. At the
// end of the test whatever is left of it is removed.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{binary: os.Getenv("GANTRY_BINARY"), root: filepath.Join(t.TempDir(), "e")}
	if h.binary == "" {
		t.Fatal("GANTRY_BINARY names no program to test")
	}
	h.group = "gantry-crash-" + strings.ToLower(filepath.Base(filepath.Dir(filepath.Dir(h.root))))
	h.api = api.NewClient(filepath.Join(h.root, api.SocketName))
	var err error
	if h.log, err = os.OpenFile(filepath.Join(filepath.Dir(h.root), "service.log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.tearDown(t) })
	h.start(t, "")
	archive, err := os.Create(filepath.Join(t.TempDir(), "image.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	if _, err := archive.Write(enginetest.Busybox(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := h.api.Import(soon(t), api.Import{Ref: image}, archive); err != nil {
		t.Fatal(err)
	}
	return h
}

// start starts the service and returns when it answers.
func (h *host) start(t testing.TB, failpoints string) {
	t.Helper()
	h.service = exec.Command(h.binary, "engine", "--store-path", h.root, "--cgroup", h.group, "--guest-view", "full")
	h.service.Env = append(os.Environ(), "GANTRY_FAILPOINTS="+failpoints)
	h.service.Stderr = h.log
	if err := h.service.Start(); err != nil {
		t.Fatal(err)
	}
	ended, service := make(chan struct{}), h.service
	h.ended = ended
	go func() {
		_ = service.Wait()
		close(ended)
	}()
	until(t, patience, "the service answers", func() bool {
		select {
		case <-ended:
			t.Fatalf("the service has ended\n%s", tail(h.log))
		default:
		}
		ctx, cancel := within(t)
		defer cancel()
		info, err := h.api.Info(ctx)
		return err == nil && info.Pid == service.Process.Pid
	})
}

// end signals the service and returns when it has ended.
func (h *host) end(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := h.service.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	select {
	case <-h.ended:
	case <-time.After(patience):
		t.Fatalf("the service does not end\n%s", tail(h.log))
	}
	h.api.Close()
}

// restart ends the service as an operator would, and starts it again.
func (h *host) restart(t testing.TB, failpoints string) {
	t.Helper()
	h.end(t, syscall.SIGTERM)
	h.start(t, failpoints)
}

// hello asks the keeper who it is; it waits for one that is being restarted.
func (h *host) hello(t testing.TB) keeper.Hello {
	t.Helper()
	ctx, cancel := within(t)
	defer cancel()
	c, err := keeper.Dial(ctx, filepath.Join(h.root, "keeper.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hello, err := c.Hello(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return hello
}

// killKeeper kills the keeper and returns what waits for the next one.
func (h *host) killKeeper(t testing.TB) (await func()) {
	t.Helper()
	was := h.hello(t)
	sigkill(t, was.Pid)
	return func() {
		t.Helper()
		until(t, patience, "another keeper", func() bool { return h.hello(t).Started != was.Started })
	}
}

// killGuard kills the keeper's guard and returns what waits for the next one.
func (h *host) killGuard(t testing.TB) (await func()) {
	t.Helper()
	was := h.hello(t)
	sigkill(t, was.Guard)
	return func() {
		t.Helper()
		until(t, patience, "another guard", func() bool { return h.hello(t).Guard != was.Guard })
	}
}

func sigkill(t testing.TB, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("pid %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// close removes the image and ends service, keeper and guard. Nothing may be
// left then.
func (h *host) close(t *testing.T) {
	t.Helper()
	if err := h.api.RemoveImage(soon(t), image); err != nil {
		t.Error(err)
	}
	h.end(t, syscall.SIGTERM)
	if out, err := exec.Command(h.binary, "doctor", "--storage", "--deep", "--store-path", h.root, "--cgroup", h.group).CombinedOutput(); err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	if left := h.things(t); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	hello := h.hello(t)
	if hello.Processes != 0 {
		t.Errorf("the keeper knows %d processes", hello.Processes)
	}
	if err := syscall.Kill(hello.Pid, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	until(t, patience, "keeper and guard end", func() bool {
		return errors.Is(syscall.Kill(hello.Pid, 0), syscall.ESRCH) && errors.Is(syscall.Kill(hello.Guard, 0), syscall.ESRCH)
	})
	for _, pid := range mentioning(t, h.root, h.group) {
		t.Errorf("process left: %s", pid)
	}
}

// tearDown removes what a failed test has left, and the group's trees.
func (h *host) tearDown(t *testing.T) {
	if t.Failed() {
		t.Logf("the service's log ends:\n%s", tail(h.log))
		if f, err := os.Open(filepath.Join(h.root, "keeper.log")); err == nil {
			t.Logf("the keeper's log ends:\n%s", tail(f))
			f.Close()
		}
	}
	if h.service != nil {
		_ = h.service.Process.Kill() // it may have ended
		<-h.ended
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if c, err := keeper.Dial(ctx, filepath.Join(h.root, "keeper.sock")); err == nil {
		if hello, err := c.Hello(ctx); err == nil {
			_ = syscall.Kill(hello.Guard, syscall.SIGKILL)
			_ = syscall.Kill(hello.Pid, syscall.SIGKILL)
		}
	}
	h.removeGroups(t)
	h.removeMounts(t)
	h.log.Close()
}

// stacks ends a service that does not answer, and says what it was doing.
func (h *host) stacks() string {
	_ = h.service.Process.Signal(syscall.SIGQUIT)
	select {
	case <-h.ended:
	case <-time.After(patience):
		return "nor does it end"
	}
	data, err := os.ReadFile(h.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, bytes.LastIndex(data, []byte("SIGQUIT: quit"))):])
}

// tail is the end of a log, and what it warned of before.
func tail(f *os.File) string {
	data, err := os.ReadFile(f.Name())
	if err != nil {
		return err.Error()
	}
	end := max(0, len(data)-6000)
	var warned strings.Builder
	for line := range strings.Lines(string(data[:end])) {
		if !strings.Contains(line, `"level":"info"`) {
			warned.WriteString(line)
		}
	}
	before := warned.String()
	return before[max(0, len(before)-20000):] + string(data[end:])
}

// within is the context of a request, which has to be answered within patience.
func within(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(t.Context(), patience, fmt.Errorf("no answer within %s", patience))
}

// soon is within for a request that is made once in a test.
func soon(t testing.TB) context.Context {
	ctx, cancel := within(t)
	t.Cleanup(cancel)
	return ctx
}

// until polls.
func until(t testing.TB, limit time.Duration, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(limit)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still waiting: %s", limit, what)
		}
		<-tick.C
	}
}

func unavailable(err error) bool { return errors.Is(err, errdefs.ErrUnavailable) }

// sh is a start of a shell's script.
func sh(script string) api.Start {
	return api.Start{Entrypoint: []string{"/bin/sh", "-c", script}, ConsoleBytes: 512 << 20}
}

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(fmt.Errorf("unexpected: %w", err))
		}
		return v
	}
}
