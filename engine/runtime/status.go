package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-project/gantry/engine/oci"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// Status of a container: runtime.md's words, and "paused".
type Status = specs.ContainerState

// The states.
const (
	Creating Status = specs.StateCreating
	Created  Status = specs.StateCreated
	Running  Status = specs.StateRunning
	Paused   Status = "paused"
	Stopped  Status = specs.StateStopped
)

// State of a container: runtime.md's, with what runc adds.
type State struct {
	specs.State
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
}

// MarshalJSON writes pid 0 too, as runc does.
func (s State) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Version     string            `json:"ociVersion"`
		ID          string            `json:"id"`
		Pid         int               `json:"pid"`
		Status      Status            `json:"status"`
		Bundle      string            `json:"bundle"`
		Rootfs      string            `json:"rootfs"`
		Created     time.Time         `json:"created"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}{s.Version, s.ID, s.Pid, s.Status, s.Bundle, s.Rootfs, s.Created, s.Annotations})
}

// alive reports whether the first process exists and has not ended. A number
// that another process has got since is told by its start.
func (r *Runtime) alive(rec *record) bool {
	p := rec.Process
	return p.Pid != 0 && p.BootID == r.bootID && linux.Alive(p.Pid, p.StartTime)
}

func (r *Runtime) status(ctx context.Context, rec *record) Status {
	switch {
	case rec.Process.Pid == 0:
		return Creating
	case !r.alive(rec):
		return Stopped
	}
	if _, err := os.Lstat(r.path(rec.ID, gateFile)); err == nil {
		return Created
	}
	if g, err := r.group(ctx, rec); err == nil {
		if frozen, err := g.Frozen(ctx); err == nil && frozen {
			return Paused
		}
	}
	return Running
}

// State reports one container; errdefs.ErrNotFound if there is none. It does
// not wait for operations in progress.
func (r *Runtime) State(ctx context.Context, id string) (State, error) {
	rec, err := r.load(id)
	if err != nil {
		return State{}, err
	}
	return r.state(rec, r.status(ctx, rec)), nil
}

func (r *Runtime) state(rec *record, status Status) State {
	s := State{Rootfs: rec.Rootfs, Created: rec.Created, State: specs.State{
		Version: oci.Version(), ID: rec.ID, Status: status, Bundle: rec.Bundle, Annotations: rec.Annotations,
	}}
	if status != Stopped {
		s.Pid = rec.Process.Pid
	}
	return s
}

// stateBytes is what hooks read.
func (r *Runtime) stateBytes(rec *record, status Status, pid int) []byte {
	data, err := json.Marshal(specs.State{
		Version: oci.Version(), ID: rec.ID, Status: status, Pid: pid, Bundle: rec.Bundle, Annotations: rec.Annotations,
	})
	if err != nil { // strings and numbers
		return nil
	}
	return data
}

// List reports all containers, by id. Those whose record is not readable are
// in the error, joined, and the others are listed all the same.
func (r *Runtime) List(ctx context.Context) ([]State, error) {
	entries, err := os.ReadDir(r.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var list []State
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		s, err := r.State(ctx, e.Name())
		switch {
		case errors.Is(err, errdefs.ErrNotFound): // deleted meanwhile
		case err != nil:
			errs = append(errs, err)
		default:
			list = append(list, s)
		}
	}
	return list, errors.Join(errs...)
}
