package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/internal/logging"
)

// ExecRequest describes a command to run beside a container's first process.
type ExecRequest struct {
	// Args is the command; Args[0] without a slash is looked for in PATH.
	Args []string
	// Env is added to the environment that the container was started with.
	Env []string
	// Cwd and User are as in an image's configuration; empty means those of
	// the container.
	Cwd, User string
	// Terminal gives the command a terminal of the container's own. Its master
	// is sent to Console, a connected unix socket, as an SCM_RIGHTS message;
	// the terminal hangs up when nobody has the master open any more.
	Terminal      bool
	Rows, Columns uint16
	Console       *os.File
	// Stdio are stdin, stdout and stderr without a terminal; nil is the null
	// device. They are the caller's to close, whatever happens.
	Stdio [3]*os.File
}

// ExecState is what is known of an exec session.
type ExecState struct {
	// ID names the session within its container.
	ID        string
	Container ContainerID
	Args      []string
	Process   process.Process
	Running   bool
	// Exit is set when it has ended. Known is false when nobody saw how.
	Exit ExitState
	// Started is zero for a session that an earlier engine has started.
	Started time.Time
}

// keptExecs is how many ended sessions of a container are remembered.
const keptExecs = 32

// sessions are the exec sessions of all containers. The zero value is ready.
type sessions struct {
	mu sync.Mutex
	m  map[ContainerID][]*session // guarded by mu, oldest first
}

// session is one exec session. Fields do not change, but for exit.
type session struct {
	id, runner string
	container  ContainerID
	args       []string
	process    process.Process
	started    time.Time
	exit       ExitState     // valid once done is closed
	done       chan struct{} // closed at the end
}

func (s *session) running() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

func (s *session) state() ExecState {
	st := ExecState{ID: s.id, Container: s.container, Args: s.args, Process: s.process, Started: s.started, Running: s.running()}
	if !st.Running {
		st.Exit = s.exit
	}
	return st
}

// runnerID is what the runner calls a session. A container's id holds no dot.
func runnerID(id ContainerID, exec string) string { return string(id) + "." + exec }

// splitRunnerID is the reverse; ok is false for the id of a first process.
func splitRunnerID(name string) (id ContainerID, exec string, ok bool) {
	before, after, ok := strings.Cut(name, ".")
	return ContainerID(before), after, ok
}

// add remembers a session and forgets the oldest ended one when there are many.
func (x *sessions) add(s *session) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.m == nil {
		x.m = map[ContainerID][]*session{}
	}
	list := append(x.m[s.container], s)
	ended := 0
	for _, old := range list {
		if !old.running() {
			ended++
		}
	}
	if ended > keptExecs {
		i := slices.IndexFunc(list, func(old *session) bool { return !old.running() })
		list = slices.Delete(list, i, i+1)
	}
	x.m[s.container] = list
}

func (x *sessions) list(id ContainerID) []*session {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.m[id])
}

func (x *sessions) find(id ContainerID, exec string) (*session, error) {
	for _, s := range x.list(id) {
		if s.id == exec {
			return s, nil
		}
	}
	return nil, fmt.Errorf("exec session %.64q of container %s: %w", exec, id, errdefs.ErrNotFound)
}

// drop forgets the sessions of a container that is gone.
func (x *sessions) drop(id ContainerID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.m, id)
}

// Exec runs a command in a running container, confined as its first process
// is, and returns when it has been executed. errdefs.ErrConflict: the container
// does not run, or is paused; errdefs.ErrInvalid: the request, or the command
// cannot be executed. On error no process is left. The session ends with the
// container at the latest; it does not end with ctx.
func (e *Engine) Exec(ctx context.Context, id ContainerID, req ExecRequest) (ExecState, error) {
	if err := req.check(); err != nil {
		return ExecState{}, fmt.Errorf("exec in container %s: %w", id, err)
	}
	s := &session{id: strings.ToLower(rand.Text()[:12]), container: id, args: slices.Clone(req.Args), done: make(chan struct{})}
	s.runner = runnerID(id, s.id)
	if err := failpoint.Hit("engine.exec.begin"); err != nil {
		return ExecState{}, fmt.Errorf("exec in container %s: %w", id, err)
	}
	for try := 1; ; try++ {
		system, err := e.startSession(ctx, s, req)
		if err == nil {
			break
		}
		if !system || try == startTries || !wait(ctx, startPause) {
			return ExecState{}, fmt.Errorf("exec in container %s: %w", id, err)
		}
	}
	s.started = time.Now()
	if err := failpoint.Hit("engine.exec.started"); err != nil {
		err = errors.Join(err, e.opts.Runner.Signal(ctx, s.runner, int(unix.SIGKILL)), e.reap(ctx, ContainerID(s.runner)))
		return ExecState{}, fmt.Errorf("exec in container %s: %w", id, err)
	}
	e.exec.add(s)
	e.bus.Publish(Event{Kind: EventExec, ID: id, Exec: s.id})
	e.watchExec(s)
	return s.state(), nil
}

func (r ExecRequest) check() error {
	switch {
	case len(r.Args) == 0 || r.Args[0] == "":
		return fmt.Errorf("no command: %w", errdefs.ErrInvalid)
	case r.Terminal && r.Console == nil:
		return fmt.Errorf("a terminal without a socket to send it to: %w", errdefs.ErrInvalid)
	case r.Terminal && r.Stdio != [3]*os.File{}:
		return fmt.Errorf("a terminal and other files at once: %w", errdefs.ErrInvalid)
	case r.Cwd != "" && !strings.HasPrefix(r.Cwd, "/"):
		return fmt.Errorf("working directory %.128q is not absolute: %w", r.Cwd, errdefs.ErrInvalid)
	}
	for _, text := range slices.Concat(r.Args, r.Env, []string{r.Cwd, r.User}) {
		if strings.ContainsRune(text, 0) {
			return fmt.Errorf("a NUL in %.128q: %w", text, errdefs.ErrInvalid)
		}
	}
	for _, entry := range r.Env {
		if name, _, ok := strings.Cut(entry, "="); !ok || name == "" {
			return fmt.Errorf("environment %.128q is not NAME=VALUE: %w", entry, errdefs.ErrInvalid)
		}
	}
	return nil
}

// execSpec turns the request into what the runner runs, and returns the end of
// the container's present process. The caller closes the control group's files.
func (e *Engine) execSpec(ctx context.Context, id ContainerID, req ExecRequest) (spec process.Spec, files []*os.File, done chan struct{}, err error) {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return spec, nil, nil, err
	}
	defer unlock()
	switch {
	case !c.running:
		return spec, nil, nil, fmt.Errorf("it does not run: %w", errdefs.ErrConflict)
	case c.paused:
		return spec, nil, nil, fmt.Errorf("it is paused: %w", errdefs.ErrConflict)
	}
	if spec, err = e.sessionSpec(c, req); err != nil {
		return spec, nil, nil, err
	}
	group, err := e.opts.Cgroups.Open(ctx, string(id))
	if err != nil {
		return spec, nil, nil, err
	}
	files, err = bearBeside(&spec, group, c.rec.Session, c.rec.Pid)
	return spec, files, c.done, err
}

// sessionSpec is the pure part of execSpec but for looking up the user.
func (e *Engine) sessionSpec(c *container, req ExecRequest) (process.Spec, error) {
	was := c.rec.Session
	user, cwd := was.User, was.Cwd
	if req.User != "" {
		user = req.User
	}
	if req.Cwd != "" {
		cwd = req.Cwd
	}
	var u process.User
	err := e.lookAt(c, func(root *os.File) (err error) {
		u, err = process.LookupUser(root, user)
		return err
	})
	if err != nil {
		return process.Spec{}, err
	}
	spec := process.Spec{
		Join: c.rec.ID, Args: req.Args, Cwd: cwd, Env: sessionEnv(was.Env, req, u.Home),
		UID: u.UID, GID: u.GID, Groups: u.Groups,
		Terminal: req.Terminal, ConsoleSocket: req.Console, ConsoleRows: req.Rows, ConsoleColumns: req.Columns,
		Stdio: req.Stdio,
	}
	if c.rec.Runtime == "" {
		spec.FinalAffinity = e.shown.processors.list(ContainerID(c.rec.ID))
	}
	return spec, e.confine(&spec, was)
}

// confine gives a session the limits of privilege of a first process.
func (e *Engine) confine(spec *process.Spec, was store.Session) (err error) {
	spec.Capabilities, spec.NoNewPrivs, spec.Seccomp = capabilities, was.NoNewPrivs, e.filter
	spec.Rlimits = rlimits()
	if was.System {
		spec.Capabilities = systemCapabilities
		spec.Seccomp, err = systemFilter()
	}
	if was.Nested && err == nil {
		spec.Capabilities = nestingCapabilities
		spec.Seccomp, err = nestingFilter()
	}
	return err
}

// defaultPath is used when neither container nor request has a PATH.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// sessionEnv is the container's environment with the request's on top; a later
// entry replaces an earlier one of its name.
func sessionEnv(base []string, req ExecRequest, home string) []string {
	all := []string{defaultPath}
	if req.Terminal {
		all = append(all, "TERM=xterm")
	}
	all = slices.Concat(all, base, []string{"HOME=" + home}, req.Env)
	at := map[string]int{}
	var out []string
	for _, entry := range all {
		name, _, _ := strings.Cut(entry, "=")
		if i, ok := at[name]; ok {
			out[i] = entry
			continue
		}
		at[name] = len(out)
		out = append(out, entry)
	}
	return out
}

// Execs lists the sessions of a container, ended ones that are remembered too,
// the oldest first.
func (e *Engine) Execs(ctx context.Context, id ContainerID) ([]ExecState, error) {
	if _, err := e.State(ctx, id); err != nil {
		return nil, err
	}
	var out []ExecState
	for _, s := range e.exec.list(id) {
		out = append(out, s.state())
	}
	return out, nil
}

// ExecWait returns when the session has ended, at once if it has already.
func (e *Engine) ExecWait(ctx context.Context, id ContainerID, exec string) (ExitState, error) {
	s, err := e.exec.find(id, exec)
	if err != nil {
		return ExitState{}, err
	}
	select {
	case <-s.done:
		return s.exit, nil
	case <-ctx.Done():
		return ExitState{}, ctx.Err()
	case <-e.life.Done():
		return ExitState{}, fmt.Errorf("wait for exec session %s: the engine closes: %w", exec, errdefs.ErrUnavailable)
	}
}

// ExecSignal sends a signal to the session's first process;
// errdefs.ErrNotFound if it has ended.
func (e *Engine) ExecSignal(ctx context.Context, id ContainerID, exec string, sig int) error {
	s, err := e.exec.find(id, exec)
	if err != nil {
		return err
	}
	return e.opts.Runner.Signal(ctx, s.runner, sig)
}

// ExecKill ends a session with SIGKILL: its first process and all that are in
// the same session of the kernel (setsid(2)). What has made a session of its
// own stays. An ended one is success.
func (e *Engine) ExecKill(ctx context.Context, id ContainerID, exec string) error {
	s, err := e.exec.find(id, exec)
	if err != nil {
		return err
	}
	if s.running() && e.opts.Runner.Signal(ctx, s.runner, int(unix.SIGSTOP)) == nil {
		e.killMembers(ctx, s)
	}
	err = e.opts.Runner.Signal(ctx, s.runner, int(unix.SIGKILL))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// adoptExec takes over a session that an earlier engine has started.
func (e *Engine) adoptExec(ctx context.Context, st process.Status) {
	id, exec, _ := splitRunnerID(st.ID)
	e.mu.Lock()
	c := e.containers[id]
	e.mu.Unlock()
	if c != nil && c.running {
		s := &session{id: exec, runner: st.ID, container: id, process: st.Process, done: make(chan struct{})}
		e.exec.add(s)
		if st.Running {
			e.watchExec(s)
			return
		}
		// while no engine looked; who waited for it may ask again
		s.exit = ExitState{Exit: st.Exit, Known: true}
		close(s.done)
		if err := e.opts.Runner.Forget(ctx, st.ID); err != nil {
			e.opts.Log.Warn().Err(err).Str(logging.Container, string(id)).Msg("forget exec session")
		}
		return
	}
	// its container has ended, and the kernel has ended it, or is about to
	err := e.opts.Runner.Signal(ctx, st.ID, int(unix.SIGKILL))
	if err == nil || errors.Is(err, errdefs.ErrNotFound) {
		err = e.reap(ctx, ContainerID(st.ID))
	}
	if err != nil {
		e.opts.Log.Warn().Err(err).Str(logging.Container, string(id)).Msg("end exec session")
	}
}
