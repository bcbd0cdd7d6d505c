package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/engine/store"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// StoredContainers lists the containers of an engine's root while no service
// has it, from the records and from what runs. errdefs.ErrConflict says that a
// service runs after all, errdefs.ErrNotFound that there is no engine's root.
func StoredContainers(ctx context.Context, root string) (_ []api.Container, err error) {
	db, err := store.OpenReadOnly(filepath.Join(root, "gantry.db"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	records, err := db.Containers(ctx)
	if err != nil {
		return nil, err
	}
	_, open, err := store.ReadLog(filepath.Join(root, journalName))
	if err == nil {
		records, err = engine.WithStarts(records, open)
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	boot, err := linux.BootID()
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	out := make([]api.Container, 0, len(records))
	for _, rec := range records {
		out = append(out, stored(rec, boot))
	}
	return out, nil
}

// stored is what a record says, as far as the kernel agrees.
func stored(rec store.Container, boot string) api.Container {
	c := api.Container{
		ID: rec.ID, Image: rec.Image, Args: rec.Args, Labels: rec.Labels, Created: rec.Created, Started: rec.Started,
		Status: engine.StatusCreated, Owner: ownerByLabel(rec.Labels),
	}
	if rec.Started.IsZero() {
		return c
	}
	if rec.Pid != 0 && rec.BootID == boot {
		if started, err := linux.StartTime(rec.Pid); err == nil && started == rec.StartTime {
			c.Status, c.Pid = engine.StatusRunning, rec.Pid
			return c
		}
	}
	c.Status = engine.StatusStopped
	c.Exit = &api.Exit{Code: rec.ExitCode, Signal: rec.ExitSignal, OOM: rec.ExitOOM, Known: rec.ExitKnown && rec.Pid == 0, Time: rec.Exited}
	return c
}

// StoredLogs reads a container's console log from an engine's root, whether a
// service has it or not. errdefs.ErrNotFound if there is none and the records,
// as far as they can be read, do not know the container.
func StoredLogs(ctx context.Context, root, id string, req api.LogsRequest) (io.ReadCloser, error) {
	if id == "" || filepath.Base(id) != id || id == "." || id == ".." {
		return nil, fmt.Errorf("container %.80q: %w", id, errdefs.ErrInvalid)
	}
	name := engine.ConsoleLog(root, engine.ContainerID(id))
	if _, err := os.Lstat(name); err != nil && !silent(ctx, root, id) {
		return nil, fmt.Errorf("logs of container %s: %w: %w", id, errdefs.ErrNotFound, err)
	}
	o := conlog.Options{Since: req.Since, Follow: req.Follow}
	if req.Lines != nil {
		if o.Lines = *req.Lines; o.Lines == 0 {
			o.Lines = -1
		}
	}
	return conlog.Open(ctx, name, o)
}

// silent reports whether the container is recorded: without a log it has said
// nothing.
func silent(ctx context.Context, root, id string) bool {
	list, err := StoredContainers(ctx, root)
	return err == nil && slices.ContainsFunc(list, func(c api.Container) bool { return c.ID == id })
}
