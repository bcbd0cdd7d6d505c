package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/logging"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// ServeOptions of Serve.
type ServeOptions struct {
	// Socket is an absolute path. Its directory is made with mode 0700 if
	// absent, and refused if others than its owner may enter it.
	Socket string
	Log    zerolog.Logger
	// IdleExit ends Serve when no process has been known and no client been
	// connected for so long; 0 never. A client from Ensure stays connected.
	IdleExit time.Duration
	// OwnsProcess says that the calling process does nothing else: Serve then
	// tunes the garbage collector for little memory.
	OwnsProcess bool
}

// server is a running keeper.
type server struct {
	log    zerolog.Logger
	runner *process.Local
	tasks  sync.WaitGroup

	mu    sync.Mutex
	conns map[*net.UnixConn]struct{} // guarded by mu
	last  time.Time                  // guarded by mu: when a client was last seen
}

// Serve keeps processes for the clients of a socket until ctx ends or it has
// been idle for long enough; then it returns nil. Processes that still run are
// left running, but their consoles end. If another keeper serves the socket
// the error is errdefs.ErrAlreadyExists.
//
// Only root and the keeper's own user are served.
func Serve(ctx context.Context, o ServeOptions) error {
	if err := prepareDirectory(o.Socket); err != nil {
		return fmt.Errorf("serve keeper: %w", err)
	}
	lock, err := takeLock(o.Socket + ".lock")
	if err != nil {
		return fmt.Errorf("serve keeper on %s: %w", o.Socket, err)
	}
	defer func() { _ = lock.Close() }()
	if o.OwnsProcess {
		tune()
	}
	runner, err := process.New(process.Options{Log: o.Log})
	if err != nil {
		return fmt.Errorf("serve keeper: %w", err)
	}
	s := &server{log: o.Log, runner: runner, conns: map[*net.UnixConn]struct{}{}, last: time.Now()}
	return errors.Join(s.serve(ctx, o), runner.Close())
}

func prepareDirectory(socket string) error {
	if !filepath.IsAbs(socket) {
		return fmt.Errorf("socket %q is not an absolute path: %w", socket, errdefs.ErrInvalid)
	}
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("directory %s has mode %#o, want 0700: %w", dir, info.Mode().Perm(), errdefs.ErrForbidden)
	}
	return nil
}

// takeLock locks a file for as long as it is open; errdefs.ErrAlreadyExists
// and nil when somebody else holds the lock.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errdefs.ErrAlreadyExists
		}
		return nil, err
	}
	return f, nil
}

// tune trades processor time, of which a keeper uses next to none, for memory.
// It also grows the table of descriptors once: the kernel waits about 10 ms
// for each growth of a process with threads.
func tune() {
	debug.SetGCPercent(20)
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 1000); err == nil {
		_ = unix.Close(fd)
	}
}

func (s *server) serve(ctx context.Context, o ServeOptions) error {
	if err := os.Remove(o.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: o.Socket, Net: "unix"})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer s.tasks.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		_ = listener.Close() // unlinks the socket
		s.closeConns()
	})
	defer stop()
	if o.IdleExit > 0 {
		s.tasks.Go(func() { s.watchIdle(ctx, o.IdleExit, cancel) })
	}
	s.log.Info().Str("socket", o.Socket).Msg("keeper serves")
	for {
		conn, err := listener.AcceptUnix()
		if ctx.Err() != nil {
			if conn != nil {
				_ = conn.Close()
			}
			return nil
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			s.log.Error().Err(err).Msg("connection refused")
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		s.add(conn)
		s.tasks.Go(func() {
			defer s.remove(conn)
			s.handle(ctx, conn)
		})
	}
}

func (s *server) add(c *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
}

func (s *server) remove(c *net.UnixConn) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.last = time.Now()
}

func (s *server) closeConns() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.SetReadDeadline(time.Now())
	}
}

// watchIdle calls cancel after limit without processes and clients.
func (s *server) watchIdle(ctx context.Context, limit time.Duration, cancel func()) {
	tick := time.NewTicker(max(limit/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		list, err := s.runner.List(ctx)
		s.mu.Lock()
		if err != nil || len(list) > 0 || len(s.conns) > 0 {
			s.last = time.Now()
		}
		idle := time.Since(s.last)
		s.mu.Unlock()
		if idle >= limit {
			s.log.Info().Msg("keeper ends: nothing to keep")
			cancel()
			return
		}
	}
}

// handle serves one connection.
func (s *server) handle(ctx context.Context, conn *net.UnixConn) {
	if err := checkPeer(conn); err != nil {
		s.log.Warn().Err(err).Msg("client refused")
		return
	}
	var req request
	files, err := receive(conn, &req)
	if err != nil {
		_ = send(conn, response{Error: toWire(err)}, nil)
		return
	}
	defer linux.CloseAll(files)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if req.Op == opStart || req.Op == opWait {
		s.tasks.Go(func() { watchCancel(conn, req.Op, cancel) })
	}
	res := s.answer(ctx, &req, files)
	if res.Error != nil {
		s.log.Debug().Str(logging.Container, req.ID).Str(logging.Method, req.Op).Str("error", res.Error.Text).Msg("request failed")
	}
	_ = send(conn, res, nil) // a client that is gone asks again
	if req.Op == opAttach && res.Error == nil {
		_, _ = receive(conn, &request{}) // until the client or the keeper ends
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

// watchCancel ends when the connection does. A client that is killed cancels
// its wait, but never a start.
func watchCancel(conn *net.UnixConn, op string, cancel func()) {
	var req request
	files, err := receive(conn, &req)
	linux.CloseAll(files)
	if op == opWait || err == nil && req.Op == opCancel {
		cancel()
	}
}

// answer does what a request asks for.
func (s *server) answer(ctx context.Context, req *request, files []*os.File) response {
	var res response
	err := func() error {
		if req.Version != Version {
			return fmt.Errorf("keeper speaks version %d, client %d: %w", Version, req.Version, errdefs.ErrUnsupported)
		}
		switch req.Op {
		case opHello, opAttach:
			list, err := s.runner.List(ctx)
			res.Hello = &Hello{Version: Version, Pid: os.Getpid(), Processes: len(list)}
			return err
		case opStart:
			if req.Spec == nil {
				return fmt.Errorf("start without a spec: %w", errdefs.ErrInvalid)
			}
			spec := *req.Spec
			spec.CgroupFiles = files
			p, err := s.runner.Start(ctx, req.ID, spec)
			res.Process = &p
			return err
		case opSignal:
			return s.runner.Signal(ctx, req.ID, req.Signal)
		case opStatus:
			st, err := s.runner.Status(ctx, req.ID)
			res.Status = &st
			return err
		case opList:
			var err error
			res.List, err = s.runner.List(ctx)
			return err
		case opWait:
			e, err := s.runner.Wait(ctx, req.ID)
			res.Exit = &e
			return err
		case opForget:
			return s.runner.Forget(ctx, req.ID)
		}
		return fmt.Errorf("unknown request %q: %w", req.Op, errdefs.ErrUnsupported)
	}()
	if err != nil {
		return response{Error: toWire(err)}
	}
	return res
}
