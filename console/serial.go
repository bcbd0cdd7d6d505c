package console

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// patience is how long a write to a viewer may take.
const patience = 20 * time.Second

// serveSerial copies between a viewer and the console until either ends.
func (p *port) serveSerial(conn net.Conn) error {
	defer func() { _ = conn.Close() }()
	stream, err := p.s.o.Open(p.ctx, p.instance)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(p.ctx, func() { _ = conn.Close(); _ = stream.Close() })
	defer stop()
	typed := make(chan struct{})
	go func() {
		defer close(typed)
		in := &typing{stream: stream, resize: func(rows, cols uint16) {
			if err := stream.Resize(p.ctx, rows, cols); err != nil {
				p.log().Debug().Err(err).Msg("console not resized")
			}
		}}
		_, _ = io.Copy(in, conn) // a viewer that has gone, or an instance
		_ = stream.Close()
	}()
	defer func() { _ = conn.Close(); _ = stream.Close(); <-typed }()
	buf := make([]byte, 32<<10)
	for {
		n, err := stream.Read(buf)
		if n > 0 {
			_ = conn.SetWriteDeadline(time.Now().Add(patience))
			if _, err := conn.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return ended(err)
		}
	}
}

func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// typing takes sizes out of what a viewer types.
type typing struct {
	stream io.Writer
	resize func(rows, cols uint16)
	held   []byte // the beginning of what may be a report of a size
}

// maxReport is the longest report, ESC [ 8 ; 65535 ; 65535 t.
const maxReport = 16

// Write implements io.Writer.
func (t *typing) Write(b []byte) (int, error) {
	out := make([]byte, 0, len(t.held)+len(b))
	for _, c := range b {
		t.held = append(t.held, c)
		rows, cols, state := report(t.held)
		switch state {
		case begun:
			continue
		case whole:
			if rows > 0 && cols > 0 {
				t.resize(rows, cols)
			}
		case other:
			out = append(out, t.held[:len(t.held)-1]...)
			if t.held = append(t.held[:0], c); c == escapeKey && len(b) > 1 {
				continue // it may begin another
			}
			out = append(out, c)
		}
		t.held = t.held[:0]
	}
	if len(t.held) == 1 && len(b) == 1 { // the key itself
		out, t.held = append(out, t.held...), t.held[:0]
	}
	if len(out) > 0 {
		if _, err := t.stream.Write(out); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

const escapeKey = 0x1b

type reportState int

const (
	other reportState = iota
	begun
	whole
)

// report looks at what may be the report of a size.
func report(b []byte) (rows, cols uint16, state reportState) {
	const head = "\x1b[8;"
	n := min(len(b), len(head))
	if string(b[:n]) != head[:n] || len(b) > maxReport {
		return 0, 0, other
	}
	var v [2]int
	i := 0
	for at, c := range b[n:] {
		switch {
		case c >= '0' && c <= '9':
			v[i] = min(v[i]*10+int(c-'0'), 1<<16-1)
		case c == ';' && i == 0:
			i = 1
		case c == 't' && i == 1 && at == len(b)-n-1:
			return uint16(v[0]), uint16(v[1]), whole
		default:
			return 0, 0, other
		}
	}
	return 0, 0, begun
}
