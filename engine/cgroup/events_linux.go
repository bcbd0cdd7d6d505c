package cgroup

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// How long a kill may take to be counted after v1 told of the shortage, and how
// often an empty v2 group is looked for: the kernel does not tell of its end.
const (
	oomCountLimit = time.Second
	emptyLook     = time.Second
)

// Events implements Watcher. v1 tells by an eventfd that is registered with
// cgroup.event_control, before it kills (cgroup-v1/memory.rst, 10. OOM
// Control); v2 by inotify on memory.events (cgroup-v2.rst).
func (g *group) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if err := g.watch(ctx, func(e Event) bool { return yield(e, nil) }); err != nil {
			yield(Event{}, g.wrap("watch", err))
		}
	}
}

func (g *group) watch(ctx context.Context, yield func(Event) bool) error {
	if over(ctx) {
		return nil
	}
	n, v1 := g.t.with("memory")
	register := registerV1
	if !v1 {
		if !g.t.v2.Controllers["memory"] {
			return unsupported(LimitMemory, "no memory controller")
		}
		n, _ = g.t.unified()
		register = registerV2
	}
	if !g.has(n) {
		return errdefs.ErrNotFound
	}
	last, err := g.event(n, v1)
	if err != nil {
		return absent(err)
	}
	bell, err := register(g.dir(n))
	if err != nil {
		return absent(err)
	}
	defer func() { _ = bell.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = bell.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	w := &watcher{g: g, n: n, v1: v1, bell: bell, last: last, yield: yield}
	return w.run(ctx)
}

// absent gives an error its class when the group was removed meanwhile.
func absent(err error) error {
	if gone(err) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return err
}

// over tells whether the caller has had enough, which is no error here.
func over(ctx context.Context) bool { return ctx.Err() != nil }

type watcher struct {
	g     *group
	n     node
	v1    bool
	bell  *os.File
	last  Event
	yield func(Event) bool
}

// run looks first, for what came while the bell was hung up.
func (w *watcher) run(ctx context.Context) error {
	buf := make([]byte, 4096)
	for rung := false; ; rung = true {
		if over(ctx) || !w.g.has(w.n) {
			return nil
		}
		if goes, err := w.look(ctx, rung); !goes || err != nil {
			return err
		}
		if !w.v1 {
			w.arm(ctx)
		}
		if _, err := w.bell.Read(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("wait for an event: %w", err)
		}
	}
}

// arm wakes the reader soon when the group is empty and may be removed.
func (w *watcher) arm(ctx context.Context) {
	text, err := readFile(w.g.dir(w.n), "cgroup.events")
	if err != nil || flatKey(text, "populated") == 1 {
		_ = w.bell.SetReadDeadline(time.Time{})
	} else {
		_ = w.bell.SetReadDeadline(time.Now().Add(emptyLook))
	}
	if over(ctx) { // its deadline may have been replaced here
		_ = w.bell.SetReadDeadline(time.Unix(1, 0))
	}
}

// look yields what has changed. On v1 a bell may come before the count.
func (w *watcher) look(ctx context.Context, rung bool) (goes bool, err error) {
	changed := false
	err = poll(ctx, oomCountLimit, func() (bool, error) {
		now, err := w.g.event(w.n, w.v1)
		if err != nil {
			return false, err
		}
		changed = now != w.last
		w.last = now
		return changed || now.Waiting || !w.v1 || !rung, nil
	})
	switch {
	case changed:
		return w.yield(w.last), nil
	case gone(err), errors.Is(err, errdefs.ErrUnavailable): // removed, or nobody had to die
		return true, nil
	case over(ctx):
		return false, nil
	}
	return true, err
}

func (g *group) event(n node, v1 bool) (e Event, err error) {
	if e.OOMKills, err = g.oomKills(); err != nil || !v1 {
		return e, err
	}
	text, err := readFile(g.dir(n), "memory.oom_control")
	e.Waiting = flatKey(text, "under_oom") == 1 && flatKey(text, "oom_kill_disable") == 1
	return e, err
}

func registerV1(dir string) (*os.File, error) {
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	f := os.NewFile(uintptr(bell), "oom events")
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err == nil {
		err = writeFile(dir, "cgroup.event_control", fmt.Sprintf("%d %d", bell, control.Fd()))
		_ = control.Close()
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func registerV2(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make inotify: %w", classifyInotify(err))
	}
	f := os.NewFile(uintptr(fd), "oom events")
	for _, file := range []string{"memory.events", "cgroup.events"} {
		if _, err := unix.InotifyAddWatch(fd, filepath.Join(dir, file), unix.IN_MODIFY); err != nil {
			_ = f.Close()
			return nil, &os.PathError{Op: "watch", Path: filepath.Join(dir, file), Err: classifyInotify(err)}
		}
	}
	return f, nil
}

// classifyInotify: the limits are fs.inotify.max_user_instances and _watches.
func classifyInotify(err error) error {
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrExhausted)
	}
	return err
}
