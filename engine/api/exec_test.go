package api_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// await polls for a condition.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 24000 {
		if ok() {
			return
		}
		<-tick.C
	}
	t.Fatalf("%s does not come", what)
}

// pipes are three pipes: the ends to pass and those to keep.
func pipes(t *testing.T) (pass [3]*os.File, keep [3]*os.File) {
	t.Helper()
	for i := range pass {
		r, w, err := os.Pipe()
		check(t, err)
		t.Cleanup(func() { r.Close(); w.Close() })
		if pass[i], keep[i] = w, r; i == 0 {
			pass[i], keep[i] = r, w
		}
	}
	return pass, keep
}

func closeAll(files [3]*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func TestExecPassesFiles(t *testing.T) {
	both(t, nil, func(t *testing.T, f *fixture) {
		f.run(t, "c")
		pass, keep := pipes(t)
		run, err := f.Exec(t.Context(), "c", api.Exec{Args: []string{"/bin/sh", "-c", "read x; echo got $x $A; echo err >&2; exit 9"}, Env: []string{"A=b"}}, pass)
		closeAll(pass)
		check(t, err)
		if s := run.Session; s.ID == "" || s.Container != "c" || !s.Running || s.Pid == 0 {
			t.Errorf("session %+v", s)
		}
		check(t, second(io.WriteString(keep[0], "it\n")))
		out, err := io.ReadAll(keep[1])
		check(t, err)
		errs, err := io.ReadAll(keep[2])
		check(t, err)
		if string(out) != "got it b\n" || string(errs) != "err\n" {
			t.Errorf("said %q and %q", out, errs)
		}
		if exit, err := run.Wait(t.Context()); err != nil || exit.Code != 9 {
			t.Errorf("ended %+v %v", exit, err)
		}
		run.Close()
		check(t, f.Remove(t.Context(), "c", true, api.Change{}))
	})
}

// TestExecClientIsGone: a session ends with its client, whatever way, unless
// it was to be left; a signal is passed on.
func TestExecClientIsGone(t *testing.T) {
	both(t, nil, func(t *testing.T, f *fixture) {
		f.run(t, "c")
		begin := func(detach bool) (*api.Running, string) {
			t.Helper()
			pass, keep := pipes(t)
			run, err := f.Exec(t.Context(), "c", api.Exec{Args: []string{"/bin/sh", "-c", "echo ready; " + strings.TrimPrefix(obeys, "trap 'exit 7' TERM; ")}, Detach: detach}, pass)
			closeAll(pass)
			check(t, err)
			check(t, second(io.ReadFull(keep[1], make([]byte, 6))))
			return run, run.Session.ID
		}
		ended := func(id string) func() bool {
			return func() bool {
				list, err := f.Sessions(t.Context(), "c")
				check(t, err)
				for _, s := range list {
					if s.ID == id {
						return !s.Running
					}
				}
				return true
			}
		}
		run, id := begin(false)
		run.Close()
		await(t, "end after close", ended(id))
		run, id = begin(false)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		want(t, "cancelled", second(run.Wait(ctx)), context.Canceled)
		await(t, "end after cancel", ended(id))
		run, _ = begin(false)
		check(t, run.Signal(int(unix.SIGTERM)))
		if exit, err := run.Wait(t.Context()); err != nil || exit.Signal != int(unix.SIGTERM) {
			t.Errorf("signal: %+v %v", exit, err)
		}
		run.Close()
		run, id = begin(true)
		run.Close()
		other, left := begin(false)
		check(t, other.Detach())
		// it is heard before the end of the connection: documents come in order
		other.Close()
		for _, one := range []string{id, left} {
			if ended(one)() {
				t.Errorf("session %s ended although it was to be left", one)
			}
			check(t, f.KillSession(t.Context(), "c", one, 0))
			if exit, err := f.WaitSession(t.Context(), "c", one); err != nil || exit.Signal != 9 {
				t.Errorf("killed: %+v %v", exit, err)
			}
		}
		run, _ = begin(false)
		check(t, f.Kill(t.Context(), "c", 9, api.Change{}))
		if exit, err := run.Wait(t.Context()); err != nil || exit.Signal != 9 {
			t.Errorf("ends with the container: %+v %v", exit, err)
		}
		run.Close()
		check(t, f.Remove(t.Context(), "c", true, api.Change{}))
	})
}

func TestExecTerminal(t *testing.T) {
	both(t, nil, func(t *testing.T, f *fixture) {
		f.run(t, "c")
		run, master, err := f.ExecTerminal(t.Context(), "c", api.Exec{Args: []string{"/bin/sh", "-c", "/bin/busybox stty size; read x; echo got $x; exit 3"}, Rows: 20, Columns: 70})
		if !f.real {
			want(t, "terminal", err, errdefs.ErrUnsupported)
			check(t, f.Remove(t.Context(), "c", true, api.Change{}))
			return
		}
		check(t, err)
		defer master.Close()
		check(t, second(io.WriteString(master, "it\n")))
		said, err := io.ReadAll(master)
		if err != nil && !errors.Is(err, unix.EIO) { // EIO is a terminal's end
			t.Error(err)
		}
		if text := string(said); !strings.Contains(text, "20 70\r\n") || !strings.Contains(text, "got it\r\n") {
			t.Errorf("said %q", text)
		}
		if exit, err := run.Wait(t.Context()); err != nil || exit.Code != 3 {
			t.Errorf("ended %+v %v", exit, err)
		}
		run.Close()
		check(t, f.Remove(t.Context(), "c", true, api.Change{}))
	})
}

// TestServerEnds: sessions outlive the server, as containers do.
func TestServerEnds(t *testing.T) {
	backend := newFake(t.TempDir())
	backend.images["busybox"] = engine.ImageInfo{Ref: "busybox"}
	var session string
	t.Run("server", func(t *testing.T) {
		var run *api.Running
		t.Cleanup(func() { // the last: after the server has ended
			want(t, "wait", second(run.Wait(context.WithoutCancel(t.Context()))), errdefs.ErrUnavailable)
			run.Close()
		})
		f := serve(t, backend, nil)
		f.run(t, "c")
		pass, keep := pipes(t)
		var err error
		run, err = f.Exec(t.Context(), "c", api.Exec{Args: []string{"/bin/sh", "-c", "echo ready; exec sleep 1000"}}, pass)
		closeAll(pass)
		check(t, err)
		check(t, second(io.ReadFull(keep[1], make([]byte, 6))))
		session = run.Session.ID
	})
	if x, err := backend.session("c", session); err != nil || !x.state.Running {
		t.Errorf("session %+v %v", x, err)
	}
	check(t, backend.Delete(t.Context(), "c"))
}

// TestNoHostFilesReachTheSession: what is passed is what the command has.
func TestNoHostFilesReachTheSession(t *testing.T) {
	both(t, nil, func(t *testing.T, f *fixture) {
		if !f.real {
			return
		}
		f.run(t, "c")
		pass, keep := pipes(t)
		run, err := f.Exec(t.Context(), "c", api.Exec{Args: []string{"/bin/sh", "-c", "for i in /proc/$$/fd/*; do echo -n ${i##*/}; done"}}, pass)
		closeAll(pass)
		check(t, err)
		out, err := io.ReadAll(keep[1])
		check(t, err)
		// the shell has the directory that it reads open as one more
		if got := strings.TrimSuffix(string(out), "3"); got != "012" {
			t.Errorf("descriptors %q", out)
		}
		check(t, second(run.Wait(t.Context())))
		run.Close()
		check(t, f.Remove(t.Context(), "c", true, api.Change{}))
	})
}

func TestAttach(t *testing.T) {
	both(t, nil, func(t *testing.T, f *fixture) {
		want(t, "absent", second(f.Attach(t.Context(), "absent")), errdefs.ErrNotFound)
		_, err := f.Create(t.Context(), api.Create{ID: "c", Image: "busybox", Start: &api.Start{
			Args: []string{"/bin/sh", "-c", "while read x; do echo said $x; [ $x = end ] && exit 5; done"},
		}})
		check(t, err)
		check(t, f.Resize(t.Context(), "c", api.Size{Rows: 30, Columns: 90}))
		want(t, "no size", f.Resize(t.Context(), "c", api.Size{Rows: 30}), errdefs.ErrInvalid)
		gone, err := f.Attach(t.Context(), "c")
		check(t, err)
		check(t, gone.Close())
		a, err := f.Attach(t.Context(), "c")
		check(t, err)
		check(t, second(io.WriteString(a, "hello\n")))
		var said strings.Builder
		buf := make([]byte, 256)
		for !strings.Contains(said.String(), "hello\r\n") && !strings.Contains(said.String(), "hello\n") {
			n, err := a.Read(buf)
			check(t, err)
			said.Write(buf[:n])
		}
		code := 5
		if f.real {
			check(t, second(io.WriteString(a, "end\n")))
		} else {
			code = 7
			check(t, second(f.Stop(t.Context(), "c", api.Stop{Timeout: 1}, api.Change{})))
		}
		if _, err := io.ReadAll(a); err != nil {
			t.Error(err)
		}
		if exit, err := a.Wait(t.Context()); err != nil || exit.Code != code {
			t.Errorf("ended %+v %v", exit, err)
		}
		check(t, a.Close())
		want(t, "a dead one", second(f.Attach(t.Context(), "c")), errdefs.ErrConflict)
		check(t, f.Remove(t.Context(), "c", false, api.Change{}))
	})
}
