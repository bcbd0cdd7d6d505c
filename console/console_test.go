package console_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/console"
	"github.com/gantry-project/gantry/console/rfb"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// host has one instance, "vm", whose console echoes.
type host struct {
	mu      sync.Mutex
	said    []byte              // guarded by mu
	streams map[*stream]bool    // guarded by mu
	size    [2]uint16           // guarded by mu
	more    map[string]struct{} // guarded by mu: further instances
}

type stream struct {
	h *host
	r *io.PipeReader
	w *io.PipeWriter
}

func (h *host) open(_ context.Context, instance string) (console.Stream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.more[instance]; !ok && instance != "vm" {
		return nil, fmt.Errorf("no %s: %w", instance, errdefs.ErrNotFound)
	}
	s := &stream{h: h}
	s.r, s.w = io.Pipe()
	if h.streams == nil {
		h.streams = map[*stream]bool{}
	}
	h.streams[s] = true
	past := bytes.Clone(h.said)
	go func() { _, _ = s.w.Write(past) }()
	return s, nil
}

func (h *host) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.streams {
		_ = s.w.Close()
	}
	clear(h.streams)
}

func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p) }

func (s *stream) Write(p []byte) (int, error) {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	echo := bytes.ReplaceAll(p, []byte("\r"), []byte("\r\n"))
	s.h.said = append(s.h.said, echo...)
	for x := range s.h.streams {
		go func() { _, _ = x.w.Write(echo) }()
	}
	return len(p), nil
}

func (s *stream) Close() error {
	s.h.mu.Lock()
	delete(s.h.streams, s)
	s.h.mu.Unlock()
	return errors.Join(s.r.CloseWithError(os.ErrClosed), s.w.CloseWithError(os.ErrClosed))
}

func (s *stream) Resize(_ context.Context, rows, cols uint16) error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.h.size = [2]uint16{rows, cols}
	return nil
}

func (h *host) sized() [2]uint16 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.size
}

func server(t *testing.T, h *host, change func(*console.Options)) *console.Server {
	t.Helper()
	o := console.Options{
		Open: h.open, SerialAddress: "127.0.0.1", VNCAddress: "127.0.0.1", Security: rfb.Security{Plain: true},
		Keep: time.Minute, MaxConsoles: 4, MaxViewers: 3, Log: zerolog.Nop(),
	}
	if change != nil {
		change(&o)
	}
	s := console.New(t.Context(), o)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func dial(t *testing.T, s *console.Server, instance string, kind console.Kind) net.Conn {
	t.Helper()
	at, port, err := s.Serve(t.Context(), instance, kind)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Serves(instance, kind, port) || s.Serves(instance, kind, port+1) || s.Serves("other", kind, port) {
		t.Error("Serves does not know the port")
	}
	conn, err := net.Dial("tcp", net.JoinHostPort(at, strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	return conn
}

func reads(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got[:n], err, want)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestSerial(t *testing.T) {
	h := &host{}
	s := server(t, h, nil)
	a := dial(t, s, "vm", console.Serial)
	_, _ = io.WriteString(a, "first\r")
	reads(t, a, "first\r\n")
	b := dial(t, s, "vm", console.Serial)
	reads(t, b, "first\r\n")
	_, _ = io.WriteString(b, "\x1b[8;40;132tsecond\r\x1b[A")
	reads(t, a, "second\r\n\x1b[A")
	reads(t, b, "second\r\n\x1b[A")
	if got := h.sized(); got != [2]uint16{40, 132} {
		t.Errorf("size %v", got)
	}
	h.end()
	if rest, err := io.ReadAll(b); err != nil || len(rest) > 0 {
		t.Errorf("at the end: %q, %v", rest, err)
	}
}

func TestLimits(t *testing.T) {
	h := &host{more: map[string]struct{}{"2": {}, "3": {}}}
	s := server(t, h, func(o *console.Options) { o.MaxConsoles, o.MaxViewers, o.VNCAddress = 2, 1, "" })
	if _, _, err := s.Serve(t.Context(), "vm", console.VNC); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("a kind that is not served: %v", err)
	}
	if _, _, err := s.Serve(t.Context(), "nobody", console.Serial); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("an instance that is not there: %v", err)
	}
	a := dial(t, s, "vm", console.Serial)
	_, _ = io.WriteString(a, "x")
	reads(t, a, "x")
	b := dial(t, s, "vm", console.Serial)
	if _, err := io.ReadAll(b); err != nil {
		t.Errorf("a viewer too many: %v", err)
	}
	dial(t, s, "2", console.Serial)
	if _, _, err := s.Serve(t.Context(), "3", console.Serial); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("a console too many: %v", err)
	}
	s.Drop("vm")
	if _, err := io.ReadAll(a); err != nil {
		t.Errorf("a dropped viewer: %v", err)
	}
	if _, _, err := s.Serve(t.Context(), "3", console.Serial); err != nil {
		t.Errorf("after one was dropped: %v", err)
	}
}

func TestPortRange(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	taken := l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // of TCP
	s := server(t, &host{}, func(o *console.Options) { o.SerialPorts = [2]int{taken, taken} })
	if _, _, err := s.Serve(t.Context(), "vm", console.Serial); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("a range that is taken: %v", err)
	}
}

func TestIdlePortCloses(t *testing.T) {
	s := server(t, &host{}, func(o *console.Options) { o.Keep = 50 * time.Millisecond })
	conn := dial(t, s, "vm", console.Serial)
	port := conn.RemoteAddr().(*net.TCPAddr).Port //nolint:forcetypeassert // of TCP
	_, _ = io.WriteString(conn, "x")
	reads(t, conn, "x")
	_ = conn.Close()
	eventually(t, "the port closes", func() bool { return !s.Serves("vm", console.Serial, port) })
}

// TestVNC speaks the protocol by hand, as the proxy and a client do.
func TestVNC(t *testing.T) {
	h := &host{}
	s := server(t, h, nil)
	c := newVNC(t, dial(t, s, "vm", console.VNC))
	if c.w != 640 || c.h != 400 || c.name != "vm" {
		t.Errorf("%d by %d, %q", c.w, c.h, c.name)
	}
	blank := c.update(false)
	for _, r := range "hello" {
		c.key(uint32(r), true)
		c.key(uint32(r), false)
	}
	eventually(t, "the echo shows", func() bool { return !bytes.Equal(c.update(false)[:8*640*4], blank[:8*640*4]) })
	c.key(0xffe3, true) // Control
	c.key('c', true)
	eventually(t, "Ctrl-C arrives", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return strings.HasSuffix(string(h.said), "hello\x03")
	})
	if got := h.sized(); got != [2]uint16{25, 80} {
		t.Errorf("size %v", got)
	}
	h.end()
	eventually(t, "it connects again", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.streams) == 1
	})
}

// vnc is a client of RFB 3.8, raw encoding.
type vnc struct {
	t    *testing.T
	conn net.Conn
	w, h int
	name string
}

func newVNC(t *testing.T, conn net.Conn) *vnc {
	t.Helper()
	reads(t, conn, "RFB 003.008\n")
	_, _ = io.WriteString(conn, "RFB 003.008\n")
	reads(t, conn, "\x01\x01")
	_, _ = conn.Write([]byte{1})
	reads(t, conn, "\x00\x00\x00\x00")
	_, _ = conn.Write([]byte{1})
	init := make([]byte, 24)
	if _, err := io.ReadFull(conn, init); err != nil {
		t.Fatal(err)
	}
	name := make([]byte, binary.BigEndian.Uint32(init[20:]))
	if _, err := io.ReadFull(conn, name); err != nil {
		t.Fatal(err)
	}
	return &vnc{t, conn, int(binary.BigEndian.Uint16(init)), int(binary.BigEndian.Uint16(init[2:])), string(name)}
}

func (c *vnc) key(sym uint32, down bool) {
	m := []byte{4, 0, 0, 0}
	if down {
		m[1] = 1
	}
	_, _ = c.conn.Write(binary.BigEndian.AppendUint32(m, sym))
}

// update asks for the whole screen and returns it.
func (c *vnc) update(incremental bool) []byte {
	c.t.Helper()
	m := []byte{3, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}
	if incremental {
		m[1] = 1
	}
	_, _ = c.conn.Write(m)
	head := make([]byte, 4)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		c.t.Fatal(err)
	}
	out := make([]byte, c.w*c.h*4)
	for range binary.BigEndian.Uint16(head[2:]) {
		r := make([]byte, 12)
		if _, err := io.ReadFull(c.conn, r); err != nil {
			c.t.Fatal(err)
		}
		x, y := int(binary.BigEndian.Uint16(r)), int(binary.BigEndian.Uint16(r[2:]))
		w, h := int(binary.BigEndian.Uint16(r[4:])), int(binary.BigEndian.Uint16(r[6:]))
		for row := range h {
			if _, err := io.ReadFull(c.conn, out[((y+row)*c.w+x)*4:][:w*4]); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	return out
}
