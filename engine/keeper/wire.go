package keeper

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// Version of the protocol. Requests of another version are refused, but for
// opHello and opReplace: what those two say and answer, and the form of a
// message, stay as they are in all versions from 2 on. So any client can ask
// who serves, and any can have it replaced.
//
// Version 1 knew no consoles and could not be replaced.
const Version = 2

// One connection carries one request and one response, each a length (32 bits,
// little endian) and JSON. Descriptors travel with the length of a request, in
// the order of process.Spec.TakeFiles. After a start or wait the client may
// send a second request, opCancel. After the response to opConsole the
// connection carries the console (console.go).
const (
	opHello   = "hello"
	opAttach  = "attach" // answers as hello does; the connection then stays open
	opStart   = "start"
	opSignal  = "signal"
	opStatus  = "status"
	opList    = "list"
	opWait    = "wait"
	opForget  = "forget"
	opConsole = "console"
	opResize  = "resize"
	opCancel  = "cancel"
	opReplace = "replace" // the response comes before the replacement
)

const (
	maxMessage = 64 << 20 // files of a Spec are in it
	// usualMessage is what room is made for at once.
	usualMessage = 16 << 10
	maxFiles     = 250 // SCM_MAX_FD is 253
	headerSize   = 4
)

type request struct {
	Version int           `json:"version"`
	Op      string        `json:"op"`
	ID      string        `json:"id,omitempty"`
	Signal  int           `json:"signal,omitempty"`
	Spec    *process.Spec `json:"spec,omitempty"`
	Rows    uint16        `json:"rows,omitempty"`
	Columns uint16        `json:"columns,omitempty"`
	History int           `json:"history,omitempty"` // of opConsole; a keeper that does not know it gives none
	Command []string      `json:"command,omitempty"`
	Env     []string      `json:"env,omitempty"`
}

type response struct {
	Error   *wireError       `json:"error,omitempty"`
	Hello   *Hello           `json:"hello,omitempty"`
	Process *process.Process `json:"process,omitempty"`
	Status  *process.Status  `json:"status,omitempty"`
	List    []process.Status `json:"list,omitempty"`
	Exit    *process.Exit    `json:"exit,omitempty"`
}

// Hello describes a running keeper.
type Hello struct {
	Version int `json:"version"`
	Pid     int `json:"pid"`
	// Processes counts what is known, ended ones included.
	Processes int `json:"processes"`
	// Build is ServeOptions.Build.
	Build string `json:"build,omitempty"`
	// Guard is the pid of the keeper's guard, 0 without one.
	Guard int `json:"guard,omitempty"`
	// Command is what the guard runs.
	Command []string `json:"command,omitempty"`
	// Started is when this keeper began to serve.
	Started time.Time `json:"started"`
}

// wireError is an error that crossed the socket with its class and its text
// for tenants.
type wireError struct {
	Class  string `json:"class,omitempty"`
	Text   string `json:"text"`
	Public string `json:"public,omitempty"`
}

// classes are the errors that keep their identity.
func classes() map[string]error {
	return map[string]error{
		"not-found":      errdefs.ErrNotFound,
		"already-exists": errdefs.ErrAlreadyExists,
		"invalid":        errdefs.ErrInvalid,
		"unsupported":    errdefs.ErrUnsupported,
		"conflict":       errdefs.ErrConflict,
		"unavailable":    errdefs.ErrUnavailable,
		"exhausted":      errdefs.ErrExhausted,
		"corrupt":        errdefs.ErrCorrupt,
		"forbidden":      errdefs.ErrForbidden,
		"aborted":        errdefs.ErrAborted,
		"canceled":       context.Canceled,
		"deadline":       context.DeadlineExceeded,
	}
}

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{Text: err.Error(), Public: errdefs.PublicText(err, "")}
	for name, class := range classes() {
		if errors.Is(err, class) {
			w.Class = name
		}
	}
	return w
}

// remoteError is the text of an error of the keeper, with its class.
type remoteError struct {
	text  string
	class error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.class }

func fromWire(w *wireError) error {
	if w == nil {
		return nil
	}
	var err error = &remoteError{text: w.Text, class: classes()[w.Class]}
	if w.Public != "" {
		// The text is in Text already.
		return &publicError{Public: errdefs.Public{Text: w.Public, Err: err}, text: w.Text}
	}
	return err
}

// publicError prints as the original did.
type publicError struct {
	errdefs.Public
	text string
}

func (e *publicError) Error() string { return e.text }
func (e *publicError) Unwrap() error { return &e.Public }

// send writes one message, by one call if the socket has room for it.
func send(c *net.UnixConn, v any, files []*os.File) error {
	var message bytes.Buffer
	message.Write(make([]byte, headerSize))
	if err := json.NewEncoder(&message).Encode(v); err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	size := message.Len() - headerSize
	if size > maxMessage || len(files) > maxFiles {
		return fmt.Errorf("message of %d bytes and %d files: %w", size, len(files), errdefs.ErrInvalid)
	}
	binary.LittleEndian.PutUint32(message.Bytes(), uint32(size))
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(message.Bytes(), rights, nil)
	if err != nil || n == message.Len() {
		return err // who has all of it may have answered and closed
	}
	_, err = c.Write(message.Bytes()[n:])
	return err
}

// aside runs f on a stack of its own. A stack that has grown is not given back
// while its goroutine waits: who is to wait for long does what comes before here.
func aside(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// awaitMessage returns when there is something to read, the end or a failure
// included, or the deadline is over. It is for messages that may be days away:
// a goroutine that waits here keeps no buffers and a small stack.
func awaitMessage(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		_, err := linux.RetryEINTR(func() (int, error) {
			n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			return n, err
		})
		return !errors.Is(err, unix.EAGAIN)
	})
}

// receive reads one message into v; io.EOF if the peer has closed before it.
// The caller closes the files.
func receive(c *net.UnixConn, v any) ([]*os.File, error) {
	header := make([]byte, headerSize)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := c.ReadMsgUnix(header, oob)
	if err != nil {
		return nil, err
	}
	files, err := linux.ParseRights(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if err := receiveBody(c, header, n, flags, v); err != nil {
		linux.CloseAll(files)
		return nil, err
	}
	return files, nil
}

func receiveBody(c io.Reader, header []byte, n, flags int, v any) error {
	if n == 0 {
		return io.EOF
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return errors.New("too many descriptors in a message")
	}
	if _, err := io.ReadFull(c, header[n:]); err != nil {
		return err
	}
	return decode(c, binary.LittleEndian.Uint32(header), v)
}

// decode reads a body of size bytes, which is not trusted.
func decode(r io.Reader, size uint32, v any) error {
	if size > maxMessage {
		return fmt.Errorf("message of %d bytes: %w", size, errdefs.ErrInvalid)
	}
	// Memory grows with what arrives, not with what is announced.
	var body bytes.Buffer
	body.Grow(int(min(size, usualMessage)) + bytes.MinRead)
	if _, err := body.ReadFrom(io.LimitReader(r, int64(size))); err != nil {
		return err
	}
	if body.Len() < int(size) {
		return io.ErrUnexpectedEOF
	}
	if err := json.Unmarshal(body.Bytes(), v); err != nil {
		return fmt.Errorf("decode message: %w: %w", err, errdefs.ErrInvalid)
	}
	return nil
}
