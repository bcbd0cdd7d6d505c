package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// A request that needs the client's files asks to change the protocol
// ("Upgrade: gantry-files"). After "101 Switching Protocols" the client sends
// one byte with its descriptors (SCM_RIGHTS, unix(7)); from then on both sides
// send JSON documents, one a line: the client command documents, the server
// report documents. The end of the connection tells the other side that this
// one is gone.
const upgradeProtocol = "gantry-files"

// command is what a client says once its request goes on.
type command struct {
	// Signal is to be sent to the command.
	Signal int `json:"signal,omitempty"`
	// Detach lets the command go on when the connection ends.
	Detach bool `json:"detach,omitempty"`
}

// report is what a server says.
type report struct {
	Error   *Failure `json:"error,omitempty"`
	Session *Session `json:"session,omitempty"`
	Exit    *Exit    `json:"exit,omitempty"`
	Image   *Image   `json:"image,omitempty"`
}

const (
	// rightsTime is how long a client may take to send its descriptors.
	rightsTime = 10 * time.Second
	maxRights  = 3
	// maxLine bounds one document.
	maxLine = 64 << 10
)

// channel is a connection that has changed its protocol.
type channel struct {
	conn *net.UnixConn
	in   *bufio.Reader
}

// upgrade changes the protocol of a request and takes the client's files,
// which the caller closes with the channel. Errors before are responses; with
// began the response has begun.
func upgrade(w http.ResponseWriter, r *http.Request) (ch *channel, files []*os.File, err error) {
	if r.Header.Get("Upgrade") != upgradeProtocol {
		return nil, nil, fmt.Errorf("%s %s needs files: ask for the protocol %s: %w", r.Method, r.URL.Path, upgradeProtocol, errdefs.ErrInvalid)
	}
	raw, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take over connection: %w", err)
	}
	conn, ok := raw.(*net.UnixConn)
	if !ok || buf.Reader.Buffered() > 0 {
		_ = raw.Close()
		return nil, nil, fmt.Errorf("take over connection: not a unix socket, or something was sent ahead: %w", errdefs.ErrInvalid)
	}
	files, err = takeFiles(conn)
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return &channel{conn: conn, in: bufio.NewReaderSize(conn, 4096)}, files, nil
}

func takeFiles(conn *net.UnixConn) ([]*os.File, error) {
	if err := conn.SetDeadline(time.Now().Add(rightsTime)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+upgradeProtocol+"\r\n\r\n"); err != nil {
		return nil, fmt.Errorf("change protocol: %w", err)
	}
	oob := make([]byte, unix.CmsgSpace(4*maxRights))
	n, oobn, flags, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, fmt.Errorf("take files: %w", err)
	}
	files, err := linux.ParseRights(oob[:oobn])
	if err == nil && (n != 1 || flags&unix.MSG_CTRUNC != 0) {
		err = fmt.Errorf("no byte, or more than %d files: %w", maxRights, errdefs.ErrInvalid)
	}
	if err != nil {
		linux.CloseAll(files)
		return nil, fmt.Errorf("take files: %w", err)
	}
	return files, conn.SetDeadline(time.Time{})
}

// tell sends one document. A client that does not read is not waited for.
func (c *channel) tell(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(rightsTime)); err != nil {
		return err
	}
	_, err = c.conn.Write(append(data, '\n'))
	return err
}

// hear reads one document; io.EOF when the other side has closed.
func (c *channel) hear(v any) error {
	var line []byte
	for {
		part, err := c.in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return fmt.Errorf("a document of more than %d bytes: %w", maxLine, errdefs.ErrInvalid)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return err
		}
		if err := json.Unmarshal(line, v); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrInvalid, err)
		}
		return nil
	}
}

func (c *channel) close() { _ = c.conn.Close() }
