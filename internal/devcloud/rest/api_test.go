package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// plain words errors as "status type message".
type plain struct{}

func (plain) Render(e *Error, _ *http.Request, _ string) (string, []byte) {
	return "text/plain", fmt.Appendf(nil, "%d %s %s", e.Status, e.Type, e.Message)
}

// people are the callers by token; "broken" is an identity service that fails.
type people map[string]*Caller

// Location implements Locator.
func (people) Location() string { return "http://cloud/v3" }

func (p people) Caller(_ context.Context, token string) (*Caller, error) {
	if token == "broken" {
		return nil, fmt.Errorf("ask: %w", errdefs.ErrUnavailable)
	}
	if c := p[token]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("token: %w", errdefs.ErrNotFound)
}

func newAPI(o Options) *API {
	o.Style, o.Log = plain{}, zerolog.Nop()
	o.Auth = people{"t": {UserID: "u", Roles: []string{"member"}}}
	return New(o)
}

// answer is what came back.
type answer struct {
	StatusCode int
	Header     http.Header
	body       string
}

func ask(a http.Handler, method, path, body string, header ...string) answer {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

func TestRoutes(t *testing.T) {
	a := newAPI(Options{})
	a.HandleOpen("GET /", func(context.Context, *Request) (*Response, error) { return OK("root") })
	a.HandleOpen("GET /things/{id}", func(_ context.Context, r *Request) (*Response, error) { return OK(r.PathValue("id")) })
	a.HandleOpen("DELETE /things/{id}", func(context.Context, *Request) (*Response, error) { return NoContent() })
	a.HandleOpen("POST /things", func(context.Context, *Request) (*Response, error) { return Created(map[string]int{"a": 1}) })
	a.HandleOpen("PUT /things", func(context.Context, *Request) (*Response, error) { return Accepted(nil) })
	a.HandleOpen("GET /stream", func(context.Context, *Request) (*Response, error) {
		return &Response{Header: http.Header{"X-One": {"1"}}, Stream: func(w http.ResponseWriter) error {
			w.WriteHeader(http.StatusPartialContent)
			_, err := io.WriteString(w, "part")
			return err
		}}, nil
	})
	for _, c := range []struct {
		method, path string
		status       int
		body, allow  string
	}{
		{"GET", "/things/a", 200, `"a"`, ""},
		{"GET", "/things/a%2Fb", 200, `"a/b"`, ""},
		{"GET", "/things/a///", 200, `"a"`, ""},
		{"HEAD", "/things/a", 200, `"a"`, ""}, // net/http's server drops the body
		{"DELETE", "/things/a", 204, "", ""},
		{"POST", "/things/", 201, `{"a":1}`, ""},
		{"PUT", "/things", 202, "", ""},
		{"GET", "/stream", 206, "part", ""},
		{"PATCH", "/things/a", 405, "405  ", "GET, DELETE"},
		{"GET", "/other", 200, `"root"`, ""}, // "GET /" is a prefix
		{"POST", "/other", 405, "405  ", "GET"},
	} {
		res := ask(a, c.method, c.path, "")
		if got := res.body; res.StatusCode != c.status || got != c.body || res.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %d %q, allow %q", c.method, c.path, res.StatusCode, got, res.Header.Get("Allow"))
		}
		if id := res.Header.Get("X-Openstack-Request-Id"); !regexp.MustCompile(`^req-[0-9a-f-]{36}$`).MatchString(id) {
			t.Errorf("%s %s: request id %q", c.method, c.path, id)
		}
	}
}

func TestUnknownPath(t *testing.T) {
	a := newAPI(Options{RequestIDHeaders: []string{"X-A", "X-B"}})
	a.HandleOpen("GET /a", func(context.Context, *Request) (*Response, error) { return OK(1) })
	res := ask(a, "GET", "/b", "")
	if res.StatusCode != 404 || res.Header.Get("X-A") == "" || res.Header.Get("X-A") != res.Header.Get("X-B") {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	if res := ask(a, "HEAD", "/b", ""); res.StatusCode != 404 || res.body != "" {
		t.Errorf("HEAD: %d with a body", res.StatusCode)
	}
}

func TestTokens(t *testing.T) {
	a := newAPI(Options{})
	a.Handle("GET /who", func(_ context.Context, r *Request) (*Response, error) { return OK(r.Caller.UserID) })
	for token, status := range map[string]int{"": 401, "stale": 401, "broken": 503, "t": 200} {
		res := ask(a, "GET", "/who", "", "X-Auth-Token", token)
		if res.StatusCode != status || (status == 401) != (res.Header.Get("Www-Authenticate") != "") {
			t.Errorf("token %q: %d %v", token, res.StatusCode, res.Header)
		}
	}
}

func TestErrorsBecomeAnswers(t *testing.T) {
	a := newAPI(Options{})
	errs := map[string]struct {
		err  error
		want string
	}{
		"mine":      {fmt.Errorf("wrapped: %w", &Error{Status: 418, Type: "Pot", Message: "m", Header: http.Header{"X-H": {"1"}}}), "418 Pot m"},
		"notfound":  {errdefs.WithPublic(fmt.Errorf("row 7: %w", errdefs.ErrNotFound), "no such thing"), "404  no such thing"},
		"invalid":   {errdefs.ErrInvalid, "400  "},
		"exists":    {errdefs.ErrAlreadyExists, "409  "},
		"conflict":  {errdefs.ErrConflict, "409  "},
		"forbidden": {errdefs.ErrForbidden, "403  "},
		"exhausted": {errdefs.ErrExhausted, "413  "},
		"support":   {errdefs.ErrUnsupported, "501  "},
		"later":     {errdefs.ErrUnavailable, "503  "},
		"inner":     {errdefs.WithPublic(errors.New("secret"), "not told either"), "500  "},
	}
	a.HandleOpen("GET /{name}", func(_ context.Context, r *Request) (*Response, error) {
		if r.PathValue("name") == "panic" {
			panic("secret")
		}
		return nil, errs[r.PathValue("name")].err
	})
	for name, c := range errs {
		if got := ask(a, "GET", "/"+name, "").body; got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := ask(a, "GET", "/panic", "").body; got != "500  " {
		t.Errorf("panic: %q", got)
	}
	if h := ask(a, "GET", "/mine", "").Header.Get("X-H"); h != "1" {
		t.Error("the error's header is lost")
	}
}

func TestAnAbortedHandlerBreaksTheConnection(t *testing.T) {
	a := newAPI(Options{})
	a.HandleOpen("GET /x", func(context.Context, *Request) (*Response, error) { panic(http.ErrAbortHandler) })
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("got %v", p)
		}
	}()
	ask(a, "GET", "/x", "")
}

func TestBodies(t *testing.T) {
	a := newAPI(Options{MaxBody: 20})
	a.HandleOpen("POST /x", func(_ context.Context, r *Request) (*Response, error) {
		var v struct {
			N   int
			Any any
		}
		if err := r.Decode(&v); err != nil {
			return nil, err
		}
		if n, ok := v.Any.(json.Number); ok {
			return OK("number " + n.String())
		}
		return OK(v.N)
	})
	for body, want := range map[string]string{
		`{"N":7}`:                    `7`,
		`{"Any":12345678901}`:        `"number 12345678901"`,
		`{"N":"7"}`:                  `400  Invalid input for field/attribute N: a string is not accepted there.`,
		``:                           `400  The server could not comply with the request since it is either malformed or otherwise incorrect.`,
		`{} {}`:                      `400  The server could not comply with the request since it is either malformed or otherwise incorrect.`,
		`{"N":7}` + "              ": `413  Request is too large.`,
	} {
		if got := ask(a, "POST", "/x", body).body; got != want {
			t.Errorf("%q: %q", body, got)
		}
	}
}
