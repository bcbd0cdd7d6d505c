package keeper

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// answer does what a request asks for.
func (s *server) answer(ctx context.Context, req *request, files []*os.File) response {
	var res response
	if err := s.do(ctx, req, files, &res); err != nil {
		return response{Error: toWire(err)}
	}
	return res
}

func (s *server) do(ctx context.Context, req *request, files []*os.File, res *response) (err error) {
	if req.Version != Version && req.Op != opHello && req.Op != opReplace {
		return fmt.Errorf("keeper speaks version %d, client %d: %w", Version, req.Version, errdefs.ErrUnsupported)
	}
	switch req.Op {
	case opHello, opAttach:
		res.Hello, err = s.hello(ctx)
	case opStart:
		return s.start(ctx, req, files, res)
	case opSignal:
		return s.runner.Signal(ctx, req.ID, req.Signal)
	case opStatus:
		st, err := s.runner.Status(ctx, req.ID)
		res.Status = &st
		return err
	case opList:
		res.List, err = s.runner.List(ctx)
	case opForget:
		return s.runner.Forget(ctx, req.ID)
	case opResize:
		return s.runner.Resize(ctx, req.ID, req.Rows, req.Columns)
	case opReplace:
		return s.prepareReplacement(req.Command, req.Env)
	default:
		return fmt.Errorf("unknown request %q: %w", req.Op, errdefs.ErrUnsupported)
	}
	return err
}

func (s *server) hello(ctx context.Context) (*Hello, error) {
	list, err := s.runner.List(ctx)
	if err != nil {
		return nil, err
	}
	h := &Hello{Version: Version, Pid: os.Getpid(), Processes: len(list), Build: s.options.Build, Started: s.started}
	if s.guard != nil {
		h.Guard = s.guard.Pid()
		if h.Command, _, err = s.guard.Command(); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (s *server) start(ctx context.Context, req *request, files []*os.File, res *response) error {
	if req.Spec == nil {
		return fmt.Errorf("start without a spec: %w", errdefs.ErrInvalid)
	}
	spec := *req.Spec
	if err := spec.SetFiles(files); err != nil {
		return err
	}
	p, err := s.runner.Start(ctx, req.ID, spec)
	res.Process = &p
	return err
}

// prepareReplacement says what this process is to become.
func (s *server) prepareReplacement(command, env []string) error {
	if s.guard == nil {
		return fmt.Errorf("replace keeper: it has no guard: %w", errdefs.ErrUnsupported)
	}
	if len(command) == 0 || !filepath.IsAbs(command[0]) {
		return fmt.Errorf("replace keeper: command %q is not an absolute path: %w", command, errdefs.ErrInvalid)
	}
	info, err := os.Stat(command[0])
	if err == nil && !info.Mode().IsRegular() {
		err = unix.EACCES
	}
	if err == nil {
		err = unix.Access(command[0], unix.X_OK)
	}
	if err != nil {
		return fmt.Errorf("replace keeper: %s: %w: %w", command[0], err, errdefs.ErrInvalid)
	}
	if err := s.guard.Prepare(command, env); err != nil {
		return fmt.Errorf("replace keeper: %w", err)
	}
	return nil
}
