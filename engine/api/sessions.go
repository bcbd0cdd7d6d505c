package api

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/logging"
)

func (s *Server) execs(r *http.Request) (any, error) {
	list, err := s.opts.Backend.Execs(r.Context(), id(r))
	if err != nil {
		return nil, err
	}
	out := make([]Session, len(list))
	for i, st := range list {
		out[i] = sessionOf(st)
	}
	return out, nil
}

func (s *Server) execWait(r *http.Request) (any, error) {
	exit, err := s.opts.Backend.ExecWait(r.Context(), id(r), r.PathValue("exec"))
	if err != nil {
		return nil, err
	}
	return exitOf(exit), nil
}

// execKill sends a signal; none ends the whole session.
func (s *Server) execKill(r *http.Request) (any, error) {
	var req Signal
	if err := body(r, &req); err != nil {
		return nil, err
	}
	if req.Signal < 0 || req.Signal > 64 {
		return nil, fmt.Errorf("signal %d: %w", req.Signal, errdefs.ErrInvalid)
	}
	if req.Signal == 0 {
		return nil, s.opts.Backend.ExecKill(r.Context(), id(r), r.PathValue("exec"))
	}
	return nil, s.opts.Backend.ExecSignal(r.Context(), id(r), r.PathValue("exec"), req.Signal)
}

// exec runs a command with the client's files: stdin, stdout and stderr, or a
// socket that takes the master of a new terminal.
func (s *Server) exec(w http.ResponseWriter, r *http.Request) error {
	var req Exec
	if err := body(r, &req); err != nil {
		return err
	}
	// what is wrong already is a response
	st, err := s.opts.Backend.State(r.Context(), id(r))
	if err != nil {
		return err
	}
	if st.Status != engine.StatusRunning {
		return fmt.Errorf("exec in container %s: it is %s: %w", st.ID, st.Status, errdefs.ErrConflict)
	}
	ch, files, err := upgrade(w, r)
	if err != nil {
		return err
	}
	s.hijacked.Add(1)
	defer s.hijacked.Done()
	defer ch.close()
	session, err := s.begin(r.Context(), st.ID, req, files)
	linux.CloseAll(files)
	if err != nil {
		f, _ := failureOf(err)
		return ch.tell(report{Error: f})
	}
	doc := sessionOf(session)
	_ = ch.tell(report{Session: &doc}) // a client that is gone is seen below
	s.attend(ch, st.ID, session.ID, req.Detach)
	return nil
}

// begin starts the session with the client's files.
func (s *Server) begin(ctx context.Context, id engine.ContainerID, req Exec, files []*os.File) (engine.ExecState, error) {
	er := engine.ExecRequest{
		Args: req.Args, Env: req.Env, Cwd: req.Cwd, User: req.User, Terminal: req.Terminal, Rows: req.Rows, Columns: req.Columns,
	}
	switch {
	case req.Terminal && len(files) == 1:
		er.Console = files[0]
	case !req.Terminal && len(files) == 3:
		er.Stdio = [3]*os.File(files)
	default:
		return engine.ExecState{}, fmt.Errorf("exec in container %s: %d files: %w", id, len(files), errdefs.ErrInvalid)
	}
	return s.opts.Backend.Exec(ctx, id, er)
}

// attend stays with a session until it has ended, which it tells, or until the
// client is gone, which ends the session unless it was to be left.
func (s *Server) attend(ch *channel, id engine.ContainerID, exec string, detach bool) {
	// a hijacked request's context does not end with the connection
	ctx, cancel := context.WithCancel(s.life)
	defer cancel()
	gone := make(chan bool, 1) // true: the session is to be left
	go func() {
		for {
			var cmd command
			if err := ch.hear(&cmd); err != nil {
				gone <- detach
				cancel()
				return
			}
			detach = detach || cmd.Detach
			if cmd.Signal > 0 {
				_ = s.opts.Backend.ExecSignal(ctx, id, exec, cmd.Signal) // it may have ended
			}
		}
	}()
	exit, err := s.opts.Backend.ExecWait(ctx, id, exec)
	switch {
	case err == nil:
		_ = ch.tell(report{Exit: exitOf(exit)}) // nobody is left to be told
	case ctx.Err() == nil:
		f, _ := failureOf(err)
		_ = ch.tell(report{Error: f})
	case s.life.Err() != nil: // the service ends, sessions go on as containers do
	case !<-gone:
		if err := s.opts.Backend.ExecKill(context.WithoutCancel(ctx), id, exec); err != nil {
			s.opts.Log.Warn().Err(err).Str(logging.Container, string(id)).Msg("end the session of a client that is gone")
		}
	}
}
