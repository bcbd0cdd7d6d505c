package api_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// fixture is a client of a server over a backend that has the image busybox.
type fixture struct {
	*api.Client
	socket  string
	backend api.Backend
	real    bool
}

func serve(t testing.TB, b api.Backend, change func(*api.Options)) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("", "api") // a socket's path must be short
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	f := &fixture{socket: filepath.Join(dir, api.SocketName), backend: b}
	l, err := api.Listen(f.socket)
	check(t, err)
	o := api.Options{Backend: b, Version: "test", Log: zerolog.New(zerolog.NewTestWriter(t))}
	if change != nil {
		change(&o)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- api.New(ctx, o).Serve(ctx, l) }()
	f.Client = api.NewClient(f.socket)
	t.Cleanup(func() {
		f.Close()
		stop()
		check(t, <-served)
	})
	return f
}

// both runs a test over the fake and over an engine on the real kernel.
func both(t *testing.T, change func(*api.Options), test func(t *testing.T, f *fixture)) {
	t.Helper()
	t.Run("fake", func(t *testing.T) {
		f := serve(t, newFake(t.TempDir()), change)
		f.importBusybox(t)
		test(t, f)
	})
	t.Run("engine", func(t *testing.T) {
		h := enginetest.NewHost(t)
		e, done := h.Engine(t)
		t.Cleanup(done)
		f := serve(t, e, change)
		f.real = true
		f.importBusybox(t)
		test(t, f)
	})
}

func (f *fixture) importBusybox(t *testing.T) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "busybox.tar")
	check(t, os.WriteFile(name, enginetest.Busybox(t), 0o600))
	archive, err := os.Open(name)
	check(t, err)
	defer archive.Close()
	img, err := f.Import(t.Context(), api.Import{Ref: "busybox", ContainerFormat: "bare", DiskFormat: "raw"}, archive)
	if err != nil || img.Ref != "busybox" || !img.RootFS || img.Size <= 0 {
		t.Fatalf("import: %+v %v", img, err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, what string, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("%s: %v, want %v", what, err, class)
	}
}

const obeys = "trap 'exit 7' TERM; echo ready; while :; do sleep 1000 & wait $!; done"

func (f *fixture) run(t *testing.T, id string) {
	t.Helper()
	_, err := f.Create(t.Context(), api.Create{ID: id, Image: "busybox", Start: &api.Start{Args: []string{"/bin/sh", "-c", obeys}}})
	check(t, err)
	r, err := f.Logs(t.Context(), id, api.LogsRequest{Follow: true})
	check(t, err)
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
}

func TestLife(t *testing.T) {
	both(t, nil, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		pids, memory := int64(77), int64(64<<20)
		c, err := f.Create(ctx, api.Create{
			ID: "one", Image: "busybox", Labels: map[string]string{"a": "b"}, Limits: api.Limits{Pids: &pids, MemoryBytes: &memory},
		})
		if err != nil || c.Status != engine.StatusCreated || c.Labels["a"] != "b" || *c.Limits.Pids != 77 || c.Exit != nil {
			t.Fatalf("created %+v %v", c, err)
		}
		if c, err = f.Start(ctx, "one", api.Start{Args: []string{"/bin/sh", "-c", obeys}}, api.Change{}); err != nil || c.Status != engine.StatusRunning || c.Pid == 0 {
			t.Fatalf("started %+v %v", c, err)
		}
		f.run(t, "two")
		dir := api.Restore{Dir: t.TempDir()}
		want(t, "restore of a running one", second(f.Restore(ctx, "two", dir, api.Change{})), errdefs.ErrConflict)
		list, err := f.Containers(ctx)
		if err != nil || len(list) != 2 || list[0].ID != "one" || list[1].ID != "two" {
			t.Errorf("list %+v %v", list, err)
		}
		if info, err := f.Info(ctx); err != nil || info.API != api.Version || info.Program != "test" || info.Containers["running"] != 2 {
			t.Errorf("info %+v %v", info, err)
		}
		check(t, f.Pause(ctx, "two", api.Change{}))
		if c, err := f.Container(ctx, "two"); err != nil || c.Status != engine.StatusPaused {
			t.Errorf("paused %+v %v", c, err)
		}
		check(t, f.Resume(ctx, "two", api.Change{}))
		if top, err := f.Top(ctx, "two"); err != nil || len(top) == 0 || top[0].Pid != 1 {
			t.Errorf("top %+v %v", top, err)
		}
		if use, err := f.Stats(ctx, "two"); err != nil || use.Pids < 1 || use.Time.IsZero() {
			t.Errorf("stats %+v %v", use, err)
		}
		if now, err := f.Update(ctx, "two", api.Limits{Pids: &pids}, api.Change{}); err != nil || *now.Pids != 77 {
			t.Errorf("limits %+v %v", now, err)
		}
		result := make(chan api.Exit, 1)
		go func() {
			exit, err := f.Wait(ctx, "two")
			if err != nil {
				t.Error(err)
			}
			result <- exit
		}()
		c, err = f.Stop(ctx, "two", api.Stop{Timeout: 60}, api.Change{})
		if err != nil || c.Status != engine.StatusStopped || c.Exit == nil || c.Exit.Code != 7 || !c.Exit.Known {
			t.Errorf("stopped %+v %v", c, err)
		}
		if exit := <-result; exit.Code != 7 {
			t.Errorf("waited %+v", exit)
		}
		want(t, "image in use", f.RemoveImage(ctx, "busybox"), errdefs.ErrConflict)
		want(t, "rm of a running one", f.Remove(ctx, "one", false, api.Change{}), errdefs.ErrConflict)
		check(t, f.Kill(ctx, "one", 9, api.Change{}))
		check(t, f.Remove(ctx, "one", false, api.Change{}))
		check(t, f.Remove(ctx, "two", true, api.Change{}))
		want(t, "double rm", f.Remove(ctx, "two", true, api.Change{}), errdefs.ErrNotFound)
		check(t, f.RemoveImage(ctx, "busybox"))
		if images, err := f.Images(ctx); err != nil || len(images) != 0 {
			t.Errorf("images %+v %v", images, err)
		}
		want(t, "image removed twice", f.RemoveImage(ctx, "busybox"), errdefs.ErrNotFound)
	})
}

func TestErrorsKeepTheirClass(t *testing.T) {
	both(t, nil, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		for what, err := range map[string]error{
			"state": second(f.Container(ctx, "absent")), "start": second(f.Start(ctx, "absent", api.Start{}, api.Change{})),
			"stop": second(f.Stop(ctx, "absent", api.Stop{}, api.Change{})), "kill": f.Kill(ctx, "absent", 9, api.Change{}),
			"rm": f.Remove(ctx, "absent", false, api.Change{}), "pause": f.Pause(ctx, "absent", api.Change{}),
			"checkpoint": f.Checkpoint(ctx, "absent", api.Checkpoint{Dir: "/x"}, api.Change{}),
			"restore":    second(f.Restore(ctx, "absent", api.Restore{Dir: "/x"}, api.Change{})),
			"wait":       second(f.Wait(ctx, "absent")), "logs": second(f.Logs(ctx, "absent", api.LogsRequest{})),
			"top": second(f.Top(ctx, "absent")), "stats": second(f.Stats(ctx, "absent")),
			"cp in":  second(f.CopyIn(ctx, "absent", "/", bytes.NewReader(nil))),
			"commit": second(f.Commit(ctx, "absent")),
			"cp out": second(f.CopyOut(ctx, "absent", "/")), "sessions": second(f.Sessions(ctx, "absent")),
			"exec":  second(f.Exec(ctx, "absent", api.Exec{Args: []string{"true"}}, stdio())),
			"image": second(f.Create(ctx, api.Create{ID: "x", Image: "absent"})),
			"watch": f.WatchStats(ctx, "absent", time.Second, func(api.Stats) error { return nil }),
		} {
			want(t, what, err, errdefs.ErrNotFound)
		}
		want(t, "id with a slash", second(f.Container(ctx, "../etc")), errdefs.ErrInvalid)
		want(t, "id with a slash to make", second(f.Create(ctx, api.Create{ID: "a/b", Image: "busybox"})), errdefs.ErrInvalid)
		want(t, "long id", second(f.Container(ctx, strings.Repeat("a", 65))), errdefs.ErrInvalid)
		_, err := f.Create(ctx, api.Create{ID: "c", Image: "busybox", Start: &api.Start{Args: []string{"/bin/absent"}}})
		want(t, "absent command", err, errdefs.ErrInvalid)
		if errdefs.PublicText(err, "") == "" {
			t.Errorf("the text for tenants is lost: %v", err)
		}
		want(t, "of a start that failed nothing is left", second(f.Container(ctx, "c")), errdefs.ErrNotFound)
		f.run(t, "c")
		want(t, "two creates of one id", second(f.Create(ctx, api.Create{ID: "c", Image: "busybox"})), errdefs.ErrAlreadyExists)
		want(t, "two starts", second(f.Start(ctx, "c", api.Start{}, api.Change{})), errdefs.ErrConflict)
		want(t, "no signal", f.Kill(ctx, "c", 65, api.Change{}), errdefs.ErrInvalid)
		want(t, "endless stop", second(f.Stop(ctx, "c", api.Stop{Timeout: 1e9}, api.Change{})), errdefs.ErrInvalid)
		pids := int64(-5)
		want(t, "negative limit", second(f.Update(ctx, "c", api.Limits{Pids: &pids}, api.Change{})), errdefs.ErrInvalid)
		want(t, "session", f.KillSession(ctx, "c", "absent", 9), errdefs.ErrNotFound)
		check(t, f.Kill(ctx, "c", 9, api.Change{}))
		want(t, "kill of a dead one", f.Kill(ctx, "c", 9, api.Change{}), errdefs.ErrConflict)
		want(t, "exec in a dead one", second(f.Exec(ctx, "c", api.Exec{Args: []string{"true"}}, stdio())), errdefs.ErrConflict)
		want(t, "stats of a dead one", second(f.Stats(ctx, "c")), errdefs.ErrConflict)
		check(t, f.Remove(ctx, "c", false, api.Change{}))
		junk, err := os.Open(os.DevNull)
		check(t, err)
		defer junk.Close()
		want(t, "no archive", second(f.Import(ctx, api.Import{Ref: "junk"}, junk)), errdefs.ErrInvalid)
		want(t, "bad reference", second(f.Import(ctx, api.Import{Ref: "a b"}, junk)), errdefs.ErrInvalid)
	})
}

func second[T any](_ T, err error) error { return err }

func stdio() [3]*os.File { return [3]*os.File{os.Stdin, os.Stdout, os.Stderr} }

func TestOwned(t *testing.T) {
	owned := func(o *api.Options) {
		o.Owner = func(labels map[string]string) string { return labels["owner"] }
	}
	both(t, owned, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		c, err := f.Create(ctx, api.Create{
			ID: "c", Image: "busybox", Labels: map[string]string{"owner": "Nova"}, Start: &api.Start{Args: []string{"/bin/sh", "-c", obeys}},
		})
		if err != nil || c.Owner != "Nova" {
			t.Fatalf("%+v %v", c, err)
		}
		var pids int64 = 100
		for what, err := range map[string]error{
			"start": second(f.Start(ctx, "c", api.Start{}, api.Change{})), "stop": second(f.Stop(ctx, "c", api.Stop{}, api.Change{})),
			"kill": f.Kill(ctx, "c", 9, api.Change{}), "rm": f.Remove(ctx, "c", true, api.Change{}),
			"pause": f.Pause(ctx, "c", api.Change{}), "resume": f.Resume(ctx, "c", api.Change{}),
			"update":     second(f.Update(ctx, "c", api.Limits{Pids: &pids}, api.Change{})),
			"checkpoint": f.Checkpoint(ctx, "c", api.Checkpoint{Dir: "/x"}, api.Change{}),
			"restore":    second(f.Restore(ctx, "c", api.Restore{Dir: "/x"}, api.Change{})),
		} {
			want(t, what, err, errdefs.ErrForbidden)
			if err != nil && !strings.Contains(err.Error(), "Nova") {
				t.Errorf("%s: %v does not name the owner", what, err)
			}
		}
		// looking and executing is allowed
		check(t, second(f.Stats(ctx, "c")))
		run, err := f.Exec(ctx, "c", api.Exec{Args: []string{"/bin/sh", "-c", "exit 4"}}, stdio())
		check(t, err)
		if exit, err := run.Wait(ctx); err != nil || exit.Code != 4 {
			t.Errorf("exec %+v %v", exit, err)
		}
		run.Close()
		check(t, f.Remove(ctx, "c", true, api.Change{Force: true}))
	})
}

func TestNoCreate(t *testing.T) {
	both(t, func(o *api.Options) { o.NoCreate = "ask Nova" }, func(t *testing.T, f *fixture) {
		_, err := f.Create(t.Context(), api.Create{ID: "c", Image: "busybox"})
		want(t, "create", err, errdefs.ErrForbidden)
	})
}

func TestEvents(t *testing.T) {
	both(t, nil, func(t *testing.T, f *fixture) {
		begun, result := make(chan struct{}), make(chan []engine.EventKind, 1)
		ended := errors.New("seen all")
		go func() {
			var kinds []engine.EventKind
			err := f.Events(t.Context(), "c", func() { close(begun) }, func(ev api.Event) error {
				kinds = append(kinds, ev.Kind)
				if ev.Container != "c" || (ev.Kind == engine.EventExit) != (ev.Exit != nil) {
					t.Errorf("event %+v", ev)
				}
				if ev.Kind == engine.EventDelete {
					return ended
				}
				return nil
			})
			want(t, "events", err, ended)
			result <- kinds
		}()
		<-begun
		f.run(t, "other")
		f.run(t, "c")
		check(t, f.Remove(t.Context(), "c", true, api.Change{}))
		kinds := []engine.EventKind{engine.EventCreate, engine.EventStart, engine.EventExit, engine.EventDelete}
		if got := <-result; !slices.Equal(got, kinds) {
			t.Errorf("events %v", got)
		}
		check(t, f.Remove(t.Context(), "other", true, api.Change{}))
	})
}

func TestStreams(t *testing.T) {
	both(t, nil, func(t *testing.T, f *fixture) {
		f.run(t, "c")
		ctx, cancel := context.WithCancel(t.Context())
		r, err := f.Logs(ctx, "c", api.LogsRequest{Follow: true})
		check(t, err)
		cancel()
		want(t, "cancelled logs", second(io.ReadAll(r)), context.Canceled)
		r.Close()
		seen := 0
		stop := errors.New("enough")
		want(t, "stats", f.WatchStats(t.Context(), "c", 100*time.Millisecond, func(api.Stats) error {
			if seen++; seen == 2 {
				return stop
			}
			return nil
		}), stop)
		result := make(chan error, 2)
		first := make(chan struct{}, 1000)
		go func() {
			result <- f.WatchStats(t.Context(), "c", 100*time.Millisecond, func(api.Stats) error {
				select {
				case first <- struct{}{}:
				default:
				}
				return nil
			})
		}()
		<-first
		none := 0
		r, err = f.Logs(t.Context(), "c", api.LogsRequest{Follow: true, Lines: &none})
		check(t, err)
		go func() { _, err := io.ReadAll(r); result <- err }()
		check(t, f.Kill(t.Context(), "c", 9, api.Change{}))
		for range 2 {
			check(t, <-result) // both end with the container
		}
		r.Close()
		check(t, f.Remove(t.Context(), "c", false, api.Change{}))
	})
}

func TestCopy(t *testing.T) {
	both(t, nil, func(t *testing.T, f *fixture) {
		check(t, second(f.Create(t.Context(), api.Create{ID: "c", Image: "busybox"})))
		big := strings.Repeat("0123456789abcdef", 256<<10) // 4 MiB: bodies of copies have no limit of their own
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		check(t, w.WriteHeader(&tar.Header{Name: "dir/big", Mode: 0o600, Size: int64(len(big))}))
		check(t, second(io.WriteString(w, big)))
		check(t, w.Close())
		done, err := f.CopyIn(t.Context(), "c", "/", &b)
		if err != nil || done.Bytes != int64(len(big)) || done.Entries != 1 {
			t.Fatalf("in: %+v %v", done, err)
		}
		r, err := f.CopyOut(t.Context(), "c", "/dir/big")
		check(t, err)
		tr := tar.NewReader(r)
		hdr, err := tr.Next()
		if err != nil || hdr.Name != "big" {
			t.Fatalf("out: %+v %v", hdr, err)
		}
		if data, err := io.ReadAll(tr); err != nil || string(data) != big {
			t.Errorf("out: %d bytes, %v", len(data), err)
		}
		r.Close()
		r, err = f.CopyOut(t.Context(), "c", "/absent")
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		want(t, "out of nowhere", err, errdefs.ErrNotFound)
		r, err = f.Commit(t.Context(), "c")
		check(t, err)
		if data, err := io.ReadAll(r); err != nil || len(data) == 0 {
			t.Errorf("commit: %d bytes, %v", len(data), err)
		}
		r.Close()
		want(t, "in to nowhere", second(f.CopyIn(t.Context(), "c", "/absent", bytes.NewReader(make([]byte, 1024)))), errdefs.ErrNotFound)
		want(t, "no tar", second(f.CopyIn(t.Context(), "c", "/", strings.NewReader(strings.Repeat("no tar ", 500)))), errdefs.ErrInvalid)
		check(t, f.Remove(t.Context(), "c", true, api.Change{}))
	})
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Chmod(dir, 0o700))
	name := filepath.Join(dir, "s")
	l, err := api.Listen(name)
	check(t, err)
	if info, err := os.Lstat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	want(t, "twice", second(api.Listen(name)), errdefs.ErrAlreadyExists)
	l.SetUnlinkOnClose(false)
	check(t, l.Close())
	l, err = api.Listen(name) // what a killed one has left
	check(t, err)
	check(t, l.Close())
	check(t, os.WriteFile(name, nil, 0o600))
	want(t, "a file is there", second(api.Listen(name)), errdefs.ErrConflict)
	check(t, os.Chmod(dir, 0o755))
	want(t, "open directory", second(api.Listen(filepath.Join(dir, "t"))), errdefs.ErrForbidden)
	want(t, "relative", second(api.Listen("s")), errdefs.ErrInvalid)
	want(t, "long", second(api.Listen("/"+strings.Repeat("s", 200))), errdefs.ErrInvalid)
	want(t, "nobody there", second(api.NewClient(filepath.Join(dir, "none")).Info(t.Context())), errdefs.ErrUnavailable)
}
