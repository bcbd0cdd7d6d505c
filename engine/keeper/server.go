package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/logging"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// server is a running keeper.
type server struct {
	log     zerolog.Logger
	options ServeOptions
	runner  *process.Local
	guard   *process.Guard // nil without
	started time.Time
	tasks   sync.WaitGroup // one for each connection, and watchers

	leaving context.Context //nolint:containedctx // ends when no request is taken any more
	leave   context.CancelCauseFunc

	mu    sync.Mutex
	conns map[*net.UnixConn]struct{} // guarded by mu
	last  time.Time                  // guarded by mu: when a client was last seen
}

// Why a server has stopped serving.
type reason int

const (
	leftByCaller   reason = iota // its context has ended
	leftIdle                     // there was nothing to keep
	leftByGuard                  // the guard has ended
	leftForAnother               // another program is to serve
)

func (r reason) Error() string {
	return [...]string{"told to end", "nothing to keep", "guard has ended", "another program takes over"}[r]
}

func newServer(o ServeOptions, runner *process.Local, guard *process.Guard) *server {
	return &server{
		log: o.Log, options: o, runner: runner, guard: guard,
		conns: map[*net.UnixConn]struct{}{}, started: time.Now(), last: time.Now(),
	}
}

// serve answers clients until there is a reason to leave.
func (s *server) serve(ctx context.Context) (reason, error) {
	listener, err := listen(s.options.Socket)
	if err != nil {
		return 0, err
	}
	s.leaving, s.leave = context.WithCancelCause(ctx)
	// Requests go on when this keeper makes room for another.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	stop := context.AfterFunc(s.leaving, func() {
		_ = listener.Close() // unlinks the socket
		s.hurry()
	})
	defer stop()
	if s.options.IdleExit > 0 {
		s.tasks.Go(func() { s.watchIdle(s.options.IdleExit) })
	}
	if s.guard != nil {
		s.tasks.Go(s.watchGuard)
	}
	s.log.Info().Str("socket", s.options.Socket).Msg("keeper serves")
	err = s.accept(work, listener)
	s.leave(leftByCaller)
	why := leftByCaller
	_ = errors.As(context.Cause(s.leaving), &why)
	s.log.Info().Str("reason", why.Error()).Msg("keeper stops serving")
	if why == leftByCaller || why == leftIdle {
		stopWork()
	}
	s.finishTasks()
	return why, err
}

// finishTasks waits for requests under way, for a while.
func (s *server) finishTasks() {
	if s.guard != nil {
		_ = s.guard.Release()
	}
	done := make(chan struct{})
	go func() { // ends with the process if tasks do not
		defer close(done)
		s.tasks.Wait()
	}()
	select {
	case <-done:
	case <-time.After(leaveGrace):
		s.log.Warn().Msg("requests are cut off")
	}
}

func (s *server) accept(work context.Context, listener *net.UnixListener) error {
	for {
		conn, err := listener.AcceptUnix()
		if s.leaving.Err() != nil {
			if conn != nil {
				_ = conn.Close()
			}
			return nil
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			s.log.Error().Err(err).Msg("connection refused")
			select {
			case <-s.leaving.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		s.add(conn)
		s.tasks.Go(func() { s.handle(work, conn) })
	}
}

func (s *server) add(c *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	if s.leaving.Err() != nil {
		_ = c.SetReadDeadline(time.Now())
	}
}

func (s *server) remove(c *net.UnixConn) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.last = time.Now()
}

// hurry ends what waits for clients, and waits of theirs.
func (s *server) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.SetReadDeadline(time.Now())
	}
}

// watchIdle leaves after limit without processes and clients.
func (s *server) watchIdle(limit time.Duration) {
	tick := time.NewTicker(max(limit/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-s.leaving.Done():
			return
		case <-tick.C:
		}
		list, err := s.runner.List(s.leaving)
		s.mu.Lock()
		if err != nil || len(list) > 0 || len(s.conns) > 0 {
			s.last = time.Now()
		}
		idle := time.Since(s.last)
		s.mu.Unlock()
		if idle >= limit {
			s.leave(leftIdle)
			return
		}
	}
}

// watchGuard leaves when the guard has ended.
func (s *server) watchGuard() {
	if s.guard.Await() == nil {
		s.leave(leftByGuard)
	}
}

// handle serves one connection, and closes it.
func (s *server) handle(ctx context.Context, conn *net.UnixConn) {
	waits := false
	defer func() {
		if !waits {
			s.remove(conn)
		}
	}()
	if err := checkPeer(conn); err != nil {
		s.log.Warn().Err(err).Msg("client refused")
		return
	}
	var req request
	files, err := receive(conn, &req)
	if err != nil {
		if s.leaving.Err() == nil {
			_ = send(conn, response{Error: toWire(err)}, nil)
		}
		return
	}
	defer linux.CloseAll(files)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if req.Op == opStart {
		s.tasks.Go(func() { watchCancel(conn, cancel) })
	}
	if req.Op == opConsole && req.Version == Version {
		s.console(ctx, conn, req.ID, req.History)
		return
	}
	if req.Op == opWait && req.Version == Version {
		// A stack that has grown is not given back while its goroutine waits.
		waits = true
		id := req.ID
		s.tasks.Go(func() {
			defer s.remove(conn)
			s.wait(conn, id)
		})
		return
	}
	res := s.answer(ctx, &req, files)
	if res.Error != nil {
		s.log.Debug().Str(logging.Container, req.ID).Str(logging.Method, req.Op).Str("error", res.Error.Text).Msg("request failed")
	}
	_ = send(conn, res, nil) // a client that is gone asks again
	switch {
	case res.Error != nil:
	case req.Op == opAttach:
		_, _ = receive(conn, &request{}) // until the client or the keeper ends
	case req.Op == opReplace:
		s.leave(leftForAnother)
	}
}

// checkPeer lets in root and the keeper's own user.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var got error
	if err := raw.Control(func(fd uintptr) {
		cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if got != nil {
		return os.NewSyscallError("getsockopt SO_PEERCRED", got)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("client with uid %d: %w", cred.Uid, errdefs.ErrForbidden)
	}
	return nil
}

// wait answers when the process has ended. It ends without an answer when the
// client does, which may have been killed, and when this keeper is to end: the
// client asks the next one.
func (s *server) wait(conn *net.UnixConn, id string) {
	var exit atomic.Pointer[process.Exit]
	cancel, err := s.runner.AtEnd(id, func(e process.Exit) {
		exit.Store(&e)
		_ = conn.SetReadDeadline(time.Now()) // wakes what is below
	})
	if err != nil {
		_ = send(conn, response{Error: toWire(err)}, nil)
		return
	}
	_ = awaitMessage(conn)
	cancel()
	if e := exit.Load(); e != nil {
		_ = send(conn, response{Exit: e}, nil)
	}
}

// watchCancel ends when the connection does. A client that is killed does not
// cancel a start.
func watchCancel(conn *net.UnixConn, cancel func()) {
	var req request
	files, err := receive(conn, &req)
	linux.CloseAll(files)
	if err == nil && req.Op == opCancel {
		cancel()
	}
}
