package process

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Options of a Local runner.
type Options struct {
	Log zerolog.Logger
	// Guard, if any, lets the processes outlive the calling one: New adopts
	// what the runner before this one has left in it.
	Guard *Guard
	// Foreign, if any, starts what names a runtime of its own (Spec.Runtime).
	// Without a guard the calling process then becomes the reaper of orphans
	// (PR_SET_CHILD_SUBREAPER), which it stays.
	Foreign Foreign
	// Restore, if any, brings back what names a checkpoint (Spec.Restore), with
	// the same effect on the calling process.
	Restore Restorer
	// Resident is for a runner that starts many processes. It makes a stage and a
	// nursery, by which a start depends neither on the number of mounts on the
	// host nor on that of the calling process's open files. They cost a few
	// milliseconds once.
	Resident bool
	// LeaveEnded leaves ended processes to whoever adopts orphans, for a caller
	// that is about to end itself.
	LeaveEnded bool
}

// Local is the Runner whose processes are children of the calling process.
// When that process dies its instances run on, but without a Guard nobody
// learns how they end and their consoles are cut off.
//
// It needs root in the user namespace that it runs in.
type Local struct {
	log    zerolog.Logger
	facts  facts
	bootID string
	null   *os.File
	watch  *watch
	// nursery is nil where there is none.
	nursery *Nursery
	leave   bool // Options.LeaveEnded
	// foreign is nil where there are no other runtimes.
	foreign Foreign
	restore Restorer // nil where nothing is restored
	tasks   sync.WaitGroup
	starts  sync.WaitGroup // those under way

	// programs are the memory of programs that have run: 200 KiB for each start.
	programs sync.Pool

	mu     sync.Mutex
	closed bool             // guarded by mu
	procs  map[string]*proc // guarded by mu
}

var _ Runner = (*Local)(nil)

// proc is one known process tree. Fields without a remark do not change after
// started.
type proc struct {
	id      string
	process Process
	pidfd   *os.File // until fd has it
	console *console // nil for a process without a terminal of the runner's
	log     *conlog.Writer

	foreign  bool // made by Local.foreign
	exitsSet bool // exitsFrom is from before the process

	started bool          // guarded by Local.mu: Start has returned
	exit    Exit          // valid once ended is closed
	ended   chan struct{} // closed at the end
	atEnd   []*func(Exit) // guarded by Local.mu

	// The watch's, guarded by its mu unless said otherwise.
	fd        int    // pidfd, -1 when closed; guarded by watch.fds
	slot      int    // in watch.slots
	birth     uint64 // parked.Birth, 0 before it was parked
	exitsFrom int64  // parked.ExitsFrom
	logPath   string
	logLimit  int64
	exited    bool // exit is known
	child     bool // an ended one is to be reaped
	timer     *time.Timer
}

// New returns a runner without processes, but for those that it takes over from
// a guard. Close it when done.
func New(o Options) (*Local, error) {
	bootID, err := linux.BootID()
	if err != nil {
		return nil, fmt.Errorf("make process runner: %w", err)
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("make process runner: %w", err)
	}
	l := &Local{
		log:    o.Log,
		facts:  facts{cgroups: hierarchies(), hardLimits: hardLimits(), attrFacts: readAttrFacts()},
		bootID: bootID,
		null:   null,
		procs:  map[string]*proc{},

		foreign: o.Foreign, restore: o.Restore, leave: o.LeaveEnded,
		programs: sync.Pool{New: func() any { return newProgram() }},
	}
	if o.Resident {
		l.nursery = NewNursery()
		if l.facts.stage, err = newStage(null, l.facts.cgroups); err != nil {
			o.Log.Warn().Err(err).Msg("without a stage each start copies the mounts of the host")
		}
	}
	if l.watch, err = newWatch(l, o.Guard); err == nil && o.Guard != nil {
		err = l.watch.adopt()
	}
	if err == nil && (o.Foreign != nil || o.Restore != nil) {
		err = l.openForeign(o.Guard)
	}
	if err != nil {
		linux.CloseAll([]*os.File{null, l.facts.stage})
		return nil, fmt.Errorf("make process runner: %w", err)
	}
	l.tasks.Go(l.watch.run)
	return l, nil
}

// Close stops watching and ends the goroutines of the runner. It leaves the
// processes alone; their consoles are cut off, unless there is a guard.
func (l *Local) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.starts.Wait()
	l.watch.stop()
	l.watch.close()
	l.tasks.Wait()
	l.nursery.Close()
	linux.CloseAll([]*os.File{l.facts.stage})
	return l.null.Close()
}

// Start implements Runner.
func (l *Local) Start(ctx context.Context, id string, spec Spec) (Process, error) {
	p := &proc{id: id, ended: make(chan struct{}), fd: -1, slot: -1, logPath: spec.ConsoleLog, logLimit: spec.ConsoleLimit}
	if err := l.reserve(id, p); err != nil {
		return Process{}, err
	}
	defer l.starts.Done()
	var err error
	if foreign, ferr := l.isForeign(&spec); ferr != nil {
		err = ferr
	} else if foreign {
		if err = l.startForeign(ctx, p, &spec); err == nil {
			err = l.keepForeign(ctx, p)
		}
	} else if err = l.start(ctx, p, spec); err == nil {
		err = l.watch.keep(p)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		delete(l.procs, id)
		return Process{}, fmt.Errorf("start process %s: %w", id, err)
	}
	p.started = true
	return p.process, nil
}

func (l *Local) reserve(id string, p *proc) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("start process %s: runner is closed: %w", id, errdefs.ErrUnavailable)
	}
	if id == "" {
		return invalid("empty id")
	}
	if _, ok := l.procs[id]; ok {
		return fmt.Errorf("start process %s: %w", id, errdefs.ErrAlreadyExists)
	}
	l.procs[id] = p
	l.starts.Add(1)
	return nil
}

func (l *Local) start(ctx context.Context, p *proc, spec Spec) error {
	prog, done, err := l.program(&spec)
	defer done()
	if err != nil {
		return err
	}
	if spec.ConsoleLog != "" {
		if p.log, err = conlog.NewWriter(spec.ConsoleLog, spec.ConsoleLimit); err != nil {
			return err
		}
	}
	if err := l.bear(ctx, p, prog, &spec); err != nil {
		if p.log != nil {
			_ = p.log.Close()
		}
		return err
	}
	return nil
}

// program compiles spec. done releases what the program refers to, and its
// memory for another, on an error too.
func (l *Local) program(spec *Spec) (prog *Program, done func(), err error) {
	prog = l.programs.Get().(*Program)
	recycle := func() {
		prog.reset()
		l.programs.Put(prog)
	}
	if spec.Join == "" {
		return prog, recycle, prog.compile(spec, l.facts.forSpec(spec))
	}
	p, err := l.find(spec.Join)
	if err != nil {
		return prog, recycle, err
	}
	pidfd, err := l.watch.pidfd(p)
	if err != nil {
		return prog, recycle, fmt.Errorf("join process %s: %w", spec.Join, err)
	}
	defer func() { _ = pidfd.Close() }()
	t, err := newTarget(p.process.Pid, pidfd)
	if err != nil {
		return prog, recycle, fmt.Errorf("join process %s: %w", spec.Join, err)
	}
	return prog, func() { _ = t.pidfd.Close(); recycle() }, prog.compileExec(spec, l.facts, t)
}

// bear runs the program and fills in p.
func (l *Local) bear(ctx context.Context, p *proc, prog *Program, spec *Spec) error {
	child, status, err := launch(prog, l.null, l.nursery)
	if err != nil {
		return err
	}
	defer func() { _ = status.Close() }()
	m := midwife{spec: spec, null: l.null, facts: l.facts}
	b := &birth{prog: prog, child: child, status: status, serve: m.serve}
	if err := b.await(ctx); err != nil {
		return err
	}
	if err := l.adopt(p, b, spec); err != nil {
		b.kill()
		return err
	}
	return nil
}

func (l *Local) adopt(p *proc, b *birth, spec *Spec) error {
	started, err := linux.StartTime(b.pid)
	if err != nil {
		return err
	}
	if spec.Terminal && spec.ConsoleSocket == nil {
		if b.master == nil {
			return errors.New("set-up process sent no console")
		}
		p.console, err = newConsole(b.master)
		b.master = nil
		if err != nil {
			return err
		}
	}
	p.pidfd = b.pidfd
	p.process = Process{Pid: b.pid, StartTime: started, BootID: l.bootID}
	return nil
}

// find returns a started process.
func (l *Local) find(id string) (*proc, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.procs[id]
	if !ok || !p.started {
		return nil, fmt.Errorf("process %s: %w", id, errdefs.ErrNotFound)
	}
	return p, nil
}

func (p *proc) status() Status {
	s := Status{ID: p.id, Process: p.process}
	select {
	case <-p.ended:
		s.Exit = p.exit
	default:
		s.Running = true
	}
	return s
}

// Signal implements Runner.
func (l *Local) Signal(ctx context.Context, id string, sig int) error {
	if sig < 0 || sig > 64 {
		return fmt.Errorf("signal process %s: signal %d: %w", id, sig, errdefs.ErrInvalid)
	}
	p, err := l.find(id)
	if err != nil {
		return err
	}
	if p.foreign && l.foreign != nil && sig != 0 {
		return l.signalForeign(ctx, p, sig)
	}
	l.watch.fds.RLock()
	defer l.watch.fds.RUnlock()
	if p.fd < 0 {
		return fmt.Errorf("signal process %s: %w", id, errdefs.ErrNotFound)
	}
	if err := unix.PidfdSendSignal(p.fd, unix.Signal(sig), nil, 0); err != nil {
		err = os.NewSyscallError("pidfd_send_signal", err)
		if errors.Is(err, unix.ESRCH) {
			err = errdefs.ErrNotFound
		}
		return fmt.Errorf("signal process %s: %w", id, err)
	}
	return nil
}

// Status implements Runner.
func (l *Local) Status(_ context.Context, id string) (Status, error) {
	p, err := l.find(id)
	if err != nil {
		return Status{}, err
	}
	return p.status(), nil
}

// List implements Runner. The order is that of the ids.
func (l *Local) List(context.Context) ([]Status, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []Status
	for _, id := range slices.Sorted(maps.Keys(l.procs)) {
		if p := l.procs[id]; p.started {
			list = append(list, p.status())
		}
	}
	return list, nil
}

// Wait implements Runner.
func (l *Local) Wait(ctx context.Context, id string) (Exit, error) {
	p, err := l.find(id)
	if err != nil {
		return Exit{}, err
	}
	select {
	case <-p.ended:
		return p.exit, nil
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("wait for process %s: %w", id, context.Cause(ctx))
	}
}

// AtEnd calls f once with how the process has ended, at once if it has; it is a
// Wait that needs no goroutine. f must not block, nor call the runner. cancel
// takes it back; f may be under way then. errdefs.ErrNotFound as of Wait.
func (l *Local) AtEnd(id string, f func(Exit)) (cancel func(), err error) {
	p, err := l.find(id)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-p.ended:
		f(p.exit)
		return func() {}, nil
	default:
	}
	p.atEnd = append(p.atEnd, &f)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		p.atEnd = slices.DeleteFunc(p.atEnd, func(other *func(Exit)) bool { return other == &f })
	}, nil
}

// tellEnd makes the calls of AtEnd, after ended was closed.
func (l *Local) tellEnd(p *proc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range p.atEnd {
		(*f)(p.exit)
	}
	p.atEnd = nil
}

// Forget implements Runner.
func (l *Local) Forget(_ context.Context, id string) error {
	if err := l.deleteForeign(id); err != nil {
		return err
	}
	l.watch.mu.Lock()
	defer l.watch.mu.Unlock()
	p, err := l.drop(id)
	if p != nil {
		l.watch.forget(p)
	}
	return err
}

func (l *Local) drop(id string) (*proc, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.procs[id]
	if !ok {
		return nil, nil
	}
	if !p.started || p.status().Running {
		return nil, fmt.Errorf("forget process %s: it runs: %w", id, errdefs.ErrConflict)
	}
	delete(l.procs, id)
	return p, nil
}
