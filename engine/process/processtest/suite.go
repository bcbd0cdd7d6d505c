// Package processtest proves implementations of process.Runner.
//
// Suite checks the contract and passes for every implementation, the fake of
// this package included. Isolation checks what a process can see and do; it
// passes for those that run real ones. Both need nothing but a Harness.
// Fixture makes a root file system of busybox and namespaces for real runners;
// it needs root and Debian's package busybox-static.
package processtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Harness is a runner under test and a way to make specs for it.
type Harness struct {
	Runner process.Runner
	// Spec returns a spec that runs args; the commands true, false, sh -c
	// "exit N", sleep N and echo exist. The console log is a new file.
	Spec func(t *testing.T, args ...string) process.Spec
}

// limit bounds each wait, so that a hanging runner fails instead.
const limit = 60 * time.Second

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// Suite checks the contract of process.Runner. newHarness is called once for
// each test and cleans up through t.
func Suite(t *testing.T, newHarness func(t *testing.T) Harness) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"ExitCodes", testExitCodes},
		{"MissingCommand", testMissingCommand},
		{"InvalidSpecs", testInvalidSpecs},
		{"DuplicateID", testDuplicateID},
		{"UnknownID", testUnknownID},
		{"Signal", testSignal},
		{"ManyWaiters", testManyWaiters},
		{"WaitCancelled", testWaitCancelled},
		{"StartCancelled", testStartCancelled},
		{"Forget", testForget},
		{"List", testList},
		{"ConcurrentStarts", testConcurrentStarts},
		{"Attach", testAttach},
		{"AttachHistory", testAttachHistory},
		{"Detach", testDetach},
		{"AttachErrors", testAttachErrors},
		{"Join", testJoin},
		{"BadAttributes", testBadAttributes},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, newHarness(t)) })
	}
}

// start starts and makes sure that the process is gone after the test.
func start(t *testing.T, h Harness, id string, spec process.Spec) process.Process {
	t.Helper()
	p, err := h.Runner.Start(bounded(t), id, spec)
	if err != nil {
		t.Fatalf("start %s: %v", id, err)
	}
	t.Cleanup(func() { Reap(t, h.Runner, id) })
	return p
}

// Reap kills a process, waits for its end and forgets it.
func Reap(t *testing.T, r process.Runner, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := r.Signal(ctx, id, 9); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("kill %s: %v", id, err)
	}
	if _, err := r.Wait(ctx, id); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("wait for %s: %v", id, err)
	}
	if err := r.Forget(ctx, id); err != nil {
		t.Errorf("forget %s: %v", id, err)
	}
}

func wait(t *testing.T, h Harness, id string) process.Exit {
	t.Helper()
	e, err := h.Runner.Wait(bounded(t), id)
	if err != nil {
		t.Fatalf("wait for %s: %v", id, err)
	}
	return e
}

func testExitCodes(t *testing.T, h Harness) {
	for _, tt := range []struct {
		args []string
		code int
	}{
		{[]string{"true"}, 0},
		{[]string{"false"}, 1},
		{[]string{"sh", "-c", "exit 7"}, 7},
		{[]string{"sh", "-c", "exit 255"}, 255},
	} {
		id := fmt.Sprint("exit-", tt.code)
		before := time.Now()
		start(t, h, id, h.Spec(t, tt.args...))
		e := wait(t, h, id)
		if e.Code != tt.code || e.Signal != 0 {
			t.Errorf("%v: %+v, want code %d", tt.args, e, tt.code)
		}
		if e.Time.Before(before.Add(-time.Second)) || e.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("%v: ended at %v, started at %v", tt.args, e.Time, before)
		}
		s, err := h.Runner.Status(bounded(t), id)
		if err != nil || s.Running || s.Exit.Code != tt.code {
			t.Errorf("status: %+v, %v", s, err)
		}
	}
}

func testMissingCommand(t *testing.T, h Harness) {
	for _, tt := range []struct{ command, public string }{
		{"no-such-command", `command "no-such-command" not found in the image`},
		{"/no/such", `command "/no/such" not found in the image`},
	} {
		_, err := h.Runner.Start(bounded(t), "missing", h.Spec(t, tt.command))
		if !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", tt.command, err)
		}
		if text := errdefs.PublicText(err, ""); text != tt.public {
			t.Errorf("%s: public text %q, want %q", tt.command, text, tt.public)
		}
		if _, err := h.Runner.Status(bounded(t), "missing"); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s: is known after a failed start: %v", tt.command, err)
		}
	}
	start(t, h, "missing", h.Spec(t, "true")) // the id is free
}

func testInvalidSpecs(t *testing.T, h Harness) {
	for name, change := range map[string]func(*process.Spec){
		"no command":         func(s *process.Spec) { s.Args = nil },
		"empty command":      func(s *process.Spec) { s.Args = []string{""} },
		"NUL in argument":    func(s *process.Spec) { s.Args = []string{"true", "a\x00b"} },
		"NUL in environment": func(s *process.Spec) { s.Env = []string{"A=\x00"} },
		"uid -1":             func(s *process.Spec) { s.UID = 1<<32 - 1 },
		"gid 2^31":           func(s *process.Spec) { s.GID = 1 << 31 },
		"group -1":           func(s *process.Spec) { s.Groups = []uint32{1<<32 - 1} },
		"capability":         func(s *process.Spec) { s.Capabilities = []string{"CAP_MADE_UP"} },
		"limit":              func(s *process.Spec) { s.Rlimits = []process.Rlimit{{Name: "RLIMIT_X"}} },
		"host sysctl":        func(s *process.Spec) { s.Sysctls = map[string]string{"kernel.core_pattern": "|/x"} },
		"sysctl escape":      func(s *process.Spec) { s.Sysctls = map[string]string{"net/../kernel/core_pattern": "x"} },
		"sysctl value":       func(s *process.Spec) { s.Sysctls = map[string]string{"net.ipv4.ip_forward": "1\n2"} },
		"file outside":       func(s *process.Spec) { s.Files = []process.File{{Path: "/a/../../b"}} },
		"file in proc":       func(s *process.Spec) { s.Files = []process.File{{Path: "/proc/x"}} },
		"relative cwd":       func(s *process.Spec) { s.Cwd = "tmp" },
		"no root":            func(s *process.Spec) { s.Rootfs = "" },
		"unknown namespace":  func(s *process.Spec) { s.Namespaces = append(s.Namespaces, process.Namespace{Kind: "x"}) },
	} {
		spec := h.Spec(t, "true")
		change(&spec)
		if _, err := h.Runner.Start(bounded(t), "invalid", spec); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
			Reap(t, h.Runner, "invalid")
		}
	}
}

func testDuplicateID(t *testing.T, h Harness) {
	first := start(t, h, "twice", h.Spec(t, "sleep", "1000"))
	if _, err := h.Runner.Start(bounded(t), "twice", h.Spec(t, "true")); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("while it runs: %v", err)
	}
	s, err := h.Runner.Status(bounded(t), "twice")
	if err != nil || !s.Running || s.Process != first {
		t.Errorf("the first one is disturbed: %+v, %v", s, err)
	}
	start(t, h, "ended", h.Spec(t, "true"))
	wait(t, h, "ended")
	if _, err := h.Runner.Start(bounded(t), "ended", h.Spec(t, "true")); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("after the end: %v", err)
	}
}

func testUnknownID(t *testing.T, h Harness) {
	ctx := bounded(t)
	if err := h.Runner.Signal(ctx, "nobody", 9); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("signal: %v", err)
	}
	if _, err := h.Runner.Status(ctx, "nobody"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("status: %v", err)
	}
	if _, err := h.Runner.Wait(ctx, "nobody"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("wait: %v", err)
	}
	if err := h.Runner.Forget(ctx, "nobody"); err != nil {
		t.Errorf("forget: %v", err)
	}
}

func testSignal(t *testing.T, h Harness) {
	start(t, h, "victim", h.Spec(t, "sleep", "1000"))
	if err := h.Runner.Signal(bounded(t), "victim", 0); err != nil {
		t.Errorf("signal 0: %v", err)
	}
	if err := h.Runner.Signal(bounded(t), "victim", 999); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("signal 999: %v", err)
	}
	if err := h.Runner.Signal(bounded(t), "victim", 9); err != nil {
		t.Fatal(err)
	}
	if e := wait(t, h, "victim"); e.Code != 137 || e.Signal != 9 {
		t.Errorf("exit %+v", e)
	}
	if err := h.Runner.Signal(bounded(t), "victim", 9); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("signal after the end: %v", err)
	}
}

func testManyWaiters(t *testing.T, h Harness) {
	start(t, h, "popular", h.Spec(t, "sleep", "1000"))
	ctx := bounded(t)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if e, err := h.Runner.Wait(ctx, "popular"); err != nil || e.Signal != 9 {
				t.Errorf("wait: %+v, %v", e, err)
			}
		})
	}
	if err := h.Runner.Signal(ctx, "popular", 9); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func testWaitCancelled(t *testing.T, h Harness) {
	start(t, h, "patient", h.Spec(t, "sleep", "1000"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Runner.Wait(ctx, "patient"); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	if s, err := h.Runner.Status(bounded(t), "patient"); err != nil || !s.Running {
		t.Errorf("a cancelled wait disturbed it: %+v, %v", s, err)
	}
}

func testStartCancelled(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Runner.Start(ctx, "cancelled", h.Spec(t, "sleep", "1000")); err == nil {
		// It was faster than the cancellation, which is allowed.
		Reap(t, h.Runner, "cancelled")
		return
	}
	if _, err := h.Runner.Status(bounded(t), "cancelled"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("something is left of a cancelled start: %v", err)
	}
}

func testForget(t *testing.T, h Harness) {
	start(t, h, "runs", h.Spec(t, "sleep", "1000"))
	if err := h.Runner.Forget(bounded(t), "runs"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("forget a running one: %v", err)
	}
	start(t, h, "done", h.Spec(t, "true"))
	wait(t, h, "done")
	for range 2 {
		if err := h.Runner.Forget(bounded(t), "done"); err != nil {
			t.Errorf("forget an ended one: %v", err)
		}
	}
	if _, err := h.Runner.Status(bounded(t), "done"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("status after forget: %v", err)
	}
	start(t, h, "done", h.Spec(t, "true")) // the id is free again
}

func testList(t *testing.T, h Harness) {
	p := start(t, h, "a", h.Spec(t, "sleep", "1000"))
	start(t, h, "b", h.Spec(t, "false"))
	wait(t, h, "b")
	list, err := h.Runner.List(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]process.Status{}
	for _, s := range list {
		got[s.ID] = s
	}
	if s := got["a"]; len(got) != 2 || !s.Running || s.Process != p || p.Pid <= 0 || p.StartTime == 0 || p.BootID == "" {
		t.Errorf("list %+v", got)
	}
	if s := got["b"]; s.Running || s.Exit.Code != 1 {
		t.Errorf("list %+v", got)
	}
}

func testConcurrentStarts(t *testing.T, h Harness) {
	const n = 8
	specs := make([]process.Spec, n)
	for i := range specs {
		specs[i] = h.Spec(t, "sh", "-c", fmt.Sprint("exit ", i))
	}
	ctx := bounded(t)
	var wg sync.WaitGroup
	for i, spec := range specs {
		wg.Go(func() {
			id := fmt.Sprint("c", i)
			if _, err := h.Runner.Start(ctx, id, spec); err != nil {
				t.Errorf("start %s: %v", id, err)
				return
			}
			if e, err := h.Runner.Wait(ctx, id); err != nil || e.Code != i {
				t.Errorf("%s: %+v, %v", id, e, err)
			}
			if err := h.Runner.Forget(ctx, id); err != nil {
				t.Errorf("forget %s: %v", id, err)
			}
		})
	}
	wg.Wait()
}
