// Package consoles is the proxy of consoles of the embedded cloud: what
// nova-novncproxy and nova-serialproxy are beside Nova, and the pages that a
// browser needs.
//
//	/console/vnc.html     noVNC (novnc/, MPL-2.0), for URLs of VNC consoles
//	/console/serial.html  a plain page for serial consoles
//	/console/serial       the websocket of serial consoles
//	/                     the websocket of VNC consoles, where clients of Nova look for it
//
// A websocket is let in by the token in its URL, as long as that is good and the
// host says that the port is still that of the instance. Browsers must come from
// the cloud's own pages. What it carries are the bytes of the console.
package consoles

import (
	"context"
	"embed"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Paths of the pages and of the websocket of serial consoles.
const (
	VNCPage    = "/console/vnc.html"
	SerialPath = "/console/serial"
)

// Target is where a token leads.
type Target struct {
	// Kind is Nova's type of console: novnc or serial.
	Kind     string
	Instance string
	Host     string
	Port     int
}

// Options of New.
type Options struct {
	// Find returns what a token leads to; errdefs.ErrNotFound if it is not good,
	// or no longer.
	Find func(ctx context.Context, token string) (Target, error)
	Log  zerolog.Logger
}

//go:embed pages novnc/core novnc/vendor novnc/LICENSE.MPL-2.0 novnc/COPYRIGHT
var files embed.FS

const (
	dialPatience  = 10 * time.Second
	writePatience = 20 * time.Second
	// maxFrame is the largest message of a viewer (bytes).
	maxFrame = 1 << 20
	// checkPeriod is how often it is looked whether a silent viewer is there.
	checkPeriod = 30 * time.Second
)

type proxy struct{ o Options }

// Register adds the proxy to mux.
func Register(mux *http.ServeMux, o Options) error {
	p := &proxy{o}
	pages, err := fs.Sub(files, "pages")
	if err != nil {
		return err
	}
	own := http.StripPrefix("/console/", secured(http.FileServerFS(pages)))
	mux.Handle("GET "+VNCPage, own)
	mux.Handle("GET /console/vnc.js", own)
	mux.Handle("GET /console/serial.html", own)
	mux.Handle("GET /console/serial.js", own)
	mux.Handle("GET /console/console.css", own)
	mux.Handle("GET /console/novnc/", http.StripPrefix("/console/", secured(http.FileServerFS(files))))
	mux.Handle("GET "+SerialPath, p.serve("serial"))
	mux.Handle("GET /{$}", p.serve("novnc"))
	return nil
}

// secured keeps the token of a page's URL from others. Pages may be framed, as a
// dashboard does.
func secured(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:")
		h.ServeHTTP(w, r)
	})
}

// serve joins a websocket and a console.
func (p *proxy) serve(kind string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			http.NotFound(w, r)
			return
		}
		target, err := p.o.Find(r.Context(), r.URL.Query().Get("token"))
		if err == nil && target.Kind != kind {
			err = errdefs.ErrNotFound
		}
		log := p.o.Log.With().Str(logging.Instance, target.Instance).Str("viewer", r.RemoteAddr).Str("kind", kind).Logger()
		switch {
		case errors.Is(err, errdefs.ErrNotFound):
			log.Info().Msg("a token of no console")
			http.Error(w, "The token is invalid or has expired.", http.StatusForbidden)
			return
		case err != nil:
			log.Warn().Err(err).Msg("console not found")
			http.Error(w, "The console is not available.", http.StatusBadGateway)
			return
		}
		dialer := net.Dialer{Timeout: dialPatience}
		conn, err := dialer.DialContext(r.Context(), "tcp", net.JoinHostPort(target.Host, strconv.Itoa(target.Port)))
		if err != nil {
			log.Warn().Err(err).Msg("console not reached")
			http.Error(w, "The console is not available.", http.StatusBadGateway)
			return
		}
		defer func() { _ = conn.Close() }()
		// Accept refuses other origins.
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"binary"}})
		if err != nil {
			log.Info().Err(err).Msg("viewer of a console refused")
			return
		}
		log.Info().Msg("viewer of a console")
		err = join(r.Context(), ws, conn)
		log.Info().Err(err).Msg("viewer of a console has gone")
	})
}

// join copies until either end closes.
func join(ctx context.Context, ws *websocket.Conn, conn net.Conn) error {
	ws.SetReadLimit(maxFrame)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	typed := make(chan error, 1)
	go func() {
		defer func() { _ = conn.Close() }() // ends the other direction
		for {
			_, b, err := ws.Read(ctx)
			if err == nil {
				_ = conn.SetWriteDeadline(time.Now().Add(writePatience))
				_, err = conn.Write(b)
			}
			if err != nil {
				typed <- err
				return
			}
		}
	}()
	go check(ctx, ws, cancel)
	buf := make([]byte, 32<<10)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			writing, done := context.WithTimeout(ctx, writePatience)
			werr := ws.Write(writing, websocket.MessageBinary, buf[:n])
			done()
			err = errors.Join(err, werr)
		}
		if err != nil {
			_ = ws.Close(websocket.StatusNormalClosure, "the console has ended")
			cancel()
			if why := <-typed; websocket.CloseStatus(why) != -1 || errors.Is(err, io.EOF) {
				return nil // the viewer has left, or the console has ended
			}
			return err
		}
	}
}

// check ends a viewer that no longer answers.
func check(ctx context.Context, ws *websocket.Conn, cancel context.CancelFunc) {
	tick := time.NewTicker(checkPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pinging, done := context.WithTimeout(ctx, writePatience)
		err := ws.Ping(pinging)
		done()
		if err != nil {
			cancel()
			return
		}
	}
}
