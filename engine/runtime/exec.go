package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-project/gantry/engine/oci"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// ExecRequest says what to run in a container and how the caller is connected
// to it.
type ExecRequest struct {
	ID string
	// Process makes the process object out of the container's own one, which
	// it may change and return.
	Process func(own *specs.Process) (*specs.Process, error)
	// The following are as in RunRequest.
	Detach        bool
	PidFile       string
	ConsoleSocket string
	Stdio         [3]*os.File
	Preserve      []*os.File
	Listen        int
	Signals       <-chan os.Signal
	Terminal      *os.File
}

// Exec runs a process in a container that runs or waits for its start, under
// the container's filter and in its control group, and returns the exit status
// as Run does. errdefs.ErrConflict when the container is stopped or paused.
func (r *Runtime) Exec(ctx context.Context, req ExecRequest) (int, error) {
	rec, err := r.load(req.ID)
	if err != nil {
		return 0, err
	}
	switch status := r.status(ctx, rec); status {
	case Running, Created:
	case Stopped:
		return 0, fmt.Errorf("exec in container %s: cannot exec in a stopped container: %w", req.ID, errdefs.ErrConflict)
	default:
		return 0, fmt.Errorf("exec in container %s: cannot exec in a %s container: %w", req.ID, status, errdefs.ErrConflict)
	}
	s := session{Runtime: r, req: req, rec: rec}
	defer func() { linux.CloseAll(s.files) }()
	code, err := s.run(ctx)
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", req.ID, err)
	}
	return code, nil
}

// session is an exec on its way.
type session struct {
	*Runtime
	req   ExecRequest
	rec   *record
	spec  process.Spec
	relay *relay
	files []*os.File
}

func (s *session) run(ctx context.Context) (int, error) {
	if err := s.compose(); err != nil {
		return 0, err
	}
	defer s.relay.close()
	g, err := s.group(ctx, s.rec)
	if err != nil {
		return 0, err
	}
	files, err := joinFiles(&s.spec, g)
	s.files = append(s.files, files...)
	if err != nil {
		return 0, err
	}
	runner, err := s.runner()
	if err != nil {
		return 0, err
	}
	s.spec.Join = s.name(s.req.ID)
	if err := runner.Adopt(s.spec.Join, s.rec.Process); err != nil {
		return 0, err
	}
	session := s.name("exec in " + s.req.ID)
	p, err := runner.Start(ctx, session, s.spec)
	if err != nil {
		return 0, err
	}
	if err := writePid(s.req.PidFile, p.Pid); err != nil {
		return 0, errors.Join(err, runner.Signal(ctx, session, sigkill))
	}
	if s.req.Detach {
		return 0, nil
	}
	exit, err := attend(ctx, runner, session, s.req.Signals, s.relay)
	return exit.Code, err
}

// compose makes the Spec of the session but for what needs the host.
func (s *session) compose() error {
	spec, err := s.config(s.req.ID)
	if err != nil {
		return err
	}
	own, err := s.req.Process(spec.Process)
	if err != nil {
		return err
	}
	conf, err := oci.Convert(withProcess(spec, own), s.rec.Bundle, s.host())
	if err != nil {
		return err
	}
	warnings := []string(nil)
	if s.spec, warnings, err = oci.ConvertProcess(own, s.host(), s.rec.UserNS); err != nil {
		return err
	}
	for _, w := range warnings {
		s.log.Warn().Str("container", s.req.ID).Msg(w)
	}
	s.spec.Seccomp, s.spec.SeccompFlags = conf.Process.Seccomp, conf.Process.SeccompFlags
	s.spec.Personality = conf.Process.Personality
	if s.spec.Scheduler == nil {
		s.spec.Scheduler = conf.Process.Scheduler
	}
	return s.connect(conf)
}

// withProcess is spec for another process.
func withProcess(spec *specs.Spec, p *specs.Process) *specs.Spec {
	c := *spec
	c.Process = p
	return &c
}

func (s *session) connect(conf *oci.Container) error {
	relayed := !s.req.Detach && s.req.ConsoleSocket == ""
	f, err := consoleSocket(s.spec.Terminal, relayed, s.req.ConsoleSocket)
	if err != nil {
		return err
	}
	if f != nil {
		s.files = append(s.files, f)
		s.spec.ConsoleSocket = f
	}
	if relayed && s.spec.Terminal {
		if s.relay, err = newRelay(s.req.Terminal); err != nil {
			return err
		}
		s.spec.ConsoleSocket = s.relay.theirs
	}
	if !s.spec.Terminal {
		s.spec.Stdio = s.req.Stdio
	}
	s.spec.Preserve = s.req.Preserve
	if s.req.Listen > 0 {
		s.spec.Env = append(s.spec.Env, "LISTEN_FDS="+strconv.Itoa(s.req.Listen))
	}
	if conf.ListenerPath == "" {
		return nil
	}
	if s.spec.SeccompListener, err = dial(conf.ListenerPath); err != nil {
		return fmt.Errorf("connect to linux.seccomp.listenerPath: %w", err)
	}
	s.files = append(s.files, s.spec.SeccompListener)
	s.spec.SeccompState, err = listenerState(conf.ListenerMetadata, specs.State{
		Version: oci.Version(), ID: s.rec.ID, Status: Running, Pid: s.rec.Process.Pid, Bundle: s.rec.Bundle, Annotations: s.rec.Annotations,
	})
	return err
}
