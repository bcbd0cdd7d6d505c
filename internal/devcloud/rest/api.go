package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/logging"
)

// DefaultMaxBody is the longest body in bytes, but for streams (oslo.middleware's
// max_request_body_size).
const DefaultMaxBody = 114688

// Options of an API.
type Options struct {
	// Style words errors.
	Style Style
	// Auth finds callers; needed by routes made with Handle.
	Auth Authenticator
	// Microversions, nil for a service without.
	Microversions *Microversions
	// RequestIDHeaders carry the request id of an answer; default
	// X-Openstack-Request-Id.
	RequestIDHeaders []string
	// MaxBody in bytes; 0 is DefaultMaxBody.
	MaxBody int64
	// OwnUnauthorized: the service itself words that a token is missing or bad,
	// as one that delays the decision to there.
	OwnUnauthorized bool
	Log             zerolog.Logger
}

// Handler answers one kind of request: with a Response or an error, which is an
// *Error or has a class of errdefs.
type Handler func(ctx context.Context, r *Request) (*Response, error)

// API is the http.Handler of one service. Routes are added before it serves.
type API struct {
	o   Options
	mux *http.ServeMux
}

// New returns an API without routes.
func New(o Options) *API {
	if o.MaxBody == 0 {
		o.MaxBody = DefaultMaxBody
	}
	if len(o.RequestIDHeaders) == 0 {
		o.RequestIDHeaders = []string{"X-Openstack-Request-Id"}
	}
	return &API{o: o, mux: http.NewServeMux()}
}

// Handle adds a route ("GET /v2.1/servers/{id}", see http.ServeMux) that needs a
// token. A trailing slash of a request's path is not looked at.
func (a *API) Handle(pattern string, h Handler) { a.mux.Handle(pattern, route{a, h, false}) }

// HandleOpen adds a route for everybody.
func (a *API) HandleOpen(pattern string, h Handler) { a.mux.Handle(pattern, route{a, h, true}) }

type route struct {
	api  *API
	h    Handler
	open bool
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := r.URL.Path; len(p) > 1 && strings.HasSuffix(p, "/") {
		r.URL.Path = strings.TrimRight(p, "/")
		if r.URL.Path == "" {
			r.URL.Path = "/"
		}
		r.URL.RawPath = ""
	}
	if _, pattern := a.mux.Handler(r); pattern == "" {
		a.answer(w, r, a.missing)
		return
	}
	a.mux.ServeHTTP(w, r) // sets the path's values; ends in route.ServeHTTP
}

// ServeHTTP implements http.Handler for a route that was found.
func (t route) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t.api.answer(w, r, func(ctx context.Context, req *Request) (*Response, error) {
		if err := t.api.admit(ctx, req, t.open); err != nil {
			return nil, err
		}
		return t.h(ctx, req)
	})
}

// missing answers paths and methods without a route.
func (a *API) missing(_ context.Context, r *Request) (*Response, error) {
	if err := a.negotiate(r); err != nil {
		return nil, err
	}
	var allowed []string
	for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := a.mux.Handler(other); pattern != "" {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) > 0 {
		e := Errorf(http.StatusMethodNotAllowed, "")
		e.Header = http.Header{"Allow": {strings.Join(allowed, ", ")}}
		return nil, e
	}
	return nil, Errorf(http.StatusNotFound, "")
}

// admit finds out who asks and in which version.
func (a *API) admit(ctx context.Context, r *Request, open bool) error {
	if !open {
		token := r.Header.Get("X-Auth-Token")
		if token == "" {
			return unauthorized(errNoToken)
		}
		c, err := a.o.Auth.Caller(ctx, token)
		if errors.Is(err, errdefs.ErrNotFound) {
			return unauthorized(fmt.Errorf("%w: %w", errNoToken, err))
		}
		if err != nil {
			return err
		}
		r.Caller = c
	}
	return a.negotiate(r)
}

// negotiate finds the version of a request.
func (a *API) negotiate(r *Request) (err error) {
	if a.o.Microversions != nil {
		r.Version, err = a.o.Microversions.choose(r.Request)
	}
	return err
}

// errNoToken marks what the middleware before all services refuses, in words of
// its own (keystonemiddleware/auth_token).
var errNoToken = errors.New("no good token")

func unauthorized(cause error) *Error {
	return Errorf(http.StatusUnauthorized, "The request you have made requires authentication.").Because(cause)
}

const noTokenBody = `{"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}}`

// answer runs h and writes what it says.
func (a *API) answer(w http.ResponseWriter, hr *http.Request, h Handler) {
	r := &Request{Request: hr, ID: "req-" + uuid.NewString(), maxBody: a.o.MaxBody}
	for _, name := range a.o.RequestIDHeaders {
		w.Header().Set(name, r.ID)
	}
	log := a.o.Log.With().Str(logging.Request, r.ID).Str(logging.Method, hr.Method).Str("path", hr.URL.Path).Logger()
	res, err := a.run(hr.Context(), r, h, &log)
	if r.Version != (Version{}) {
		a.o.Microversions.tell(w.Header(), r.Version)
	}
	if err != nil {
		a.refuse(w, r, err, &log)
		return
	}
	if err := write(w, res); err != nil {
		log.Debug().Err(err).Msg("answer was not taken")
	}
}

// run is h with panics made errors.
func (a *API) run(ctx context.Context, r *Request, h Handler, log *zerolog.Logger) (res *Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares so
				panic(p)
			}
			log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("handler panics")
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return h(ctx, r)
}

func (a *API) refuse(w http.ResponseWriter, r *Request, err error, log *zerolog.Logger) {
	e := asError(err)
	if e.Status >= http.StatusInternalServerError {
		log.Error().Err(err).Int("status", e.Status).Msg("request")
	} else {
		log.Debug().Err(err).Int("status", e.Status).Msg("request")
	}
	for k, vs := range e.Header {
		w.Header()[k] = vs
	}
	if l, ok := a.o.Auth.(Locator); ok && e.Status == http.StatusUnauthorized {
		w.Header().Set("Www-Authenticate", `Keystone uri="`+l.Location()+`"`)
	}
	kind, body := "application/json", []byte(noTokenBody)
	if a.o.OwnUnauthorized || !errors.Is(err, errNoToken) {
		kind, body = a.o.Style.Render(e, r.Request, r.ID)
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

func write(w http.ResponseWriter, res *Response) error {
	for k, vs := range res.Header {
		w.Header()[k] = vs
	}
	if res.Stream != nil {
		return res.Stream(w)
	}
	status := res.Status
	if res.Body == nil {
		if status == 0 {
			status = http.StatusNoContent
		}
		if status != http.StatusNoContent && status != http.StatusNotModified {
			w.Header().Set("Content-Length", "0")
		}
		w.WriteHeader(status)
		return nil
	}
	if status == 0 {
		status = http.StatusOK
	}
	body, err := json.Marshal(res.Body)
	if err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, err = w.Write(body)
	return err
}
