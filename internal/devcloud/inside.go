package devcloud

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// object is a JSON object.
type object = map[string]any

// inside asks the cloud's own APIs without a network between.
type inside struct{ handler http.Handler }

// ask makes a request, with a body of JSON or, if in is an io.Reader, of bytes,
// and decodes the answer into out unless that is nil. 404 is errdefs.ErrNotFound,
// 409 errdefs.ErrAlreadyExists, 400 errdefs.ErrInvalid and other refusals no
// class.
func (i inside) ask(ctx context.Context, token, method, path string, in, out any) (http.Header, error) {
	var body io.Reader = http.NoBody
	kind := "application/octet-stream"
	switch v := in.(type) {
	case nil:
	case io.Reader:
		body = v
	default:
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		body, kind = bytes.NewReader(text), "application/json"
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://cloud"+path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", kind)
	r.Header.Set("X-Auth-Token", token)
	w := &answer{header: http.Header{}, status: http.StatusOK}
	i.handler.ServeHTTP(w, r)
	if w.status >= http.StatusBadRequest {
		return w.header, &refusal{method + " " + path, w.status, w.body.Bytes()}
	}
	if out == nil {
		return w.header, nil
	}
	return w.header, json.Unmarshal(w.body.Bytes(), out)
}

// refusal is an answer other than success.
type refusal struct {
	call   string
	status int
	body   []byte
}

// Error implements error.
func (r *refusal) Error() string {
	return fmt.Sprintf("%s: status %d: %s", r.call, r.status, bytes.TrimSpace(r.body))
}

// Unwrap returns the class that ask promises.
func (r *refusal) Unwrap() error {
	return map[int]error{
		http.StatusBadRequest: errdefs.ErrInvalid, http.StatusNotFound: errdefs.ErrNotFound, http.StatusConflict: errdefs.ErrAlreadyExists,
	}[r.status]
}

// login returns a token of a user of the default domain.
func (i inside) login(ctx context.Context, user, password, project string) (string, error) {
	domain := object{"id": "default"}
	h, err := i.ask(ctx, "", http.MethodPost, "/identity/v3/auth/tokens?nocatalog", object{"auth": object{
		"identity": object{"methods": []string{"password"}, "password": object{"user": object{"name": user, "domain": domain, "password": password}}},
		"scope":    object{"project": object{"name": project, "domain": domain}},
	}}, nil)
	return h.Get("X-Subject-Token"), err
}

// answer is an http.ResponseWriter that keeps what is written.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header            { return a.header }
func (a *answer) Write(data []byte) (int, error) { return a.body.Write(data) }
func (a *answer) WriteHeader(status int)         { a.status = status }
