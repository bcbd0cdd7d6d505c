package keeper_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/engine/keeper"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/process/processtest"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// patience bounds each wait of these tests.
const patience = 60 * time.Second

// until polls.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still waiting: %s", what)
		}
	}
}

func greet(t testing.TB, c *keeper.Client) keeper.Hello {
	t.Helper()
	h, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// killKeeper kills the keeper and waits for the next one.
func killKeeper(t testing.TB, c *keeper.Client) {
	t.Helper()
	h := greet(t, c)
	kill(t, h.Pid)
	until(t, "another keeper", func() bool { return greet(t, c).Started != h.Started })
}

// killGuard kills the guard and waits for the next one.
func killGuard(t testing.TB, c *keeper.Client) {
	t.Helper()
	h := greet(t, c)
	kill(t, h.Guard)
	until(t, "another guard", func() bool { return greet(t, c).Guard != h.Guard })
}

// replace replaces the keeper by another build.
func replace(t testing.TB, c *keeper.Client) {
	t.Helper()
	h := greet(t, c)
	build := h.Build + "x"
	command := append(append([]string{}, h.Command[:4]...), build)
	if err := c.Replace(t.Context(), command, nil); err != nil {
		t.Fatal(err)
	}
	if now := greet(t, c); now.Build != build || now.Guard != h.Guard || now.Pid != h.Pid {
		t.Errorf("%+v, was %+v", now, h)
	}
}

// Whatever dies: what a process says is in its log once and in order, it can
// be talked to, and a wait that began before returns how it ended.
func TestKills(t *testing.T) {
	for name, steps := range map[string][]func(testing.TB, *keeper.Client){
		"keeper":          {killKeeper},
		"guard":           {killGuard},
		"keeper, guard":   {killKeeper, killGuard},
		"guard, keeper":   {killGuard, killKeeper},
		"keeper, keeper":  {killKeeper, killKeeper},
		"guard, guard":    {killGuard, killGuard},
		"replaced":        {replace},
		"replaced, all":   {replace, killKeeper, killGuard, replace},
		"all, twice over": {killKeeper, killGuard, replace, killGuard, killKeeper, replace},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, options(t, 0))
			f := processtest.NewFixture(t)
			talker := startTalker(t, c, f)
			silent := f.Spec(t, "sleep", "1000")
			if _, err := c.Start(t.Context(), "silent", silent); err != nil {
				t.Fatal(err)
			}
			wait := waitFor(t, c, "silent")
			ended := f.Spec(t, "sh", "-c", "exit 3")
			if _, err := c.Start(t.Context(), "ended", ended); err != nil {
				t.Fatal(err)
			}
			if e := waitFor(t, c, "ended")(); e.Code != 3 {
				t.Errorf("%+v", e)
			}
			for _, step := range steps {
				talker.advance(t)
				step(t, c)
			}
			talker.finish(t)
			if err := c.Signal(t.Context(), "silent", 9); err != nil {
				t.Error(err)
			}
			if e := wait(); e.Signal != 9 || e.Code != 137 {
				t.Errorf("%+v", e)
			}
			if s, err := c.Status(t.Context(), "ended"); err != nil || s.Running || s.Exit.Code != 3 {
				t.Errorf("%+v, %v", s, err)
			}
			for _, id := range []string{"silent", "ended", "talker"} {
				if err := c.Forget(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
			killKeeper(t, c)
			if list, err := c.List(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("%v, %v", list, err)
			}
		})
	}
}

// waitFor begins to wait, and returns what takes the result.
func waitFor(t testing.TB, c *keeper.Client, id string) func() process.Exit {
	t.Helper()
	type result struct {
		exit process.Exit
		err  error
	}
	got := make(chan result, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	go func() {
		e, err := c.Wait(ctx, id)
		got <- result{e, err}
	}()
	return func() process.Exit {
		t.Helper()
		r := <-got
		if r.err != nil {
			t.Errorf("wait for %s: %v", id, r.err)
		}
		return r.exit
	}
}

// A talker is a process that says numbered lines without a pause, until it is
// told to end, by its terminal.
type talker struct {
	c    *keeper.Client
	log  string
	stop string
	wait func() process.Exit
	seen int64
}

func startTalker(t testing.TB, c *keeper.Client, f processtest.Fixture) *talker {
	t.Helper()
	stop := filepath.Join(f.Rootfs, "stop")
	script := `stty -echo; i=0; while ! test -e /stop; do i=$((i+1)); echo "line $i"; done; read x; echo "heard $x"; exit 5`
	spec := f.Spec(t, "sh", "-c", script)
	spec.ConsoleLimit = 64 << 20
	if _, err := c.Start(t.Context(), "talker", spec); err != nil {
		t.Fatal(err)
	}
	return &talker{c: c, log: spec.ConsoleLog, stop: stop, wait: waitFor(t, c, "talker")}
}

// advance waits until it has said more.
func (k *talker) advance(t testing.TB) {
	t.Helper()
	until(t, "console output", func() bool {
		info, err := os.Stat(k.log)
		return err == nil && info.Size() > k.seen+20_000
	})
	k.seen = must(os.Stat(k.log)).Size()
}

// finish lets it end and compares all that it has said.
func (k *talker) finish(t testing.TB) {
	t.Helper()
	k.advance(t)
	con, err := k.c.Attach(t.Context(), "talker", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = con.Close() }()
	if err := os.WriteFile(k.stop, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(con, "over\n"); err != nil {
		t.Error(err)
	}
	out, err := io.ReadAll(con)
	if err != nil || !bytes.HasSuffix(out, []byte("heard over\r\n")) {
		t.Errorf("attached: %d bytes, %v", len(out), err)
	}
	if e := k.wait(); e.Code != 5 || e.Signal != 0 {
		t.Errorf("%+v", e)
	}
	checkLines(t, k.log, "heard over\n")
}

func checkLines(t testing.TB, path, last string) {
	t.Helper()
	data, err := conlog.Tail(path, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(strings.TrimSuffix(string(data), last)) {
		if n++; line != fmt.Sprintf("line %d\n", n) {
			t.Errorf("line %d of the console is %q", n, line)
			return
		}
	}
	if n == 0 || !strings.HasSuffix(string(data), last) {
		t.Errorf("%d lines, the end is missing", n)
	}
}

// 30 kills while processes come and go.
func TestKillsUnderChurn(t *testing.T) {
	c := start(t, options(t, 0))
	f := processtest.NewFixture(t)
	talker := startTalker(t, c, f)
	const workers = 3
	specs := make([]process.Spec, workers)
	for i := range specs {
		specs[i] = f.Spec(t, "sh", "-c", fmt.Sprint("echo out; exit ", i+1))
	}
	done := make(chan struct{})
	cycles := make([]int, workers)
	var wg sync.WaitGroup
	end := sync.OnceFunc(func() {
		close(done)
		wg.Wait()
	})
	defer end()
	for i, spec := range specs {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				cycles[i] += cycle(t, c, fmt.Sprintf("w%d-%d", i, n), spec, i+1)
			}
		})
	}
	for i := range 30 {
		if i%3 == 2 {
			killGuard(t, c)
		} else {
			killKeeper(t, c)
		}
	}
	end()
	talker.finish(t)
	if err := c.Forget(t.Context(), "talker"); err != nil {
		t.Error(err)
	}
	if list, err := c.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	t.Logf("whole cycles: %v", cycles)
}

// cycle is one life of a process; a start may be cut off by a kill.
func cycle(t *testing.T, c *keeper.Client, id string, spec process.Spec, code int) int {
	_, err := c.Start(t.Context(), id, spec)
	if errors.Is(err, errdefs.ErrUnavailable) {
		return 0
	}
	if err != nil {
		t.Errorf("start %s: %v", id, err)
		return 0
	}
	if e, err := c.Wait(t.Context(), id); err != nil || e.Code != code || e.Signal != 0 {
		t.Errorf("%s: %+v, %v", id, e, err)
	}
	if err := c.Forget(t.Context(), id); err != nil {
		t.Errorf("forget %s: %v", id, err)
	}
	return 1
}

// A program that does not come up is not the keeper's end.
func TestReplaceByABrokenProgram(t *testing.T) {
	c := start(t, options(t, 0))
	f := processtest.NewFixture(t)
	if _, err := c.Start(t.Context(), "x", f.Spec(t, "sleep", "1000")); err != nil {
		t.Fatal(err)
	}
	before := greet(t, c)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		nil, {"relative"}, {"/no/such/file"}, {"/"}, {plain}, {"/bin/false"}, {before.Command[0], strings.Repeat("x", 70<<10)},
	} {
		if err := c.Replace(t.Context(), command, nil); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%.40q: %v", command, err)
		}
	}
	after := greet(t, c)
	if after.Command[0] != before.Command[0] || after.Processes != 1 {
		t.Errorf("%+v, was %+v", after, before)
	}
	processtest.Reap(t, c, "x")
}

// Ensure brings its own build.
func TestEnsureReplacesAnotherBuild(t *testing.T) {
	o := options(t, 0)
	c := start(t, o)
	f := processtest.NewFixture(t)
	if _, err := c.Start(t.Context(), "x", f.Spec(t, "sleep", "1000")); err != nil {
		t.Fatal(err)
	}
	o.Build = "2.0"
	o.Command = append(o.Command[:4:4], o.Build)
	for range 2 { // the second time nothing is to be done
		again, err := keeper.Ensure(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if h := greet(t, again); h.Build != "2.0" || h.Processes != 1 {
			t.Errorf("%+v", h)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	processtest.Reap(t, c, "x")
}

// Nothing is left of an idle keeper, its guard included.
func TestIdleKeeperTakesItsGuardAlong(t *testing.T) {
	o := options(t, 20*time.Millisecond)
	c := start(t, o)
	h := greet(t, c)
	guard, err := linux.PidfdOpen(h.Guard)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = guard.Close() }()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := linux.AwaitPidfd(guard); err != nil {
		t.Error(err)
	}
	until(t, "end of the keeper", func() bool { return errors.Is(unix.Kill(h.Pid, 0), unix.ESRCH) })
}

// A keeper that was restarted is kept by the clients of the one before.
func TestAttachedClientKeepsTheNextKeeper(t *testing.T) {
	const idle = 300 * time.Millisecond
	c := start(t, options(t, idle))
	killKeeper(t, c)
	h := greet(t, c)
	<-time.After(3 * idle)
	if now, err := c.Hello(t.Context()); err != nil || now.Pid != h.Pid {
		t.Errorf("%+v, %v, was %+v", now, err, h)
	}
}
