package ovs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// maxAnswer bounds what a database may say at once, in bytes.
const maxAnswer = 8 << 20

// client asks one database. The zero timeout means no limit but the context's.
type client struct {
	network, address string
	timeout          time.Duration
}

// parseConnection reads os-vif's ovsdb_connection: tcp:HOST:PORT or unix:PATH.
func parseConnection(s string) (network, address string, err error) {
	kind, at, _ := strings.Cut(s, ":")
	switch {
	case kind == "tcp":
		if host, port, err := net.SplitHostPort(at); err != nil || host == "" || port == "" {
			return "", "", fmt.Errorf("ovsdb connection %q: no host and port: %w", s, errdefs.ErrInvalid)
		}
		return "tcp", at, nil
	case kind == "unix" && at != "":
		return "unix", at, nil
	}
	return "", "", fmt.Errorf("ovsdb connection %q: neither tcp:HOST:PORT nor unix:PATH: %w", s, errdefs.ErrInvalid)
}

// message is a request, an answer or a notification (RFC 7047, section 4).
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  json.RawMessage `json:"error,omitempty"`
}

// result is the outcome of one operation of a transaction.
type result struct {
	Error   string           `json:"error"`
	Details string           `json:"details"`
	Rows    []map[string]any `json:"rows"`
	Count   int              `json:"count"`
}

// errChanged says that a wait did not hold: somebody was faster.
var errChanged = errors.New("the database changed meanwhile")

// transact makes all operations, or none. A database that cannot be reached, or
// does not answer in time, is errdefs.ErrUnavailable; one that refuses
// errdefs.ErrConflict; an answer that is none errdefs.ErrCorrupt.
func (c *client) transact(ctx context.Context, ops ...op) ([]result, error) {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, c.network, c.address)
	if err != nil {
		return nil, c.silent(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	params := []any{"Open_vSwitch"}
	for _, o := range ops {
		params = append(params, o)
	}
	if err := json.NewEncoder(conn).Encode(map[string]any{"id": 0, "method": "transact", "params": params}); err != nil {
		return nil, c.silent(err)
	}
	answer, err := c.answer(conn)
	if err != nil {
		return nil, err
	}
	return outcome(answer, len(ops))
}

func (c *client) silent(err error) error {
	return fmt.Errorf("open vswitch database at %s:%s does not answer: %w: %w", c.network, c.address, err, errdefs.ErrUnavailable)
}

// answer reads until the answer, and meanwhile says that we are alive.
func (c *client) answer(conn net.Conn) (json.RawMessage, error) {
	in := json.NewDecoder(bufio.NewReader(&limited{conn: conn, left: maxAnswer}))
	for {
		var m message
		if err := in.Decode(&m); err != nil {
			var syntax *json.SyntaxError
			var kind *json.UnmarshalTypeError
			if errors.As(err, &syntax) || errors.As(err, &kind) || errors.Is(err, errTooMuch) {
				return nil, fmt.Errorf("open vswitch database: %w: %w", err, errdefs.ErrCorrupt)
			}
			return nil, c.silent(err)
		}
		switch {
		case m.Method == "echo":
			if err := json.NewEncoder(conn).Encode(map[string]any{"id": m.ID, "result": m.Params, "error": nil}); err != nil {
				return nil, c.silent(err)
			}
		case m.Method != "":
			// a notification that nobody asked for
		case len(m.Error) > 0 && string(m.Error) != "null":
			return nil, fmt.Errorf("open vswitch database: %s: %w", m.Error, errdefs.ErrConflict)
		default:
			return m.Result, nil
		}
	}
}

// outcome reads the results of n operations (RFC 7047, section 4.1.3): behind
// them there may be one more, the failure of the whole.
func outcome(answer json.RawMessage, n int) ([]result, error) {
	var all []*result
	if err := json.Unmarshal(answer, &all); err != nil {
		return nil, fmt.Errorf("open vswitch database: %w: %w", err, errdefs.ErrCorrupt)
	}
	out := make([]result, 0, n)
	for _, r := range all {
		switch {
		case r == nil: // came after one that failed
		case r.Error == "timed out":
			return nil, fmt.Errorf("open vswitch database: %w: %w", errChanged, errdefs.ErrConflict)
		case r.Error != "":
			return nil, fmt.Errorf("open vswitch database: %s: %s: %w", r.Error, r.Details, errdefs.ErrConflict)
		default:
			out = append(out, *r)
		}
	}
	if len(out) < n {
		return nil, fmt.Errorf("open vswitch database: %d results of %d: %w", len(out), n, errdefs.ErrCorrupt)
	}
	return out, nil
}

var errTooMuch = errors.New("answer is too long")

// limited is a reader of so much and no more.
type limited struct {
	conn net.Conn
	left int
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, errTooMuch
	}
	n, err := l.conn.Read(b[:min(len(b), l.left)])
	l.left -= n
	return n, err
}
