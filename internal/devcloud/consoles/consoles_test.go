package consoles_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/devcloud/consoles"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// echo is a console that says what it is told until it is told "bye".
func echo(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				buf := make([]byte, 100)
				for {
					n, err := conn.Read(buf)
					if err != nil || string(buf[:n]) == "bye" {
						return
					}
					_, _ = conn.Write(buf[:n])
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // of TCP
}

func TestProxy(t *testing.T) {
	port := echo(t)
	mux := http.NewServeMux()
	err := consoles.Register(mux, consoles.Options{Log: zerolog.Nop(), Find: func(_ context.Context, token string) (consoles.Target, error) {
		switch token {
		case "vnc":
			return consoles.Target{Kind: "novnc", Instance: "i", Host: "127.0.0.1", Port: port}, nil
		case "serial":
			return consoles.Target{Kind: "serial", Instance: "i", Host: "127.0.0.1", Port: port}, nil
		case "broken":
			return consoles.Target{}, fmt.Errorf("no host: %w", errdefs.ErrUnavailable)
		}
		return consoles.Target{}, fmt.Errorf("token: %w", errdefs.ErrNotFound)
	}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(mux)
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, tc := range []struct {
		path, origin string
		status       int
	}{
		{"/?token=vnc", "", 101},
		{"/?token=vnc", s.URL, 101},
		{"/?token=vnc", "http://elsewhere.example", 403},
		{"/console/serial?token=serial", "", 101},
		{"/?token=serial", "", 403},
		{"/console/serial?token=vnc", "", 403},
		{"/?token=expired", "", 403},
		{"/", "", 403},
		{"/?token=broken", "", 502},
	} {
		o := &websocket.DialOptions{Subprotocols: []string{"binary"}}
		if tc.origin != "" {
			o.HTTPHeader = http.Header{"Origin": {tc.origin}}
		}
		ws, res, err := websocket.Dial(ctx, s.URL+tc.path, o) //nolint:bodyclose // closed by Dial or with the websocket
		if res == nil || res.StatusCode != tc.status {
			t.Errorf("%s from %q: %v, want %d", tc.path, tc.origin, err, tc.status)
		}
		if err != nil {
			continue
		}
		if ws.Subprotocol() != "binary" {
			t.Errorf("subprotocol %q", ws.Subprotocol())
		}
		conn := websocket.NetConn(ctx, ws, websocket.MessageBinary)
		_, _ = io.WriteString(conn, "hello")
		got := make([]byte, 5)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q, %v", tc.path, got, err)
		}
		_, _ = io.WriteString(conn, "bye")
		if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
			t.Errorf("%s: at the end %q, %v", tc.path, rest, err)
		}
	}
	for path, want := range map[string]string{
		"/console/vnc.html": "vnc.js", "/console/vnc.js": "RFB", "/console/serial.html": "serial.js", "/console/serial.js": "WebSocket",
		"/console/console.css": "#screen", "/console/novnc/core/rfb.js": "noVNC", "/console/novnc/LICENSE.MPL-2.0": "Mozilla",
		"/console/novnc/vendor/pako/lib/zlib/inflate.js": "inflate",
	} {
		res, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != 200 || !strings.Contains(string(b), want) {
			t.Errorf("%s: %d, %v", path, res.StatusCode, err)
		}
	}
	res, err := http.Get(s.URL + "/")
	if err != nil {
		t.Fatalf("no websocket: %v", err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusNotFound {
		t.Errorf("no websocket: %d", res.StatusCode)
	}
}
