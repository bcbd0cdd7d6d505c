package keeper

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// A connection that carries a console: from the client bare input, to the
// client frames of output, each a length (32 bits, little endian, at most
// maxFrame) and so many bytes. A frame of length 0 is the last; a response
// follows, which says why if it was not the console's end.
const maxFrame = 32 << 10

// finalGrace is how long a client may take to be told why it was dropped.
const finalGrace = 30 * time.Second

// console serves one client of a console.
func (s *server) console(ctx context.Context, conn *net.UnixConn, id string, history int) {
	con, err := s.runner.Attach(ctx, id, history)
	if err != nil {
		_ = send(conn, response{Error: toWire(err)}, nil)
		return
	}
	defer func() { _ = con.Close() }()
	if send(conn, response{}, nil) != nil {
		return
	}
	stop := context.AfterFunc(s.leaving, func() { _ = conn.Close() })
	defer stop()
	s.tasks.Go(func() {
		_, _ = io.Copy(con, conn)
		_ = con.Close() // the client is gone, or the console has ended
	})
	buf := make([]byte, headerSize+maxFrame)
	for {
		n, err := con.Read(buf[headerSize:])
		if err != nil {
			sendFinal(conn, err)
			return
		}
		binary.LittleEndian.PutUint32(buf, uint32(n))
		if _, err := conn.Write(buf[:headerSize+n]); err != nil {
			return
		}
	}
}

// sendFinal tells the client why there is no more.
func sendFinal(conn *net.UnixConn, why error) {
	_ = conn.SetWriteDeadline(time.Now().Add(finalGrace))
	if _, err := conn.Write(make([]byte, headerSize)); err != nil {
		return
	}
	if errors.Is(why, io.EOF) {
		why = nil
	}
	_ = send(conn, response{Error: toWire(why)}, nil)
}

// A remoteConsole is the client's end.
type remoteConsole struct {
	conn *net.UnixConn
	left uint32 // of the frame that is being read
	err  error  // the end
}

// Attach implements process.Runner.
func (c *Client) Attach(ctx context.Context, id string, history int) (io.ReadWriteCloser, error) {
	var conn *net.UnixConn
	_, err := c.retry(ctx, func() (res *response, err error) {
		res, conn, err = c.open(ctx, &request{Op: opConsole, ID: id, History: history}, nil)
		return res, err
	})
	if err != nil {
		return nil, wrap("attach to", id, err)
	}
	return &remoteConsole{conn: conn}, nil
}

// Resize implements process.Runner.
func (c *Client) Resize(ctx context.Context, id string, rows, cols uint16) error {
	if _, err := c.call(ctx, &request{Op: opResize, ID: id, Rows: rows, Columns: cols}, nil); err != nil {
		return wrap("resize terminal of", id, err)
	}
	return nil
}

// Read implements io.Reader.
func (r *remoteConsole) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.left == 0 && r.err == nil {
		r.left, r.err = r.frame()
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.conn.Read(p[:min(len(p), int(r.left))])
	r.left -= uint32(n)
	if err != nil && n == 0 {
		r.err = r.lost(err)
		return 0, r.err
	}
	return n, nil
}

// frame reads a header, and what follows the last one.
func (r *remoteConsole) frame() (uint32, error) {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(r.conn, header); err != nil {
		return 0, r.lost(err)
	}
	size := binary.LittleEndian.Uint32(header)
	if size > maxFrame {
		return 0, fmt.Errorf("console: frame of %d bytes: %w", size, errdefs.ErrCorrupt)
	}
	if size > 0 {
		return size, nil
	}
	var last response
	if _, err := receive(r.conn, &last); err != nil {
		return 0, r.lost(err)
	}
	if last.Error != nil {
		return 0, fromWire(last.Error)
	}
	return 0, io.EOF
}

func (r *remoteConsole) lost(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("console: %w", err)
	}
	return fmt.Errorf("console: keeper is gone: %w: %w", err, errdefs.ErrUnavailable)
}

// Write implements io.Writer.
func (r *remoteConsole) Write(p []byte) (int, error) {
	n, err := r.conn.Write(p)
	if err != nil {
		err = r.lost(err)
	}
	return n, err
}

// Close implements io.Closer.
func (r *remoteConsole) Close() error { return r.conn.Close() }
