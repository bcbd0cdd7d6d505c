package drivertest

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func testSnapshot(t *testing.T, e *env) {
	s, ok := e.d.(driver.Snapshotter)
	if !ok {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	take := func(what string, early bool, want driver.PowerState) {
		t.Helper()
		held := e.h.Residue(t, e.d)
		img, err := s.Snapshot(ctx, req.Credentials, req.UUID)
		if err != nil {
			t.Fatalf("Snapshot %s: %v", what, err)
		}
		e.wantState(t, req.UUID, want)
		if img.DiskFormat == "" || img.ContainerFormat == "" {
			t.Errorf("%s: formats %q, %q: want both", what, img.DiskFormat, img.ContainerFormat)
		}
		n := int64(1)
		if early {
			_, err = io.ReadFull(img.Content, make([]byte, 1))
		} else {
			n, err = io.Copy(io.Discard, img.Content)
		}
		if err != nil || n == 0 {
			t.Errorf("%s: content of %d bytes: %v", what, n, err)
		}
		if err := img.Content.Close(); err != nil && !early {
			t.Errorf("%s: Close: %v", what, err)
		}
		e.wantState(t, req.UUID, want)
		if got := e.h.Residue(t, e.d); !slices.Equal(got, held) {
			t.Errorf("%s: left on the host:\n  before %q\n  after  %q", what, held, got)
		}
	}
	take("of a running instance", false, driver.PowerRunning)
	take("closed early", true, driver.PowerRunning)
	if p, ok := e.d.(driver.Pauser); ok {
		if err := p.Pause(ctx, req.UUID); err != nil {
			t.Fatal(err)
		}
		take("of a paused instance", false, driver.PowerPaused)
		if err := p.Unpause(ctx, req.UUID); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	take("of a stopped instance", false, driver.PowerShutdown)
}

func testConsole(t *testing.T, e *env) {
	c, ok := e.d.(driver.ConsoleReader)
	if !ok {
		return
	}
	req, ctx := e.spawn(t), t.Context()
	var all []byte
	wait(t, "a line on the console", func() bool {
		out, err := c.ConsoleOutput(ctx, req.UUID, -1)
		if err != nil {
			t.Fatalf("ConsoleOutput: %v", err)
		}
		all = out
		return bytes.Contains(out, []byte("\n"))
	})
	if err := e.d.PowerOff(ctx, req.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	stopped, err := c.ConsoleOutput(ctx, req.UUID, -1)
	if err != nil || !bytes.HasPrefix(stopped, all) {
		t.Errorf("console of the stopped instance = %q, %v, want a beginning of %q", stopped, err, all)
	}
	last, err := c.ConsoleOutput(ctx, req.UUID, 1)
	if err != nil || !bytes.HasSuffix(stopped, last) || bytes.Count(bytes.TrimSuffix(last, []byte("\n")), []byte("\n")) != 0 {
		t.Errorf("last line = %q, %v", last, err)
	}
	if none, err := c.ConsoleOutput(ctx, req.UUID, 0); err != nil || len(none) != 0 {
		t.Errorf("no lines = %q, %v", none, err)
	}
	if err := e.d.PowerOn(ctx, driver.PowerOnRequest{UUID: req.UUID, VIFs: e.network(t)}); err != nil {
		t.Fatal(err)
	}
	later, err := c.ConsoleOutput(ctx, req.UUID, -1)
	if err != nil || !bytes.HasPrefix(later, stopped) {
		t.Errorf("a start loses output: %q, %v, want a beginning of %q", later, err, stopped)
	}
}

func testDiagnostics(t *testing.T, e *env) {
	r, ok := e.d.(driver.DiagnosticsReader)
	if !ok {
		return
	}
	req := e.spawn(t)
	got, err := r.Diagnostics(t.Context(), req.UUID)
	if err != nil {
		t.Fatalf("Diagnostics: %v", err)
	}
	if got.State != driver.PowerRunning || got.Uptime < 0 || got.CPUTime < 0 || got.MemoryUsed < 0 {
		t.Errorf("implausible: %+v", got)
	}
	if n := len(e.network(t)); len(got.NICs) != n {
		t.Errorf("%d NICs, want %d", len(got.NICs), n)
	}
}

func testExit(t *testing.T, e *env) {
	if e.h.Exit == nil {
		return
	}
	req := e.spawn(t)
	e.h.Exit(t, e.d, req.UUID)
	ended := func() bool {
		info, err := e.d.Info(t.Context(), req.UUID)
		if err != nil {
			t.Fatalf("Info: %v", err)
		}
		return info.State == driver.PowerShutdown || info.State == driver.PowerCrashed
	}
	if s, ok := e.d.(driver.EventSource); ok {
		ev := <-s.Events()
		for ev.UUID != req.UUID {
			ev = <-s.Events()
		}
		if ev.Reason == "" {
			t.Error("the event gives no reason")
		}
	}
	wait(t, "the guest to be seen as ended", ended)
	if err := e.d.PowerOn(t.Context(), driver.PowerOnRequest{UUID: req.UUID, VIFs: e.network(t)}); err != nil {
		t.Fatalf("PowerOn after the guest ended: %v", err)
	}
	e.wantState(t, req.UUID, driver.PowerRunning)
}

func testRestart(t *testing.T, e *env) {
	if e.h.Restart == nil || !e.d.Capabilities().Recover {
		return
	}
	running, stopped := e.spawn(t), e.spawn(t)
	if err := e.d.PowerOff(t.Context(), stopped.UUID, driver.PowerOffOptions{}); err != nil {
		t.Fatal(err)
	}
	e.d = e.h.Restart(t, e.d)
	r, ok := e.d.(driver.Recoverer)
	if !ok {
		t.Fatal("the driver of the next life is no Recoverer")
	}
	found, err := r.Recover(t.Context())
	if err != nil {
		t.Fatalf("Recover: %v", err)
	}
	want := []driver.InstanceUUID{running.UUID, stopped.UUID}
	slices.Sort(found)
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("recovered %v, want %v", found, want)
	}
	e.wantState(t, running.UUID, driver.PowerRunning)
	e.wantState(t, stopped.UUID, driver.PowerShutdown)
	for range 2 {
		if err := r.Plug(t.Context(), running.UUID, e.network(t)); err != nil {
			t.Errorf("Plug: %v", err)
		}
	}
	wantSpawned := e.d.Spawn(t.Context(), running)
	if wantSpawned == nil {
		t.Error("a recovered instance was spawned again")
	}
}

func testImageCache(t *testing.T, e *env) {
	c, ok := e.d.(driver.ImageCacher)
	if !ok {
		return
	}
	ctx := t.Context()
	_, err := c.CacheImage(ctx, driver.Credentials{}, string(NewUUID()))
	wantClass(t, "CacheImage of nothing", err, errdefs.ErrNotFound)
	req := e.spawn(t)
	fetch := func(what string, want bool) {
		t.Helper()
		if fetched, err := c.CacheImage(ctx, req.Credentials, req.Image.ID); err != nil || fetched != want {
			t.Errorf("CacheImage %s: fetched %t, %v", what, fetched, err)
		}
	}
	fetch("of an instance", false)
	prune := func(what string, limits driver.CacheLimits, want int) {
		t.Helper()
		if got, err := c.PruneImages(ctx, limits); err != nil || got.Images != want {
			t.Errorf("PruneImages %s: %+v, %v", what, got, err)
		}
	}
	prune("of an instance", driver.CacheLimits{MaxBytes: 1}, 0)
	if err := e.d.Destroy(ctx, req.UUID); err != nil {
		t.Fatal(err)
	}
	prune("that was used lately", driver.CacheLimits{KeepFor: time.Hour}, 0)
	prune("beyond the size", driver.CacheLimits{KeepFor: time.Hour, MaxBytes: 1}, 1)
	fetch("that is gone", true)
	fetch("that is here", false)
	prune("unused", driver.CacheLimits{}, 1)
	prune("when there is none", driver.CacheLimits{}, 0)
}
