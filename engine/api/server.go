package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// Options of a Server.
type Options struct {
	Backend Backend
	// Version of the program.
	Version string
	// Owner names who decides over a container, by its labels; "" is whoever
	// uses the socket. nil owns none. Changes to an owned container are refused
	// unless they are forced.
	Owner func(labels map[string]string) string
	// NoCreate, if set, says why containers cannot be made over this socket.
	NoCreate string
	Log      zerolog.Logger
}

// Server serves a Backend. Make it with New.
type Server struct {
	opts Options
	http *http.Server
	// hijacked are the connections that changed their protocol.
	hijacked sync.WaitGroup
	// life ends when the server stops.
	life context.Context //nolint:containedctx // ends what goes on on hijacked connections
	stop context.CancelFunc
}

// Limits of requests.
const (
	maxBody    = 1 << 20
	maxHeader  = 64 << 10
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	endTime    = 2 * time.Second // of requests under way when the server ends
)

// New returns a server. ctx gives values to requests; its end does not stop
// the server, Serve's does.
func New(ctx context.Context, o Options) *Server {
	s := &Server{opts: o}
	s.life, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.http = &http.Server{
		Handler: s.routes(), MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime,
		BaseContext: func(net.Listener) context.Context { return s.life },
		ConnContext: withPeer,
		// what it says is about clients that are gone
		ErrorLog: stdlog.New(io.Discard, "", 0),
	}
	return s
}

// Serve answers on the listener until ctx ends, and closes it. Requests under
// way are ended then and waited for, some seconds at most: what they do is
// undone or finished as each operation promises.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	closed := make(chan struct{})
	unasked := context.AfterFunc(ctx, func() {
		defer close(closed)
		s.stop()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if s.http.Shutdown(late) != nil {
			_ = s.http.Close()
		}
	})
	err := s.http.Serve(l)
	if !unasked() {
		<-closed
	}
	s.stop()
	s.hijacked.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", l.Addr(), err)
}

// handler answers a request with a document, or fails.
type handler func(r *http.Request) (any, error)

// routes is the whole list.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"GET /v1/info":                               s.info,
		"GET /v1/containers":                         s.list,
		"POST /v1/containers":                        s.create,
		"GET /v1/containers/{id}":                    s.state,
		"DELETE /v1/containers/{id}":                 s.remove,
		"POST /v1/containers/{id}/start":             s.start,
		"POST /v1/containers/{id}/stop":              s.stopOne,
		"POST /v1/containers/{id}/kill":              s.kill,
		"POST /v1/containers/{id}/pause":             s.pause,
		"POST /v1/containers/{id}/resume":            s.resume,
		"POST /v1/containers/{id}/update":            s.update,
		"POST /v1/containers/{id}/checkpoint":        s.checkpoint,
		"POST /v1/containers/{id}/restore":           s.restore,
		"GET /v1/containers/{id}/wait":               s.wait,
		"POST /v1/containers/{id}/resize":            s.resize,
		"GET /v1/containers/{id}/top":                s.top,
		"PUT /v1/containers/{id}/archive":            s.copyIn,
		"GET /v1/containers/{id}/execs":              s.execs,
		"GET /v1/containers/{id}/execs/{exec}/wait":  s.execWait,
		"POST /v1/containers/{id}/execs/{exec}/kill": s.execKill,
		"POST /v1/containers/{id}/commit":            s.commitImage,
		"GET /v1/containers/{id}/changes":            s.changes,
		"GET /v1/images":                             s.images,
		"GET /v1/images/history":                     s.history,
		"POST /v1/images/prune":                      s.prune,
		"DELETE /v1/images":                          s.removeImage,
	} {
		mux.Handle(pattern, s.answer(h))
	}
	for pattern, h := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /v1/containers/{id}/logs":    s.logs,
		"GET /v1/containers/{id}/stats":   s.stats,
		"GET /v1/containers/{id}/archive": s.copyOut,
		"GET /v1/containers/{id}/commit":  s.commit,
		"GET /v1/containers/{id}/export":  s.export,
		"GET /v1/images/archive":          s.exportImage,
		"GET /v1/events":                  s.events,
		"POST /v1/containers/{id}/attach": s.attach,
		"POST /v1/containers/{id}/exec":   s.exec,
		"POST /v1/images":                 s.importImage,
	} {
		mux.Handle(pattern, s.guard(h))
	}
	mux.Handle("/", s.guard(func(_ http.ResponseWriter, r *http.Request) error {
		return fmt.Errorf("no such request: %s %s: %w", r.Method, r.URL.Path, errdefs.ErrNotFound)
	}))
	return mux
}

// answer makes a handler of documents one of HTTP.
func (s *Server) answer(h handler) http.Handler {
	return s.guard(func(w http.ResponseWriter, r *http.Request) error {
		doc, err := h(r)
		if err != nil {
			return err
		}
		if doc == nil {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(doc)
	})
}

// guard admits the peer, checks ids, and turns an error into a response. An
// error after the response has begun breaks the connection off.
func (s *Server) guard(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		err := admit(r.Context())
		if err == nil {
			err = checkIDs(r)
		}
		tw := &tracked{ResponseWriter: w}
		if err == nil {
			err = h(tw, r)
		}
		s.opts.Log.Debug().Err(err).Str(logging.Method, r.Method).Str("path", r.URL.Path).Dur(logging.Took, time.Since(began)).Msg("request on the socket")
		switch {
		case err == nil:
		case !tw.begun:
			respond(w, err)
		default:
			panic(http.ErrAbortHandler)
		}
	})
}

func respond(w http.ResponseWriter, err error) {
	f, status := failureOf(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(failed{f}) // a client that is gone reads no error
}

// tracked knows whether a response has begun.
type tracked struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (t *tracked) WriteHeader(status int) {
	t.begun = true
	t.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (t *tracked) Write(p []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find the rest.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// checkIDs refuses ids that cannot be ones before anything looks for them.
func checkIDs(r *http.Request) error {
	for _, key := range []string{"id", "exec"} {
		id := r.PathValue(key)
		if len(id) > 64 || id == "." || id == ".." {
			return fmt.Errorf("id %.80q: %w", id, errdefs.ErrInvalid)
		}
		for _, c := range id {
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			default:
				return fmt.Errorf("id %.80q: %w", id, errdefs.ErrInvalid)
			}
		}
	}
	return nil
}

// body reads a document of at most maxBody bytes. An empty body is the zero
// document.
func body(r *http.Request, v any) error {
	data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return fmt.Errorf("request of more than %d bytes: %w", maxBody, errdefs.ErrInvalid)
	case err != nil:
		return fmt.Errorf("read request: %w: %w", err, errdefs.ErrInvalid)
	case len(data) == 0:
		return nil
	}
	return decode(data, v)
}

func id(r *http.Request) engine.ContainerID { return engine.ContainerID(r.PathValue("id")) }
