package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func (s *Server) owner(labels map[string]string) string {
	if s.opts.Owner == nil {
		return ""
	}
	return s.opts.Owner(labels)
}

// flag reads a yes or no of the query.
func flag(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%s=%.32q: %w", name, text, errdefs.ErrInvalid)
	}
	return v, nil
}

// mayChange refuses a change to a container that somebody else decides over.
func (s *Server) mayChange(r *http.Request) (engine.State, error) {
	force, err := flag(r, "force")
	if err != nil {
		return engine.State{}, err
	}
	st, err := s.opts.Backend.State(r.Context(), id(r))
	if err != nil {
		return st, err
	}
	if owner := s.owner(st.Labels); owner != "" && !force {
		return st, fmt.Errorf("container %s belongs to %s: change it there, or force it to repair something: %w", st.ID, owner, errdefs.ErrForbidden)
	}
	return st, nil
}

func (s *Server) info(r *http.Request) (any, error) {
	list, err := s.opts.Backend.List(r.Context())
	if err != nil {
		return nil, err
	}
	info := Info{Program: s.opts.Version, API: Version, Pid: os.Getpid(), Containers: map[engine.Status]int{}}
	for _, st := range list {
		info.Containers[st.Status]++
	}
	return info, nil
}

func (s *Server) list(r *http.Request) (any, error) {
	list, err := s.opts.Backend.List(r.Context())
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b engine.State) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	out := make([]Container, len(list))
	for i, st := range list {
		out[i] = containerOf(st, s.owner(st.Labels))
	}
	return out, nil
}

func (s *Server) container(ctx context.Context, id engine.ContainerID) (any, error) {
	st, err := s.opts.Backend.State(ctx, id)
	if err != nil {
		return nil, err
	}
	return containerOf(st, s.owner(st.Labels)), nil
}

func (s *Server) state(r *http.Request) (any, error) { return s.container(r.Context(), id(r)) }

// defaultPids bounds a container that states no limit: it always has one.
const defaultPids = 4096

// create makes a container and, if it is to be started and is not, removes it
// again.
func (s *Server) create(r *http.Request) (_ any, err error) {
	var req Create
	if err := body(r, &req); err != nil {
		return nil, err
	}
	if s.opts.NoCreate != "" {
		return nil, fmt.Errorf("create container %.64q: %s: %w", req.ID, s.opts.NoCreate, errdefs.ErrForbidden)
	}
	ctx, cid := r.Context(), engine.ContainerID(req.ID)
	var start engine.StartRequest
	if req.Start != nil {
		if start, err = s.startRequest(ctx, req.Image, *req.Start); err != nil {
			return nil, err
		}
	}
	limits := cgroup.Limits{Pids: defaultPids, SwapBytes: -1}
	limits = req.Limits.change().Apply(limits)
	create := engine.CreateRequest{ID: cid, Image: req.Image, Labels: req.Labels, Limits: limits, Disk: req.Limits.disk()}
	if req.Start != nil {
		err = s.opts.Backend.Run(ctx, create, start)
	} else {
		err = s.opts.Backend.Create(ctx, create)
	}
	if err != nil {
		return nil, err
	}
	return s.container(ctx, cid)
}

// startRequest fills in what the image says.
func (s *Server) startRequest(ctx context.Context, ref string, req Start) (engine.StartRequest, error) {
	img, err := s.opts.Backend.Image(ctx, ref)
	if err != nil {
		return engine.StartRequest{}, err
	}
	c := img.Config
	entry, args := c.Entrypoint, c.Cmd
	if len(req.Entrypoint) > 0 {
		entry, args = req.Entrypoint, nil
	}
	if len(req.Args) > 0 {
		args = req.Args
	}
	out := engine.StartRequest{
		Hostname: req.Hostname, Args: slices.Concat(entry, args), Env: slices.Concat(c.Env, req.Env),
		Candidates: [][]string{{"/sbin/init"}, {"/bin/sh"}},
		Cwd:        cmp.Or(req.Cwd, c.WorkingDir), User: cmp.Or(req.User, c.User),
		NoNewPrivs: req.NoNewPrivs, Profile: req.Profile, Nesting: req.Nesting, ConsoleBytes: req.ConsoleBytes,
	}
	if !slices.ContainsFunc(out.Env, func(e string) bool { return len(e) > 5 && e[:5] == "PATH=" }) {
		out.Env = append(out.Env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	return out, nil
}

func (s *Server) start(r *http.Request) (any, error) {
	var req Start
	if err := body(r, &req); err != nil {
		return nil, err
	}
	st, err := s.mayChange(r)
	if err != nil {
		return nil, err
	}
	start, err := s.startRequest(r.Context(), st.Image, req)
	if err != nil {
		return nil, err
	}
	if err := s.opts.Backend.Start(r.Context(), st.ID, start); err != nil {
		return nil, err
	}
	return s.container(r.Context(), st.ID)
}

// maxTimeout bounds what a stop may wait, in seconds.
const maxTimeout = 24 * 3600

func (s *Server) stopOne(r *http.Request) (any, error) {
	var req Stop
	if err := body(r, &req); err != nil {
		return nil, err
	}
	if req.Timeout < 0 || req.Timeout > maxTimeout || req.Signal < 0 || req.Signal > 64 {
		return nil, fmt.Errorf("timeout %g s, signal %d: %w", req.Timeout, req.Signal, errdefs.ErrInvalid)
	}
	st, err := s.mayChange(r)
	if err != nil {
		return nil, err
	}
	timeout := time.Duration(req.Timeout * float64(time.Second))
	if err := s.opts.Backend.Stop(r.Context(), st.ID, engine.StopRequest{Signal: req.Signal, Timeout: timeout}); err != nil {
		return nil, err
	}
	return s.container(r.Context(), st.ID)
}

func (s *Server) kill(r *http.Request) (any, error) {
	var req Signal
	if err := body(r, &req); err != nil {
		return nil, err
	}
	st, err := s.mayChange(r)
	if err != nil {
		return nil, err
	}
	return nil, s.opts.Backend.Kill(r.Context(), st.ID, req.Signal)
}

// remove deletes a container; one that runs only with kill=1. Absent is
// errdefs.ErrNotFound: an operator who mistypes an id is to know.
func (s *Server) remove(r *http.Request) (any, error) {
	kill, err := flag(r, "kill")
	if err != nil {
		return nil, err
	}
	st, err := s.mayChange(r)
	if err != nil {
		return nil, err
	}
	if !kill && (st.Status == engine.StatusRunning || st.Status == engine.StatusPaused) {
		return nil, fmt.Errorf("delete container %s: it is %s: stop it first: %w", st.ID, st.Status, errdefs.ErrConflict)
	}
	return nil, s.opts.Backend.Delete(r.Context(), st.ID)
}

func (s *Server) pause(r *http.Request) (any, error) {
	st, err := s.mayChange(r)
	if err != nil {
		return nil, err
	}
	return nil, s.opts.Backend.Pause(r.Context(), st.ID)
}

func (s *Server) resume(r *http.Request) (any, error) {
	st, err := s.mayChange(r)
	if err != nil {
		return nil, err
	}
	return nil, s.opts.Backend.Resume(r.Context(), st.ID)
}

func (s *Server) checkpoint(r *http.Request) (any, error) {
	var req Checkpoint
	if err := body(r, &req); err != nil {
		return nil, err
	}
	st, err := s.mayChange(r)
	if err != nil {
		return nil, err
	}
	return nil, s.opts.Backend.Checkpoint(r.Context(), st.ID, engine.CheckpointRequest{Dir: req.Dir, LeaveRunning: req.LeaveRunning})
}

func (s *Server) restore(r *http.Request) (any, error) {
	var req Restore
	if err := body(r, &req); err != nil {
		return nil, err
	}
	st, err := s.mayChange(r)
	if err != nil {
		return nil, err
	}
	if err := s.opts.Backend.Restore(r.Context(), st.ID, engine.RestoreRequest{Dir: req.Dir, ConsoleBytes: req.ConsoleBytes}); err != nil {
		return nil, err
	}
	return s.container(r.Context(), st.ID)
}

func (s *Server) update(r *http.Request) (any, error) {
	var req Limits
	if err := body(r, &req); err != nil {
		return nil, err
	}
	st, err := s.mayChange(r)
	if err != nil {
		return nil, err
	}
	limits, err := s.opts.Backend.Update(r.Context(), st.ID, req.change())
	if err != nil {
		return nil, err
	}
	return limitsOf(limits).withDisk(req.change().Disk(st.Disk)), nil
}

func (s *Server) wait(r *http.Request) (any, error) {
	exit, err := s.opts.Backend.Wait(r.Context(), id(r))
	if err != nil {
		return nil, err
	}
	return exitOf(exit), nil
}

func (s *Server) top(r *http.Request) (any, error) {
	list, err := s.opts.Backend.Top(r.Context(), id(r))
	if err != nil {
		return nil, err
	}
	out := make([]Process, len(list))
	for i, p := range list {
		out[i] = Process{
			Pid: p.Pid, Parent: p.Parent, HostPid: p.HostPid, UID: p.UID, State: p.State,
			CPU: p.CPUTime.Seconds(), Memory: p.MemoryBytes, Args: p.Args,
		}
	}
	return out, nil
}
