//go:build functional

package crash

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// How the processes of a life end.
const (
	codeAsked  = 21 // after SIGTERM
	codeItself = 22 // of its own accord
	codeExec   = 7
)

// guest says on a file system that ends with it when it is ready: a start that
// was undone leaves the disk as it is.
var guest = sh(fmt.Sprintf(`trap 'echo asked; exit %d' TERM; trap 'echo itself; exit %d' USR1; echo up; echo > /dev/shm/ready
while :; do sleep 1000 & wait $!; done`, codeAsked, codeItself))

// life is that of one container. Each request that is cut off is made again
// once it is known what has become of it: the thing is whole or absent.
type life struct {
	*churn
	id    string
	tried int // starts, each of which may have said that it is up
}

// live lives the n-th life of a slot. How long that takes depends on how many
// wait for a turn and how often they are cut off; only each step is bounded.
func (c *churn) live(id string, n int) {
	l := &life{churn: c, id: id}
	for _, step := range []struct {
		what string
		do   func(ctx context.Context) error
	}{
		{"create", l.create},
		{"start", l.start},
		{"exec", l.exec},
		{"end", []func(context.Context) error{l.stop, l.leave, l.stop, l.keep}[n%4]},
		{"delete", l.remove},
	} {
		if c.failed.Load() {
			return
		}
		if err := c.turn(step.do); err != nil {
			c.failed.Store(true)
			c.t.Errorf("%s %s: %v", step.what, id, err)
		}
	}
}

// turn waits for its turn and does a step, which has the time of several
// requests as it may be cut off several times.
func (c *churn) turn(do func(context.Context) error) error {
	c.turns <- struct{}{}
	defer func() { <-c.turns }()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*patience)
	defer cancel()
	return do(ctx)
}

// insist makes a request until it is answered.
func (c *churn) insist(ctx context.Context, do func() error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := do()
		if !unavailable(err) {
			return err
		}
		c.again.Add(1)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", ctx.Err(), err)
		}
	}
}

// status is a container's at present, "" if it is absent.
func (l *life) status(ctx context.Context) (out api.Container, err error) {
	err = l.insist(ctx, func() (err error) {
		out, err = l.h.api.Container(ctx, l.id)
		return err
	})
	if errors.Is(err, errdefs.ErrNotFound) {
		return api.Container{}, nil
	}
	return out, err
}

// change makes a request that takes a container from one status to another, and
// again if it was cut off and has had no effect.
func (l *life) change(ctx context.Context, from, to engine.Status, do func() error) error {
	return l.insist(ctx, func() error {
		err := do()
		if !unavailable(err) {
			return err
		}
		now, serr := l.status(ctx)
		switch {
		case serr != nil:
			return serr
		case now.Status == to:
			return nil
		case now.Status != from:
			return fmt.Errorf("cut off, and then it is %q instead of %q or %q: %v", now.Status, from, to, err)
		}
		return err
	})
}

func (l *life) create(ctx context.Context) error {
	l.creates.Add(1)
	return l.change(ctx, "", engine.StatusCreated, func() error {
		_, err := l.h.api.Create(ctx, api.Create{ID: l.id, Image: image})
		return err
	})
}

func (l *life) start(ctx context.Context) error {
	l.starts.Add(1)
	return l.change(ctx, engine.StatusCreated, engine.StatusRunning, func() error {
		l.tried++
		_, err := l.h.api.Start(ctx, l.id, guest, api.Change{})
		return err
	})
}

// exec runs a command that ends when the container is ready to be ended.
func (l *life) exec(ctx context.Context) error {
	l.execs.Add(1)
	return l.insist(ctx, func() error {
		r, err := l.h.exec(ctx, l.id, api.Exec{
			Args: []string{"sh", "-c", fmt.Sprintf("until test -e /dev/shm/ready; do sleep 0.01; done; exit %d", codeExec)}, Detach: true,
		})
		if err != nil {
			return err
		}
		defer r.Close()
		exit, err := r.Wait(ctx)
		if unavailable(err) {
			err = l.insist(ctx, func() error {
				exit, err = l.h.api.WaitSession(ctx, l.id, r.Session.ID)
				return err
			})
			if errors.Is(err, errdefs.ErrNotFound) {
				l.unheard.Add(1) // it ended while there was no service
				return nil
			}
		}
		if err == nil && (!exit.Known || exit.Code != codeExec) {
			err = fmt.Errorf("ended with %+v", exit)
		}
		return err
	})
}

func (l *life) stop(ctx context.Context) error {
	return l.ending(ctx, codeAsked, "asked", func() error {
		_, err := l.h.api.Stop(ctx, l.id, api.Stop{Timeout: patience.Seconds()}, api.Change{})
		return err
	})
}

// leave has the container end of its own accord.
func (l *life) leave(ctx context.Context) error {
	return l.ending(ctx, codeItself, "itself", func() error {
		if err := l.h.api.Kill(ctx, l.id, 10, api.Change{}); err != nil {
			return err
		}
		_, err := l.h.api.Wait(ctx, l.id)
		return err
	})
}

// ending ends the container and looks at how it did, and at what it has said.
func (l *life) ending(ctx context.Context, code int, word string, do func() error) error {
	l.ends.Add(1)
	if err := l.change(ctx, engine.StatusRunning, engine.StatusStopped, do); err != nil {
		return err
	}
	now, err := l.status(ctx)
	if err != nil {
		return err
	}
	if now.Status != engine.StatusStopped || now.Exit == nil || !now.Exit.Known || now.Exit.Code != code {
		return fmt.Errorf("started %d times, it is %s, exit %+v, want %d", l.tried, now.Status, now.Exit, code)
	}
	return l.insist(ctx, func() error {
		said, err := l.h.said(ctx, l.id)
		// a start that was undone may have come as far as that
		if n := strings.Count(said, "up\n"); err == nil && (n < 1 || n > l.tried || said != strings.Repeat("up\n", n)+word+"\n") {
			err = fmt.Errorf("started %d times, it said %q", l.tried, said)
		}
		return err
	})
}

// keep lets it run until it is deleted.
func (l *life) keep(context.Context) error { return nil }

func (l *life) remove(ctx context.Context) error {
	l.deletes.Add(1)
	err := l.insist(ctx, func() error { return l.h.api.Remove(ctx, l.id, true, api.Change{}) })
	if errors.Is(err, errdefs.ErrNotFound) {
		err = nil // an earlier request has done it
	}
	if err != nil {
		return err
	}
	now, err := l.status(ctx)
	if err == nil && now.Status != "" {
		err = fmt.Errorf("it is %s", now.Status)
	}
	return err
}
