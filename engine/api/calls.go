package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Info describes the server.
func (c *Client) Info(ctx context.Context) (out Info, err error) {
	return out, c.call(ctx, http.MethodGet, "/info", nil, nil, &out)
}

// Containers lists all, the oldest first.
func (c *Client) Containers(ctx context.Context) (out []Container, err error) {
	return out, c.call(ctx, http.MethodGet, "/containers", nil, nil, &out)
}

// Container returns one.
func (c *Client) Container(ctx context.Context, id string) (out Container, err error) {
	return out, c.call(ctx, http.MethodGet, path("containers", id), nil, nil, &out)
}

// Create makes a container, and starts it if the request says so; when that
// fails it is removed again.
func (c *Client) Create(ctx context.Context, req Create) (out Container, err error) {
	return out, c.call(ctx, http.MethodPost, "/containers", nil, req, &out)
}

// Change is how a container that somebody else owns may be changed all the same.
type Change struct{ Force bool }

func (f Change) query() url.Values {
	if f.Force {
		return url.Values{"force": {"1"}}
	}
	return url.Values{}
}

// Start starts a container that does not run.
func (c *Client) Start(ctx context.Context, id string, req Start, f Change) (out Container, err error) {
	return out, c.call(ctx, http.MethodPost, path("containers", id, "start"), f.query(), req, &out)
}

// Stop ends a container's processes.
func (c *Client) Stop(ctx context.Context, id string, req Stop, f Change) (out Container, err error) {
	return out, c.call(ctx, http.MethodPost, path("containers", id, "stop"), f.query(), req, &out)
}

// Kill sends a signal to the first process.
func (c *Client) Kill(ctx context.Context, id string, signal int, f Change) error {
	return c.call(ctx, http.MethodPost, path("containers", id, "kill"), f.query(), Signal{signal}, nil)
}

// Remove deletes a container; one that runs only with kill.
func (c *Client) Remove(ctx context.Context, id string, kill bool, f Change) error {
	q := f.query()
	if kill {
		q.Set("kill", "1")
	}
	return c.call(ctx, http.MethodDelete, path("containers", id), q, nil, nil)
}

// Pause freezes a container, Resume thaws it.
func (c *Client) Pause(ctx context.Context, id string, f Change) error {
	return c.call(ctx, http.MethodPost, path("containers", id, "pause"), f.query(), nil, nil)
}

// Resume undoes Pause.
func (c *Client) Resume(ctx context.Context, id string, f Change) error {
	return c.call(ctx, http.MethodPost, path("containers", id, "resume"), f.query(), nil, nil)
}

// Checkpoint writes a container's processes to a directory of the server's host.
func (c *Client) Checkpoint(ctx context.Context, id string, req Checkpoint, f Change) error {
	return c.call(ctx, http.MethodPost, path("containers", id, "checkpoint"), f.query(), req, nil)
}

// Restore brings them back.
func (c *Client) Restore(ctx context.Context, id string, req Restore, f Change) (out Container, err error) {
	return out, c.call(ctx, http.MethodPost, path("containers", id, "restore"), f.query(), req, &out)
}

// Update changes limits and returns all that are in force.
func (c *Client) Update(ctx context.Context, id string, limits Limits, f Change) (out Limits, err error) {
	return out, c.call(ctx, http.MethodPost, path("containers", id, "update"), f.query(), limits, &out)
}

// Wait returns how the container has ended, when it has.
func (c *Client) Wait(ctx context.Context, id string) (out Exit, err error) {
	return out, c.call(ctx, http.MethodGet, path("containers", id, "wait"), nil, nil, &out)
}

// Top lists the processes.
func (c *Client) Top(ctx context.Context, id string) (out []Process, err error) {
	return out, c.call(ctx, http.MethodGet, path("containers", id, "top"), nil, nil, &out)
}

// Stats is the use at present.
func (c *Client) Stats(ctx context.Context, id string) (out Stats, err error) {
	return out, c.call(ctx, http.MethodGet, path("containers", id, "stats"), nil, nil, &out)
}

// WatchStats calls fn with the use at once and in every interval, until the
// container has ended (nil), fn fails or ctx ends.
func (c *Client) WatchStats(ctx context.Context, id string, interval time.Duration, fn func(Stats) error) error {
	q := url.Values{"interval": {strconv.FormatFloat(interval.Seconds(), 'f', -1, 64)}}
	req, err := request(ctx, http.MethodGet, path("containers", id, "stats"), q, nil)
	if err != nil {
		return err
	}
	return each(c, req, fn)
}

// Events calls fn with what happens from now on, to one container or, for "",
// to all, until the server ends (nil), fn fails or ctx ends. begun, if set, is
// called when nothing will be missed any more.
func (c *Client) Events(ctx context.Context, container string, begun func(), fn func(Event) error) error {
	q := url.Values{}
	if container != "" {
		q.Set("container", container)
	}
	req, err := request(ctx, http.MethodGet, "/events", q, nil)
	if err != nil {
		return err
	}
	res, err := c.send(req) //nolint:bodyclose // eachOf closes it
	if err != nil {
		return err
	}
	if begun != nil {
		begun()
	}
	return eachOf(res, req, fn)
}

// LogsRequest says which part of a log to read.
type LogsRequest struct {
	Since time.Time
	// Lines leaves out all but the last; nil is all.
	Lines  *int
	Follow bool
}

// Logs reads what the console has said. Close it when done.
func (c *Client) Logs(ctx context.Context, id string, req LogsRequest) (io.ReadCloser, error) {
	q := url.Values{}
	if !req.Since.IsZero() {
		q.Set("since", req.Since.Format(time.RFC3339Nano))
	}
	if req.Lines != nil {
		q.Set("lines", strconv.Itoa(*req.Lines))
	}
	if req.Follow {
		q.Set("follow", "1")
	}
	r, err := request(ctx, http.MethodGet, path("containers", id, "logs"), q, nil)
	if err != nil {
		return nil, err
	}
	return c.bytes(r)
}

// CopyOut reads the file or directory as a tar stream. Close it when done.
func (c *Client) CopyOut(ctx context.Context, id, name string) (io.ReadCloser, error) {
	return c.read(ctx, path("containers", id, "archive"), url.Values{"path": {name}})
}

// CopyIn unpacks a tar stream into the directory.
func (c *Client) CopyIn(ctx context.Context, id, dir string, r io.Reader) (out Copied, err error) {
	req, err := request(ctx, http.MethodPut, path("containers", id, "archive"), url.Values{"path": {dir}}, nil)
	if err != nil {
		return out, err
	}
	req.Body, req.ContentLength = io.NopCloser(r), -1
	return out, c.answer(req, &out)
}

// Commit reads an OCI archive of the container's disk. Close it when done.
func (c *Client) Commit(ctx context.Context, id string) (io.ReadCloser, error) {
	return c.read(ctx, path("containers", id, "commit"), nil)
}

// Sessions lists the exec sessions of a container.
func (c *Client) Sessions(ctx context.Context, id string) (out []Session, err error) {
	return out, c.call(ctx, http.MethodGet, path("containers", id, "execs"), nil, nil, &out)
}

// WaitSession returns how a session has ended, when it has.
func (c *Client) WaitSession(ctx context.Context, id, exec string) (out Exit, err error) {
	return out, c.call(ctx, http.MethodGet, path("containers", id, "execs", exec, "wait"), nil, nil, &out)
}

// KillSession sends a signal to a session's first process; 0 ends all of it.
func (c *Client) KillSession(ctx context.Context, id, exec string, signal int) error {
	return c.call(ctx, http.MethodPost, path("containers", id, "execs", exec, "kill"), nil, Signal{signal}, nil)
}

// Images lists the imported images.
func (c *Client) Images(ctx context.Context) (out []Image, err error) {
	return out, c.call(ctx, http.MethodGet, "/images", nil, nil, &out)
}

// RemoveImage removes one that no container uses.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	if ref == "" {
		return fmt.Errorf("remove image: no reference: %w", errdefs.ErrInvalid)
	}
	return c.call(ctx, http.MethodDelete, "/images", url.Values{"ref": {ref}}, nil, nil)
}
