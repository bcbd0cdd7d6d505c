//go:build functional

package crash

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// idle is a container that does nothing.
var idle = sh("while :; do sleep 1000; done")

// operation is one that is interrupted, on the container "c".
type operation struct {
	steps   []string
	prepare func(t testing.TB, h *host)
	do      func(t testing.TB, h *host) error
	// cut is the state of things when the service was killed at the step, whole
	// when the operation was done.
	cut, whole func(t testing.TB, h *host, step string)
	// mayBeCut is the step after which a keeper is asked to start a process: one
	// that is killed meanwhile has started none, and the caller is told so.
	mayBeCut string
}

func operations() map[string]operation {
	return map[string]operation{
		"create": {
			steps: []string{"begin", "record", "disk"},
			do:    func(t testing.TB, h *host) error { return create(t, h) },
			cut:   func(t testing.TB, h *host, _ string) { h.is(t, "") },
			whole: func(t testing.TB, h *host, _ string) { h.is(t, engine.StatusCreated) },
		},
		"start": {
			steps: []string{"begin", "record"}, mayBeCut: "begin",
			prepare: func(t testing.TB, h *host) { must(0, create(t, h))(t) },
			do:      func(t testing.TB, h *host) error { return start(t, h) },
			cut: func(t testing.TB, h *host, _ string) {
				h.is(t, engine.StatusCreated)
				must(0, start(t, h))(t)
				h.is(t, engine.StatusRunning)
			},
			whole: func(t testing.TB, h *host, _ string) { h.is(t, engine.StatusRunning) },
		},
		"exec": {
			steps: []string{"begin", "started"}, mayBeCut: "begin",
			prepare: running,
			do: func(t testing.TB, h *host) error {
				r, err := h.exec(soon(t), "c", api.Exec{Args: []string{"sleep", "1000"}, Detach: true})
				if err == nil {
					r.Close()
				}
				return err
			},
			cut: func(t testing.TB, h *host, step string) {
				h.is(t, engine.StatusRunning)
				h.sessions(t, map[string]int{"begin": 0, "started": 1}[step])
			},
			whole: func(t testing.TB, h *host, _ string) { h.sessions(t, 1) },
		},
		"commit": {
			steps:   []string{"frozen", "copied"},
			prepare: running,
			do:      commit,
			cut: func(t testing.TB, h *host, _ string) {
				h.works(t)
				must(0, commit(t, h))(t)
			},
			whole: func(t testing.TB, h *host, _ string) { h.works(t) },
		},
		"delete": {
			steps:   []string{"begin", "ended", "unmounted", "record"},
			prepare: running,
			do:      func(t testing.TB, h *host) error { return h.api.Remove(soon(t), "c", true, api.Change{}) },
			cut:     func(t testing.TB, h *host, _ string) { h.is(t, "") },
			whole:   func(t testing.TB, h *host, _ string) { h.is(t, "") },
		},
	}
}

func create(t testing.TB, h *host) error {
	_, err := h.api.Create(soon(t), api.Create{ID: "c", Image: image})
	return err
}

func start(t testing.TB, h *host) error {
	_, err := h.api.Start(soon(t), "c", idle, api.Change{})
	return err
}

func running(t testing.TB, h *host) {
	t.Helper()
	must(0, errors.Join(create(t, h), start(t, h)))(t)
}

// commit reads the whole archive.
func commit(t testing.TB, h *host) error {
	r, err := h.api.Commit(soon(t), "c")
	if err != nil {
		return err
	}
	defer r.Close()
	files := 0
	for tr := tar.NewReader(r); ; files++ {
		if _, err = tr.Next(); err != nil {
			break
		}
	}
	if errors.Is(err, io.EOF) && files > 0 {
		return nil
	}
	return err
}

// is checks the status of the container; "" is none.
func (h *host) is(t testing.TB, want engine.Status) {
	t.Helper()
	c, err := h.api.Container(soon(t), "c")
	if want == "" && !errors.Is(err, errdefs.ErrNotFound) || want != "" && err != nil || c.Status != want {
		t.Errorf("the container is %q (%v), want %q", c.Status, err, want)
	}
}

// works checks that a command can be run in the container, which is not frozen.
func (h *host) works(t testing.TB) {
	t.Helper()
	h.is(t, engine.StatusRunning)
	if code, err := h.run(soon(t), "c", "exit 3"); err != nil || code != 3 {
		t.Errorf("a command ends with %d, %v", code, err)
	}
}

// sessions checks how many commands run in the container, and ends them.
func (h *host) sessions(t testing.TB, want int) {
	t.Helper()
	all, err := h.api.Sessions(soon(t), "c")
	all = slices.DeleteFunc(all, func(s api.Session) bool { return !s.Running })
	if err != nil || len(all) != want {
		t.Errorf("sessions %+v (%v), want %d", all, err, want)
	}
	// the container's own two, and no half of a command
	if list, err := h.api.Top(soon(t), "c"); err != nil || len(list) != 2+want {
		t.Errorf("%d processes (%v) in the container: %+v", len(list), err, list)
	}
	for _, s := range all {
		if err := h.api.KillSession(soon(t), "c", s.ID, 0); err != nil {
			t.Error(err)
		}
		if e, err := h.api.WaitSession(soon(t), "c", s.ID); err != nil || !e.Known || e.Signal != 9 {
			t.Errorf("session %+v ended with %+v, %v", s, e, err)
		}
	}
}

// victims are who is killed while the service is held at a step; release lets
// it go on.
func victims() map[string]func(t testing.TB, h *host, release func()) {
	service := func(t testing.TB, h *host, release func()) {
		h.end(t, syscall.SIGKILL)
		release()
	}
	return map[string]func(t testing.TB, h *host, release func()){
		"service": service,
		"keeper": func(t testing.TB, h *host, release func()) {
			await := h.killKeeper(t)
			release() // while there is none
			await()
		},
		"guard": func(t testing.TB, h *host, release func()) {
			await := h.killGuard(t)
			release()
			await()
		},
		"keeper then guard": func(t testing.TB, h *host, release func()) {
			h.killKeeper(t)()
			await := h.killGuard(t)
			release()
			await()
		},
		"guard then keeper": func(t testing.TB, h *host, release func()) {
			h.killGuard(t)()
			await := h.killKeeper(t)
			release()
			await()
		},
		"service and keeper": func(t testing.TB, h *host, release func()) {
			await := h.killKeeper(t)
			service(t, h, release)
			await()
		},
	}
}

// TestKilledAtEachStep kills each part of the engine at each step of each
// operation, beside a container that has to hear nothing of it.
func TestKilledAtEachStep(t *testing.T) {
	h := newHost(t)
	k := newTalker(t, h, "talker")
	var took []time.Duration
	ops, kills := operations(), victims()
	for _, name := range []string{"create", "start", "exec", "commit", "delete"} {
		op := ops[name]
		for _, step := range op.steps {
			for _, victim := range []string{"service", "keeper", "guard", "keeper then guard", "guard then keeper", "service and keeper"} {
				ok := t.Run(name+"/"+step+"/"+victim, func(t *testing.T) {
					took = append(took, h.interrupt(t, name, step, op, kills[victim], strings.HasPrefix(victim, "service")))
					k.advance(t)
				})
				if !ok {
					return // what is left would only confuse
				}
			}
		}
	}
	h.restart(t, "")
	lines := k.finish(t)
	h.close(t)
	t.Logf("%d cases; %d lines of console; answered again %s", len(took), lines, spread(took))
}

// interrupt does the operation up to the step, kills, and returns how long it
// took until the service answered.
func (h *host) interrupt(t *testing.T, name, step string, op operation, kill func(testing.TB, *host, func()), cut bool) time.Duration {
	before := h.things(t)
	file := filepath.Join(t.TempDir(), "held")
	// on its first pass only: an operation that is turned away is done again by the same service
	h.restart(t, "engine."+name+"."+step+":1=hold:"+file)
	if op.prepare != nil {
		op.prepare(t, h)
	}
	result := make(chan error, 1)
	go func() { result <- op.do(t, h) }()
	done := func() (err error) {
		select {
		case err = <-result:
		case <-time.After(patience):
			t.Fatalf("the operation does not return\n%s", h.stacks())
		}
		return err
	}
	until(t, patience, "the step is reached", func() bool {
		_, err := os.Stat(file)
		return err == nil
	})
	began := time.Now()
	kill(t, h, func() { _ = os.Remove(file) })
	if cut {
		if err := done(); !unavailable(err) {
			t.Errorf("the caller of a killed service is told %v", err)
		}
		h.start(t, "")
	} else if err := done(); unavailable(err) && op.mayBeCut == step {
		t.Logf("turned away: %v", err)
		cut = true // as the contract of the keeper's client allows
	} else if err != nil {
		t.Errorf("the operation failed: %v", err)
	}
	_, err := h.api.Containers(soon(t))
	took := time.Since(began)
	if err != nil {
		t.Error(err)
	}
	if cut {
		op.cut(t, h, step)
	} else {
		op.whole(t, h, step)
	}
	if err := h.api.Remove(soon(t), "c", true, api.Change{}); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
	until(t, patience, "nothing is left", func() bool { return slices.Equal(h.things(t), before) })
	return took
}

// spread tells of durations.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "never"
	}
	all = slices.Sorted(slices.Values(all))
	at := func(share float64) string {
		return all[int(share*float64(len(all)-1))].Round(time.Millisecond).String()
	}
	return "after a median of " + at(0.5) + ", 95 of 100 within " + at(0.95) + ", at most " + at(1)
}
