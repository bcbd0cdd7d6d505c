//go:build functional

package functional

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/remoteconsoles"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/gantry-project/gantry/console/terminal"
)

// consoleURL asks Nova for a console.
func (c *cloud) consoleURL(t *testing.T, id string, protocol remoteconsoles.ConsoleProtocol, kind remoteconsoles.ConsoleType) (string, error) {
	t.Helper()
	client := *c.demo.compute
	client.Microversion = "2.8"
	con, err := remoteconsoles.Create(t.Context(), &client, id, remoteconsoles.CreateOpts{Protocol: protocol, Type: kind}).Extract()
	if err != nil {
		return "", err
	}
	return con.URL, nil
}

// dialConsole connects as a browser does: by the token in the URL.
func dialConsole(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := tryConsole(t, address)
	if err != nil {
		t.Fatalf("connect to %s: %v", address, err)
	}
	return conn
}

func tryConsole(t *testing.T, address string) (net.Conn, error) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if path := u.Query().Get("path"); path != "" { // noVNC's page
		u.Path, u.RawQuery = "/", strings.TrimPrefix(path, "?")
	}
	u.Scheme = "ws"
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	t.Cleanup(cancel)
	ws, _, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{Subprotocols: []string{"binary"}}) //nolint:bodyclose // the library has closed it
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	conn := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	t.Cleanup(func() { _ = conn.Close() })
	return conn, nil
}

// readTo reads until some text has come.
func readTo(t *testing.T, r io.Reader, want string) {
	t.Helper()
	var all []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(all, []byte(want)) {
		n, err := r.Read(buf)
		all = append(all, buf[:n]...)
		if err != nil {
			t.Fatalf("waiting for %q on the console, after %q: %v", want, all, err)
		}
	}
}

// typist boots an instance with a shell on its console.
func (c *cloud) typist(t *testing.T) string {
	t.Helper()
	name := strings.ToLower(t.Name())
	c.upload(t, name, "bare", filepath.Join(c.state, "images/busybox.tar"), map[string]string{
		"os_command_line": "/bin/sh -c 'echo this is a container; exec /bin/sh -i'",
	})
	id := c.active(t, bootOpts{image: name, network: "none"})
	c.waitConsole(t, id, "a container")
	return id
}

// TestFunctionalSerialConsole types into an instance through the real nova-serialproxy.
func TestFunctionalSerialConsole(t *testing.T) {
	id := the.typist(t)
	address, err := the.consoleURL(t, id, "serial", "serial")
	if err != nil {
		t.Fatal(err)
	}
	first := dialConsole(t, address)
	readTo(t, first, "a container") // what was said before
	second := dialConsole(t, address)
	if _, err := io.WriteString(first, "echo sum-$((40+2))\r"); err != nil {
		t.Fatal(err)
	}
	readTo(t, first, "sum-42")
	readTo(t, second, "sum-42")
	// a terminal that says how large it is sets the size
	if _, err := io.WriteString(second, "\x1b[8;33;101tstty size\r"); err != nil {
		t.Fatal(err)
	}
	readTo(t, first, "33 101")
	if _, err := the.consoleURL(t, id, "spice", "spice-html5"); err == nil || !strings.Contains(err.Error(), "Unavailable console type") {
		t.Errorf("SPICE: %v", err)
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.RawQuery = "token=6d0ff1f4-0000-4000-8000-000000000000"
	if conn, err := tryConsole(t, u.String()); err == nil {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a token that was never given lets in")
		}
	}
	if err := servers.Delete(t.Context(), the.demo.compute, id).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(first); err != nil && !strings.Contains(err.Error(), "clos") {
		t.Logf("end of the console: %v", err)
	}
}

// TestFunctionalVNCConsole looks at and types into an instance through the real
// nova-novncproxy.
func TestFunctionalVNCConsole(t *testing.T) {
	id := the.typist(t)
	address, err := the.consoleURL(t, id, "vnc", "novnc")
	if err != nil {
		t.Fatal(err)
	}
	v := dialVNC(t, dialConsole(t, address))
	v.waitText("a container")
	for _, r := range "echo sum-$((40+2))" {
		v.key(uint32(r))
	}
	v.key(0xff0d)
	v.waitText("sum-42")
	v.key('l')
	v.key('s')
	v.key(0xff08)
	v.waitText("l")
}

// vncScreen is a client of RFB 3.8 with raw pixels.
type vncScreen struct {
	t    *testing.T
	conn net.Conn
	size image.Point
	px   []uint32
}

func dialVNC(t *testing.T, conn net.Conn) *vncScreen {
	t.Helper()
	v := &vncScreen{t: t, conn: conn}
	v.want("RFB 003.008\n")
	v.send([]byte("RFB 003.008\n"))
	v.want("\x01\x01")
	v.send([]byte{1})
	v.want("\x00\x00\x00\x00")
	v.send([]byte{1})
	head := v.take(24)
	v.size = image.Pt(int(binary.BigEndian.Uint16(head)), int(binary.BigEndian.Uint16(head[2:])))
	v.take(int(binary.BigEndian.Uint32(head[20:])))
	v.px = make([]uint32, v.size.X*v.size.Y)
	return v
}

func (v *vncScreen) take(n int) []byte {
	v.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(v.conn, b); err != nil {
		v.t.Fatalf("VNC: %v", err)
	}
	return b
}

func (v *vncScreen) want(s string) {
	v.t.Helper()
	if got := v.take(len(s)); string(got) != s {
		v.t.Fatalf("VNC says %q, want %q", got, s)
	}
}

func (v *vncScreen) send(b []byte) {
	v.t.Helper()
	if _, err := v.conn.Write(b); err != nil {
		v.t.Fatalf("VNC: %v", err)
	}
}

// key presses and lets go.
func (v *vncScreen) key(sym uint32) {
	for _, down := range []byte{1, 0} {
		v.send(binary.BigEndian.AppendUint32([]byte{4, down, 0, 0}, sym))
	}
}

// waitText waits until the picture shows a text.
func (v *vncScreen) waitText(text string) {
	v.t.Helper()
	end := time.Now().Add(bootLimit)
	for first := true; !v.shows(text); first = false {
		if time.Now().After(end) {
			v.t.Fatalf("the screen does not show %q", text)
		}
		ask := []byte{3, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}
		if first {
			ask[1] = 0
		}
		v.send(ask)
		n := int(binary.BigEndian.Uint16(v.take(4)[2:]))
		for range n {
			r := v.take(12)
			u16 := func(i int) int { return int(binary.BigEndian.Uint16(r[i:])) }
			for y := range u16(6) {
				row := v.take(4 * u16(4))
				for x := range u16(4) {
					v.px[(u16(2)+y)*v.size.X+u16(0)+x] = binary.LittleEndian.Uint32(row[4*x:]) & 0xffffff
				}
			}
		}
	}
}

// shows compares every place of the screen with the text as it is drawn.
func (v *vncScreen) shows(text string) bool {
	term := terminal.New(terminal.MaxColumns, 5, nil)
	_, _ = fmt.Fprint(term, text)
	w := len(text) * terminal.CellWidth
	want := make([]uint32, w*terminal.CellHeight)
	terminal.NewPicture(term).Draw(image.Rect(0, 0, w, terminal.CellHeight), want)
	for y := 0; y < v.size.Y; y += terminal.CellHeight {
		for x := 0; x+w <= v.size.X; x += terminal.CellWidth {
			same := true
			for row := 0; row < terminal.CellHeight && same; row++ {
				same = slices.Equal(v.px[(y+row)*v.size.X+x:][:w], want[row*w:][:w])
			}
			if same {
				return true
			}
		}
	}
	return false
}
