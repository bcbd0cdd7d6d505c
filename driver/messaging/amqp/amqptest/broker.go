// Package amqptest is a broker for tests: as much of AMQP 0-9-1 as a client
// needs to log in, to enter a vhost and to open a channel. It carries no
// messages. Frames follow the protocol's specification, section 4.2, and the
// refusals RabbitMQ's.
package amqptest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
)

// Broker has one account and one vhost. Safe for concurrent use.
type Broker struct {
	User, Password, VHost string

	conns sync.WaitGroup
}

// Serve answers clients until the listener is closed, and waits for those that
// are connected.
func (b *Broker) Serve(l net.Listener) {
	defer b.conns.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		b.conns.Go(func() {
			defer conn.Close()
			_ = b.talk(conn) // a client that leaves
		})
	}
}

// The methods that are spoken, class and number.
const (
	start, startOK = 10<<16 | 10, 10<<16 | 11
	tune           = 10<<16 | 30
	open, openOK   = 10<<16 | 40, 10<<16 | 41
	end, endOK     = 10<<16 | 50, 10<<16 | 51
	channel        = 20<<16 | 10
	channelOK      = 20<<16 | 11
)

var errBye = errors.New("the conversation is over")

func (b *Broker) talk(conn net.Conn) error {
	r := bufio.NewReader(conn)
	if _, err := io.ReadFull(r, make([]byte, len("AMQP\x00\x00\x09\x01"))); err != nil {
		return err
	}
	if err := send(conn, 0, start, "\x00\x09\x00\x00\x00\x00"+long("PLAIN")+long("en_US")); err != nil {
		return err
	}
	for {
		to, method, args, err := receive(r)
		if err != nil {
			return err
		}
		if err := b.answer(conn, to, method, args); err != nil {
			return err
		}
	}
}

func (b *Broker) answer(w io.Writer, to uint16, method uint32, args string) error {
	switch method {
	case startOK: // what SASL's PLAIN says is in one piece
		if !strings.Contains(args, long("\x00"+b.User+"\x00"+b.Password)) {
			return errBye // as RabbitMQ does with who has not asked for a reason
		}
		return send(w, 0, tune, "\x07\xff\x00\x02\x00\x00\x00\x00")
	case open:
		if !strings.HasPrefix(args, short(b.VHost)) {
			return send(w, 0, end, "\x02\x12"+short("NOT_ALLOWED - vhost not found")+"\x00\x0a\x00\x28")
		}
		return send(w, 0, openOK, "\x00")
	case channel:
		return send(w, to, channelOK, "\x00\x00\x00\x00")
	case end:
		return errors.Join(send(w, 0, endOK, ""), errBye)
	}
	return nil
}

func short(s string) string { return string([]byte{byte(len(s))}) + s }

func long(s string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s //nolint:gosec // short texts of a test
}

const (
	methodFrame = 1
	frameEnd    = 0xce
)

func send(w io.Writer, to uint16, method uint32, args string) error {
	frame := binary.BigEndian.AppendUint16([]byte{methodFrame}, to)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(args)+4)) //nolint:gosec // short texts of a test
	frame = binary.BigEndian.AppendUint32(frame, method)
	_, err := w.Write(append(append(frame, args...), frameEnd))
	return err
}

// receive returns the next frame; method is 0 for one that is none, such as a heartbeat.
func receive(r io.Reader) (to uint16, method uint32, args string, err error) {
	var head [7]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, "", err
	}
	size := binary.BigEndian.Uint32(head[3:])
	if size > 1<<16 {
		return 0, 0, "", errors.New("a frame that is too long")
	}
	body := make([]byte, size+1)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, 0, "", err
	}
	body = body[:size]
	if head[0] != methodFrame || size < 4 {
		return 0, 0, "", nil
	}
	return binary.BigEndian.Uint16(head[1:]), binary.BigEndian.Uint32(body), string(body[4:]), nil
}
