package rfb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"
	"net"
	"sync"
	"time"
)

// Screen is what is served, to any number of clients. It is safe for concurrent
// use.
type Screen interface {
	// Size in pixels.
	Size() image.Point
	// Changes returns what is newer than a version, as rectangles that do not
	// overlap, and the version that shows all of it. All is newer than 0.
	Changes(since uint64) (parts []image.Rectangle, version uint64)
	// Wait returns a channel that is closed when something is newer than version.
	Wait(version uint64) <-chan struct{}
	// Draw writes a part, 0xRRGGBB row by row, into dst. What is outside of the
	// screen is black.
	Draw(part image.Rectangle, dst []uint32)
	// Key is a key of X11's that was pressed or let go.
	Key(sym uint32, down bool)
	// Paste is text to type.
	Paste(text string)
	// Resize asks for a size, which the screen may bound.
	Resize(size image.Point) error
}

// Options of Serve.
type Options struct {
	Security Security
	// Name is what clients show as the title.
	Name string
	// Patience is how long a handshake may take, and then each write. 0 is 20
	// seconds.
	Patience time.Duration
}

const usualPatience = 20 * time.Second

// Serve serves one client until it goes, which is nil, or ctx ends. It closes
// conn. A client that breaks the protocol is errdefs.ErrInvalid,
// errdefs.ErrUnsupported, errdefs.ErrForbidden or errdefs.ErrExhausted; one that
// is too slow is os.ErrDeadlineExceeded.
func Serve(ctx context.Context, conn net.Conn, screen Screen, o Options) error {
	if o.Patience == 0 {
		o.Patience = usualPatience
	}
	raw := conn
	defer func() { _ = raw.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	_ = raw.SetDeadline(time.Now().Add(o.Patience))
	size := screen.Size() // the client is told of a change with its first update
	conn, err := handshake(ctx, conn, o.Security)
	if err == nil {
		err = initialise(conn, size, o.Name)
	}
	if err != nil {
		return gone(ctx, err)
	}
	_ = raw.SetDeadline(time.Time{})
	c := &client{conn: conn, raw: raw, screen: screen, patience: o.Patience, poke: make(chan struct{}, 1)}
	c.format, c.encoding, c.size = usualFormat(), encodingRaw, size
	c.real = c.size
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	written := make(chan error, 1)
	go func() {
		err := c.update(ctx)
		_ = raw.Close() // ends the reading
		written <- err
	}()
	err = c.read()
	cancel(nil)
	if werr := <-written; werr != nil && errors.Is(err, net.ErrClosed) {
		err = werr
	}
	return gone(ctx, err)
}

// gone tells a client that has left from one that was wrong.
func gone(ctx context.Context, err error) error {
	switch {
	case err == nil, isReset(err), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.Canceled):
		return nil
	case errors.Is(err, net.ErrClosed) && errors.Is(ctx.Err(), context.Canceled):
		return nil
	}
	return fmt.Errorf("serve a VNC client: %w", err)
}

// isReset reports whether the connection broke, and not by our patience.
func isReset(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && !op.Timeout()
}

// initialise exchanges ClientInit and ServerInit. Clients always share.
func initialise(conn net.Conn, size image.Point, name string) error {
	if _, err := take(conn, 1); err != nil {
		return err
	}

	out := binary.BigEndian.AppendUint16(nil, uint16(size.X))
	out = binary.BigEndian.AppendUint16(out, uint16(size.Y))
	out = append(out, usualFormat().encode()...)
	_, err := conn.Write(refusal(out, name)) // a text with its length
	return err
}

// client is one that is served: one goroutine reads, one writes.
type client struct {
	conn, raw net.Conn
	screen    Screen
	patience  time.Duration
	poke      chan struct{} // of one: something below has changed

	mu       sync.Mutex
	format   pixelFormat // guarded by mu, as are all to the blank line
	encoding int32
	resizes  bool // DesktopSize
	extended bool // ExtendedDesktopSize
	answer   int  // to SetDesktopSize: its status, or noAnswer
	owes     bool // an answer, or the first ExtendedDesktopSize
	wants    bool // an update
	whole    bool // of everything

	size image.Point // as the client knows it; the writer's, as are all below
	real image.Point // as it was at the last update
	seen uint64
	enc  encoder
}

func (c *client) change(fn func()) {
	c.mu.Lock()
	fn()
	c.mu.Unlock()
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// read handles messages until there are no more.
func (c *client) read() error {
	for {
		m, err := readMessage(c.conn)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case pixelFormat:
			c.change(func() { c.format = m })
		case setEncodings:
			c.change(func() { c.choose(m) })
		case updateRequest:
			c.change(func() { c.wants, c.whole = true, c.whole || !m.incremental })
		case keyEvent:
			c.screen.Key(m.sym, m.down)
		case cutText:
			c.screen.Paste(string(m))
		case setDesktopSize:
			status := 0
			if c.screen.Resize(image.Pt(int(m.w), int(m.h))) != nil {
				status = 3 // invalid screen layout
			}
			c.change(func() { c.owes, c.answer = true, status })
		}
	}
}

// choose takes the first encoding that is known. It needs mu.
func (c *client) choose(list []int32) {
	c.encoding, c.resizes, c.extended = encodingRaw, false, false
	found := false
	for _, e := range list {
		switch e {
		case encodingTight, encodingZRLE, encodingRaw:
			if !found {
				c.encoding, found = e, true
			}
		case encodingDesktopSize:
			c.resizes = true
		case encodingExtendedSize:
			c.extended = true
			c.owes, c.answer = true, noAnswer
		}
	}
}

// noAnswer is client.answer for a size that nobody has asked for.
const noAnswer = -1

// update answers requests for updates until ctx ends.
func (c *client) update(ctx context.Context) error {
	for {
		c.mu.Lock()
		ready := c.wants
		c.mu.Unlock()
		var changed <-chan struct{}
		if ready {
			sent, err := c.send()
			if err != nil {
				return err
			}
			if sent {
				continue
			}
			changed = c.screen.Wait(c.seen)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.poke:
		case <-changed:
		}
	}
}

// send sends one update, if there is anything new.
func (c *client) send() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.whole {
		c.seen, c.whole = 0, false
	}
	parts, version := c.screen.Changes(c.seen)
	size := c.screen.Size()
	if size != c.real {
		parts, version = c.screen.Changes(0)
	}
	resized := c.extended && (c.owes || size != c.real) || c.resizes && size != c.real
	if len(parts) == 0 && !resized {
		c.seen = version
		return false, nil
	}
	c.enc.format, c.enc.encoding = c.format, c.encoding
	out := []byte{0, 0, 0, 0} // the number of rectangles comes at the end
	n := 0
	if resized {
		out, n = c.newSize(out, size), 1
		c.size = size
	} // else a client that cannot be told sees what fits
	c.real, c.owes, c.wants = size, false, false
	for _, r := range pieces(parts) {
		if r = r.Intersect(image.Rectangle{Max: c.size}); !r.Empty() && n < 0xffff {
			out = c.enc.rectangle(out, c.screen, r)
			n++
		}
	}
	c.seen = version
	binary.BigEndian.PutUint16(out[2:], uint16(n))
	return true, c.write(out)
}

// write writes without mu, so that reading goes on.
func (c *client) write(out []byte) error {
	c.mu.Unlock()
	defer c.mu.Lock()
	_ = c.raw.SetWriteDeadline(time.Now().Add(c.patience))
	_, err := c.conn.Write(out)
	return err
}

// newSize appends the rectangle that tells a size. It needs mu.
func (c *client) newSize(out []byte, size image.Point) []byte {
	if !c.extended {
		return header(out, image.Rectangle{Max: size}, encodingDesktopSize)
	}
	reason, status := 0, 0
	if c.owes && c.answer != noAnswer {
		reason, status = 1, c.answer
	}
	out = header(out, image.Rect(reason, status, reason+size.X, status+size.Y), encodingExtendedSize)
	out = append(out, 1, 0, 0, 0) // one screen
	out = append(out, 0, 0, 0, 0) // of id 0, at 0, 0
	out = append(out, 0, 0, 0, 0)
	out = binary.BigEndian.AppendUint16(out, uint16(size.X))
	out = binary.BigEndian.AppendUint16(out, uint16(size.Y))
	return append(out, 0, 0, 0, 0)
}
