package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// Size of a console.
type Size struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

func (s *Server) resize(r *http.Request) (any, error) {
	var req Size
	if err := body(r, &req); err != nil {
		return nil, err
	}
	if req.Rows == 0 || req.Columns == 0 {
		return nil, fmt.Errorf("size %d by %d: %w", req.Rows, req.Columns, errdefs.ErrInvalid)
	}
	return nil, s.opts.Backend.Resize(r.Context(), id(r), req.Rows, req.Columns)
}

// attach puts a container's console through to a stream socket that the client
// passes. The connection itself tells the end: of the container, of a client
// that was too slow, or of the client.
func (s *Server) attach(w http.ResponseWriter, r *http.Request) error {
	console, err := s.opts.Backend.Attach(r.Context(), id(r), 0)
	if err != nil {
		return err
	}
	defer console.Close()
	ch, files, err := upgrade(w, r)
	if err != nil {
		return err
	}
	s.hijacked.Add(1)
	defer s.hijacked.Done()
	defer ch.close()
	stream, err := streamOf(files)
	if err != nil {
		f, _ := failureOf(err)
		return ch.tell(report{Error: f})
	}
	defer stream.Close()
	ctx, gone := ch.whileThere(s.life)
	defer gone()
	stop := context.AfterFunc(ctx, func() { _ = console.Close(); _ = stream.Close() })
	defer stop()
	go func() { _, _ = io.Copy(console, stream) }() // ends with either
	_, err = io.Copy(stream, console)
	switch {
	case ctx.Err() != nil:
		return nil // the client is gone, or the service ends
	case err != nil:
		f, _ := failureOf(err)
		return ch.tell(report{Error: f})
	}
	exit, err := s.opts.Backend.Wait(ctx, id(r))
	if err != nil {
		f, _ := failureOf(err)
		return ch.tell(report{Error: f})
	}
	return ch.tell(report{Exit: exitOf(exit)})
}

// streamOf makes a connection of the one file that was passed, and closes the
// file.
func streamOf(files []*os.File) (net.Conn, error) {
	defer linux.CloseAll(files)
	if len(files) != 1 {
		return nil, fmt.Errorf("%d files: %w", len(files), errdefs.ErrInvalid)
	}
	conn, err := net.FileConn(files[0])
	if err != nil {
		return nil, fmt.Errorf("not a socket: %w: %w", errdefs.ErrInvalid, err)
	}
	return conn, nil
}

// Attached is a container's console, as its client holds it. One goroutine may
// read and one write.
type Attached struct {
	ch     *channel
	stream net.Conn
}

// Attach connects to the console of a running container.
func (c *Client) Attach(ctx context.Context, id string) (*Attached, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "console"), os.NewFile(uintptr(pair[1]), "console")
	defer theirs.Close()
	stream, err := streamOf([]*os.File{ours})
	if err != nil {
		return nil, err
	}
	ch, err := c.open(ctx, path("containers", id, "attach"), nil, []*os.File{theirs})
	if err != nil {
		return nil, errors.Join(err, stream.Close())
	}
	return &Attached{ch: ch, stream: stream}, nil
}

// Read returns what the container says; io.EOF when Wait knows why it ends.
func (a *Attached) Read(p []byte) (int, error) { return a.stream.Read(p) }

// Write is input.
func (a *Attached) Write(p []byte) (int, error) { return a.stream.Write(p) }

// Wait returns how the container has ended; errdefs.ErrExhausted says that this
// side was too slow and has lost some: attach again.
func (a *Attached) Wait(ctx context.Context) (Exit, error) {
	rep, err := a.ch.ask(ctx)
	if err != nil {
		return Exit{}, err
	}
	if rep.Exit == nil {
		return Exit{}, fmt.Errorf("no exit in the answer: %w", errdefs.ErrCorrupt)
	}
	return *rep.Exit, nil
}

// Close detaches; the container goes on.
func (a *Attached) Close() error {
	a.ch.close()
	return a.stream.Close()
}

// Resize sets the size of a container's console.
func (c *Client) Resize(ctx context.Context, id string, size Size) error {
	return c.call(ctx, http.MethodPost, path("containers", id, "resize"), nil, size, nil)
}
