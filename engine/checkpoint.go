package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/gantry-project/gantry/engine/checkpoint"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// CheckpointRequest says where to and how.
type CheckpointRequest struct {
	// Dir is an absolute path of a directory that is made; it holds the memory
	// of the container.
	Dir string
	// LeaveRunning lets the container go on; otherwise it ends, as if it had
	// been asked to.
	LeaveRunning bool
}

// RestoreRequest says where from.
type RestoreRequest struct {
	// Dir is an absolute path of a directory that Checkpoint made.
	Dir string
	// ConsoleBytes is that of StartRequest.
	ConsoleBytes int64
}

// checkpointed is what a checkpoint says of its container, besides criu's images.
type checkpointed struct {
	ID      string        `json:"id"`
	Image   string        `json:"image"`
	IDBase  uint32        `json:"id_base"`
	Args    []string      `json:"args"`
	Session store.Session `json:"session"`
}

// Checkpoint writes the state of a running container's processes by criu, which
// is looked for in PATH; Restore brings them back. Exec sessions are no part of
// it: they go on, or end with the container. The disk is none either: who wants
// to restore leaves it as it is.
//
// errdefs.ErrUnsupported says why it cannot be: no criu, one that is too old, a
// kernel without what it needs, a container of another runtime.
// errdefs.ErrConflict: the container does not run, or is paused. What criu
// refuses (an open TCP connection, say) is an error with its reason. On error the
// container runs on and nothing is written.
func (e *Engine) Checkpoint(ctx context.Context, id ContainerID, req CheckpointRequest) error {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	switch {
	case !c.running:
		err = fmt.Errorf("it does not run: %w", errdefs.ErrConflict)
	case c.paused:
		err = fmt.Errorf("it is paused: %w", errdefs.ErrConflict)
	default:
		err = errors.Join(ownRuntime(c), c.loud())
	}
	if err != nil {
		return fmt.Errorf("checkpoint container %s: %w", id, err)
	}
	tool, err := checkpoint.Probe(ctx, "")
	if err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	caller, err := json.Marshal(checkpointed{
		ID: c.rec.ID, Image: c.rec.Image, IDBase: c.rec.IDBase, Args: c.rec.Args, Session: c.rec.Session,
	})
	if err != nil {
		return err
	}
	err = tool.Dump(ctx, checkpoint.DumpRequest{Pid: c.rec.Pid, Dir: req.Dir, LeaveRunning: req.LeaveRunning, Caller: caller})
	if err != nil {
		return errdefs.WithPublic(fmt.Errorf("container %s: %w", id, err), "The state of the container could not be written.")
	}
	if req.LeaveRunning {
		return nil
	}
	// criu has killed what it has written: the rest, and what is known of it
	if err := e.kill(context.WithoutCancel(ctx), c); err != nil {
		return fmt.Errorf("checkpoint container %s: %w", id, err)
	}
	return nil
}

// Restore starts a container that does not run from a checkpoint of it: its
// processes go on where they were, with their console, limits, rights and system
// call filter; the limits are those of the record. Its disk must hold the files
// that were open as they were. Start without a checkpoint stays possible.
//
// The user and the network namespace are new ones, and the network namespace is
// empty: whoever connects the container to a network does so again, by NetNS.
//
// errdefs.ErrConflict: it runs, or the checkpoint is of another container or of
// another range of user ids. errdefs.ErrNotFound: no checkpoint in Dir.
// errdefs.ErrCorrupt, errdefs.ErrInvalid: its manifest, or Dir, is none.
// errdefs.ErrUnsupported as for Checkpoint. What criu refuses is an error with
// its reason. On error the container is as it was and the checkpoint too.
func (e *Engine) Restore(ctx context.Context, id ContainerID, req RestoreRequest) error {
	c, unlock, err := e.existing(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	said, err := readCheckpoint(c, req.Dir)
	if err != nil {
		return fmt.Errorf("restore container %s: %w", id, err)
	}
	tool, err := checkpoint.Probe(ctx, "")
	if err != nil {
		return fmt.Errorf("restore container %s: %w", id, err)
	}
	err = e.start(ctx, c, said.Session.User, footing{paths: true, nested: said.Session.Nested}, func(*ground) (process.Spec, error) {
		var capabilities []string
		if said.Session.System { // it keeps its part of cgroup v2, and sessions their rights
			capabilities = systemCapabilities
		}
		return process.Spec{
			Capabilities: capabilities,
			Rootfs:       e.rootfs(id), Restore: &process.Restore{Program: tool.Path, Images: req.Dir},
			ConsoleLog: e.conFile(id), ConsoleLimit: req.ConsoleBytes,
			// what the record says from now on
			Args: said.Args, Env: said.Session.Env, Cwd: said.Session.Cwd, NoNewPrivs: said.Session.NoNewPrivs,
		}, nil
	})
	if err != nil {
		return errdefs.WithPublic(fmt.Errorf("restore container %s: %w", id, err), "The container could not be brought back.")
	}
	e.holdRoot(ctx, c)
	e.spread(ctx, c)
	return nil
}

// repin puts the network namespace of restored processes in the place of the one
// that is pinned, if somebody had asked for that: otherwise it was criu's need.
func (e *Engine) repin(id ContainerID, p process.Process, asked bool) error {
	dir := e.nsDir(id)
	if err := process.RemoveNamespaces(dir); err != nil || !asked {
		return err
	}
	network, err := process.NetworkOf(p)
	if err != nil {
		return err
	}
	defer network.Close()
	_, err = process.PinNetwork(dir, network)
	return err
}

// readCheckpoint returns what a checkpoint says, if it is one for the container.
func readCheckpoint(c *container, dir string) (said checkpointed, err error) {
	if c.running {
		return said, fmt.Errorf("it runs: %w", errdefs.ErrConflict)
	}
	if err := ownRuntime(c); err != nil {
		return said, err
	}
	if !filepath.IsAbs(dir) {
		return said, fmt.Errorf("directory %q is not absolute: %w", dir, errdefs.ErrInvalid)
	}
	m, err := checkpoint.Read(dir)
	if err != nil {
		return said, err
	}
	if err := json.Unmarshal(m.Caller, &said); err != nil {
		return said, fmt.Errorf("checkpoint %s: %w: %w", dir, err, errdefs.ErrCorrupt)
	}
	switch {
	case said.ID != c.rec.ID:
		err = fmt.Errorf("checkpoint %s is of container %q: %w", dir, said.ID, errdefs.ErrConflict)
	case said.IDBase != c.rec.IDBase:
		err = fmt.Errorf("checkpoint %s has user ids from %d on, the container from %d: %w", dir, said.IDBase, c.rec.IDBase, errdefs.ErrConflict)
	}
	return said, err
}

func ownRuntime(c *container) error {
	if c.rec.Runtime != "" {
		return fmt.Errorf("it is one of runtime %s: %w", c.rec.Runtime, errdefs.ErrUnsupported)
	}
	return nil
}
