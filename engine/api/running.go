package api

import (
	"bufio"
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

// open makes a request that passes files and returns the connection when the
// server has them.
func (c *Client) open(ctx context.Context, path string, doc any, files []*os.File) (*channel, error) {
	req, err := request(ctx, http.MethodPost, path, nil, doc)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", upgradeProtocol)
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	ch, err := hand(conn, req, files)
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return ch, nil
}

func hand(conn *net.UnixConn, req *http.Request, files []*os.File) (*channel, error) {
	lost := func(err error) error { return fmt.Errorf("hand over files: %w: %w", errdefs.ErrUnavailable, err) }
	if err := req.Write(conn); err != nil {
		return nil, lost(err)
	}
	in := bufio.NewReaderSize(conn, 4096)
	res, err := http.ReadResponse(in, req)
	if err != nil {
		return nil, lost(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		data, err := io.ReadAll(io.LimitReader(res.Body, maxFailure))
		if err := errors.Join(err, res.Body.Close()); err != nil {
			return nil, lost(err)
		}
		return nil, parseFailure(res.StatusCode, data)
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	if _, _, err := conn.WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil); err != nil {
		return nil, lost(err)
	}
	return &channel{conn: conn, in: in}, nil
}

// ask reads one report, until ctx ends.
func (ch *channel) ask(ctx context.Context) (report, error) {
	stop := context.AfterFunc(ctx, ch.close)
	defer stop()
	var r report
	err := ch.hear(&r)
	switch {
	case err != nil && ctx.Err() != nil:
		return r, context.Cause(ctx)
	case err != nil:
		return r, fmt.Errorf("the server is gone: %w: %w", errdefs.ErrUnavailable, err)
	}
	return r, r.Error.err()
}

// Running is a command in a container, as its client holds it.
type Running struct {
	ch      *channel
	Session Session
}

// Exec runs a command with the files as its stdin, stdout and stderr: they
// themselves are passed, not what goes through them, so a terminal of the host
// should not be among them.
func (c *Client) Exec(ctx context.Context, id string, req Exec, stdio [3]*os.File) (*Running, error) {
	req.Terminal = false
	return c.run(ctx, id, req, stdio[:])
}

// ExecTerminal runs a command on a new terminal of the container and returns
// the terminal's master, which the caller closes: the command is hung up then.
func (c *Client) ExecTerminal(ctx context.Context, id string, req Exec) (*Running, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "console"), os.NewFile(uintptr(pair[1]), "console")
	defer ours.Close()
	req.Terminal = true
	run, err := c.run(ctx, id, req, []*os.File{theirs})
	_ = theirs.Close()
	if err != nil {
		return nil, nil, err
	}
	// the runner has sent it before the command was executed
	_, files, err := linux.RecvFiles(ours, make([]byte, 4096), 1)
	if err == nil && len(files) != 1 {
		linux.CloseAll(files)
		err = fmt.Errorf("no terminal came: %w", errdefs.ErrUnavailable)
	}
	if err != nil {
		run.Close()
		return nil, nil, fmt.Errorf("exec in container %s: %w", id, err)
	}
	return run, files[0], nil
}

func (c *Client) run(ctx context.Context, id string, req Exec, files []*os.File) (*Running, error) {
	ch, err := c.open(ctx, path("containers", id, "exec"), req, files)
	if err != nil {
		return nil, err
	}
	r, err := ch.ask(ctx)
	if err == nil && r.Session == nil {
		err = fmt.Errorf("no session in the answer: %w", errdefs.ErrCorrupt)
	}
	if err != nil {
		ch.close()
		return nil, err
	}
	return &Running{ch: ch, Session: *r.Session}, nil
}

// Wait returns how the command has ended. When ctx ends first, the session is
// ended with it unless it was to be left.
func (r *Running) Wait(ctx context.Context) (Exit, error) {
	rep, err := r.ch.ask(ctx)
	if err != nil {
		return Exit{}, err
	}
	if rep.Exit == nil {
		return Exit{}, fmt.Errorf("no exit in the answer: %w", errdefs.ErrCorrupt)
	}
	return *rep.Exit, nil
}

// Signal sends a signal to the command.
func (r *Running) Signal(sig int) error { return r.ch.tell(command{Signal: sig}) }

// Detach lets the command go on when this side closes.
func (r *Running) Detach() error { return r.ch.tell(command{Detach: true}) }

// Close ends the session unless it has ended or was to be left.
func (r *Running) Close() { r.ch.close() }

// Import imports the archive behind the open file.
func (c *Client) Import(ctx context.Context, req Import, archive *os.File) (Image, error) {
	ch, err := c.open(ctx, "/images", req, []*os.File{archive})
	if err != nil {
		return Image{}, err
	}
	defer ch.close()
	r, err := ch.ask(ctx)
	if err == nil && r.Image == nil {
		err = fmt.Errorf("no image in the answer: %w", errdefs.ErrCorrupt)
	}
	if err != nil {
		return Image{}, err
	}
	return *r.Image, nil
}
