package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/logging"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// A watch looks after all running processes of a Local: one goroutine that
// sleeps until one of them ends or says something. Where there is a guard it
// parks what the next runner must know (guard.go).
//
// Locks are taken in the order mu, Local.mu, fds.
type watch struct {
	l     *Local
	log   zerolog.Logger
	guard *Guard // nil without
	epoll *os.File
	epfd  int
	mover *mover
	done  chan struct{} // closed when run has returned

	mu    sync.Mutex
	slots []*proc // guarded by mu: running processes; nil for free slots
	// firstFree is guarded by mu: no slot before it is free.
	firstFree int
	// Guarded by mu, see tidy: whether the queue holds terminals that have
	// ended, when it will be tidied up, and how long that took.
	stale bool
	later *time.Timer
	took  time.Duration

	fds sync.RWMutex // held to use a proc's pidfd, and exclusively to close it
}

const (
	// drainGrace is for output of a console that has holders behind the first
	// process.
	drainGrace = time.Second
	// drainLimit is what is read of it after that.
	drainLimit = 1 << 20
	// tracerPoll is how often a process is looked at that a tracer keeps.
	tracerPoll = 10 * time.Millisecond

	eventEnd     = 0 // of a pidfd
	eventConsole = 1
)

func longAgo() time.Time { return time.Unix(1, 0) }

func newWatch(l *Local, g *Guard) (*watch, error) {
	w := &watch{l: l, log: l.log, guard: g, done: make(chan struct{})}
	var err error
	if g == nil {
		if w.mover, err = newMover(); err != nil {
			return nil, fmt.Errorf("make console pipe: %w", err)
		}
	} else {
		w.mover = &mover{mem: g.mem[:offCommands], pipe: g.pipe, scratch: make([]byte, 0, chunkSize+1)}
	}
	if w.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(w.epfd, true); err != nil {
		_ = unix.Close(w.epfd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	w.epoll = os.NewFile(uintptr(w.epfd), "epoll")
	return w, nil
}

// run handles events until the watch is stopped.
func (w *watch) run() {
	defer close(w.done)
	raw, err := w.epoll.SyscallConn()
	if err != nil {
		w.log.Error().Err(err).Msg("processes are not watched")
		return
	}
	events := make([]unix.EpollEvent, 64)
	stopped := false
	for !stopped {
		// The runtime's poller sees that the epoll descriptor is readable.
		err := raw.Read(func(fd uintptr) bool {
			n, err := linux.RetryEINTR(func() (int, error) { return unix.EpollWait(int(fd), events, 0) })
			if err != nil || n == 0 {
				return false
			}
			w.handle(events[:n])
			return true
		})
		stopped = err != nil
	}
}

// stop ends run, between two events.
func (w *watch) stop() {
	_ = w.epoll.SetReadDeadline(longAgo())
	<-w.done
}

func (w *watch) handle(events []unix.EpollEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range events {
		p := w.slots[e.Fd]
		if p == nil {
			continue // ended by an event before this one
		}
		if e.Pad == eventEnd {
			w.ended(p)
		} else if w.move(p) {
			w.consoleEnded(p)
		}
	}
}

func (w *watch) add(p *proc, kind int32, fd int) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(p.slot), Pad: kind}
	if err := unix.EpollCtl(w.epfd, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

// keep takes over a process that runs. On error it is killed and reaped.
func (w *watch) keep(p *proc) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	fd, err := dupPidfd(p.pidfd)
	if err == nil {
		_ = p.pidfd.Close()
		p.pidfd, p.fd = nil, fd
		err = w.watchNew(p)
	}
	if err == nil {
		return nil
	}
	if p.fd >= 0 {
		_ = unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0)
	} else {
		_ = linux.PidfdSignal(p.pidfd, int(unix.SIGKILL))
		_ = p.pidfd.Close()
	}
	_, _ = linux.RetryEINTR(func() (int, error) { return unix.Wait4(p.process.Pid, nil, 0, nil) })
	w.release(p, errdefs.ErrAborted)
	return fmt.Errorf("watch process: %w", err)
}

// watchNew needs mu.
func (w *watch) watchNew(p *proc) error {
	if !w.seat(p, len(w.slots)) {
		return fmt.Errorf("more than %d processes: %w", heldSlots, errdefs.ErrExhausted)
	}
	w.mover.hold(p.slot, false)
	if w.guard != nil {
		if !p.exitsSet {
			p.exitsFrom = w.guard.exits()
		}
		if err := w.park(p); err != nil {
			return err
		}
	}
	return w.register(p)
}

// register needs mu.
func (w *watch) register(p *proc) error {
	if err := w.add(p, eventEnd, p.fd); err != nil {
		return err
	}
	if p.console != nil {
		return w.add(p, eventConsole, p.console.master)
	}
	return nil
}

// unwatch ends the events of a terminal that is about to be closed. Where a guard
// holds it too the kernel would go on, and one that has hung up is always ready:
// until the guard was told to close it this goroutine would do nothing else.
func (w *watch) unwatch(c *console) {
	if c.master >= 0 {
		_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_DEL, c.master, nil)
	}
}

// seat gives p the slot wanted if it is free, or else any. It needs mu.
func (w *watch) seat(p *proc, wanted int) bool {
	slot := -1
	switch {
	case wanted >= 0 && wanted < len(w.slots) && w.slots[wanted] == nil:
		slot = wanted
	case wanted > len(w.slots) && wanted < heldSlots:
		w.slots = append(w.slots, make([]*proc, wanted-len(w.slots)+1)...)
		slot = wanted
	default:
		for i := w.firstFree; i < len(w.slots) && slot < 0; i++ {
			if w.slots[i] == nil {
				slot = i
			}
		}
		if slot < 0 && len(w.slots) < heldSlots {
			slot = len(w.slots)
			w.slots = append(w.slots, nil)
		}
		if slot >= 0 {
			w.firstFree = slot + 1
		}
	}
	if slot < 0 {
		return false
	}
	w.slots[slot], p.slot = p, slot
	return true
}

// pidfd returns a descriptor of a running process, for the caller to close.
func (w *watch) pidfd(p *proc) (*os.File, error) {
	w.fds.RLock()
	defer w.fds.RUnlock()
	if p.fd < 0 {
		return nil, fmt.Errorf("it has ended: %w", errdefs.ErrConflict)
	}
	fd, err := unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

func dupPidfd(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	got := -1
	var errno error
	if err := raw.Control(func(fd uintptr) { got, errno = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	return got, os.NewSyscallError("fcntl", errno)
}

func (w *watch) fail(p *proc) func(error) {
	return func(err error) {
		if !p.console.failed {
			p.console.failed = true
			w.log.Warn().Err(err).Str(logging.Container, p.id).Msg("console output is lost")
		}
	}
}

// move moves one chunk and reports whether the console has ended. It goes on
// reading when the log fails: a full disk must not stop the instance. It needs
// mu.
func (w *watch) move(p *proc) bool {
	if p.console == nil || p.console.master < 0 {
		return false
	}
	return errors.Is(w.mover.move(p, p.console.show, w.fail(p)), io.EOF)
}

// ended handles the end of a first process. It needs mu.
func (w *watch) ended(p *proc) {
	_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_DEL, p.fd, nil)
	e, child, err := waitStatus(p.fd)
	if errors.Is(err, unix.EAGAIN) {
		w.l.tasks.Go(func() { w.awaitTracer(p) })
		return
	}
	if err != nil {
		w.log.Error().Err(err).Str(logging.Container, p.id).Msg("exit status is lost")
		e = lostExit()
	}
	p.child = child
	if !child && err == nil {
		w.l.tasks.Go(func() { w.awaitExit(p) })
		return
	}
	w.exited(p, e)
}

// awaitTracer learns how a process has ended that another of its container
// traces (ptrace(2)): the kernel shows it to its parent when the tracer has
// seen it, or has ended, which is with the container at the latest. Until it is
// taken the container's pid namespace cannot end.
func (w *watch) awaitTracer(p *proc) {
	tick := time.NewTicker(tracerPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.done:
			return // the next runner will do it
		}
		e, child, err := waitStatus(p.fd)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil || !child {
			w.log.Error().Err(err).Str(logging.Container, p.id).Msg("exit status is lost")
			e = lostExit()
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		p.child = child
		w.exited(p, e)
		return
	}
}

func lostExit() Exit { return Exit{Code: 255, Time: time.Now()} }

// exited goes on when the exit is known. It needs mu.
func (w *watch) exited(p *proc, e Exit) {
	p.exit, p.exited = e, true
	if p.console == nil || p.console.master < 0 {
		w.complete(p)
		return
	}
	p.console.hangUp() // the rest, and then the end, come as events
	p.timer = time.AfterFunc(drainGrace, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.slots[p.slot] != p {
			return
		}
		for n := 0; n < drainLimit && !p.console.failed; n += chunkSize {
			if w.mover.move(p, p.console.show, w.fail(p)) != nil {
				break
			}
		}
		w.consoleEnded(p)
	})
}

// consoleEnded closes a console. It needs mu.
func (w *watch) consoleEnded(p *proc) {
	w.mover.end(p, w.fail(p))
	w.unwatch(p.console)
	p.console.close(io.EOF)
	if p.exited {
		w.complete(p)
	}
}

// complete publishes an exit, of which the next runner knows before the status
// is taken from the kernel. It needs mu.
func (w *watch) complete(p *proc) {
	if p.timer != nil {
		p.timer.Stop()
	}
	if w.guard != nil {
		if err := w.park(p); err != nil {
			w.log.Error().Err(err).Str(logging.Container, p.id).Msg("exit is not kept")
		}
		w.stale = w.stale || p.console != nil
	}
	if p.child && !w.l.leave {
		_, _ = linux.RetryEINTR(func() (int, error) { return unix.Wait4(p.process.Pid, nil, 0, nil) })
	}
	w.release(p, io.EOF)
	w.tidy() // before anybody knows: the terminal is gone
	close(p.ended)
	w.l.tellEnd(p)
}

// release closes what belongs to p and frees its slot. It needs mu.
func (w *watch) release(p *proc, reason error) {
	if p.slot >= 0 && p.slot < len(w.slots) && w.slots[p.slot] == p {
		w.slots[p.slot] = nil
		w.firstFree = min(w.firstFree, p.slot)
	}
	if p.console != nil {
		w.unwatch(p.console)
		p.console.close(reason)
	}
	if p.log != nil {
		_ = p.log.Close()
		p.log = nil
	}
	w.fds.Lock()
	defer w.fds.Unlock()
	closeFds(p.fd)
	p.fd = -1
}

// close releases everything, for a runner that ends in a process that goes on.
func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.slots {
		if p == nil {
			continue
		}
		if p.timer != nil {
			p.timer.Stop()
		}
		w.release(p, fmt.Errorf("console: runner is closed: %w", errdefs.ErrUnavailable))
	}
	if w.later != nil {
		w.later.Stop()
		w.later = nil
	}
	_ = w.epoll.Close()
	if w.guard == nil {
		closeFds(w.mover.pipe[:]...)
	}
}
