package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Failure is an error as a document.
type Failure struct {
	// Code is the class (classes), "" for none.
	Code string `json:"code,omitempty"`
	// Message is the whole story, for the operator; Public may be shown to a
	// tenant.
	Message string `json:"message"`
	Public  string `json:"public,omitempty"`
}

// failed is the body of a response that is an error.
type failed struct {
	Error *Failure `json:"error"`
}

// class is one row of the table of errors.
type class struct {
	err    error
	code   string
	status int
}

// classes is the table of errors. The first that fits counts.
func classes() []class {
	return []class{
		{errdefs.ErrNotFound, "not-found", http.StatusNotFound},
		{errdefs.ErrAlreadyExists, "already-exists", http.StatusConflict},
		{errdefs.ErrInvalid, "invalid", http.StatusBadRequest},
		{errdefs.ErrUnsupported, "unsupported", http.StatusNotImplemented},
		{errdefs.ErrConflict, "conflict", http.StatusConflict},
		{errdefs.ErrUnavailable, "unavailable", http.StatusServiceUnavailable},
		{errdefs.ErrExhausted, "exhausted", http.StatusInsufficientStorage},
		{errdefs.ErrCorrupt, "corrupt", http.StatusUnprocessableEntity},
		{errdefs.ErrForbidden, "forbidden", http.StatusForbidden},
		{errdefs.ErrAborted, "aborted", http.StatusConflict},
		{context.DeadlineExceeded, "deadline", http.StatusGatewayTimeout},
		{context.Canceled, "canceled", http.StatusServiceUnavailable},
	}
}

// failureOf turns an error into a document and a status.
func failureOf(err error) (*Failure, int) {
	f := &Failure{Message: err.Error(), Public: errdefs.PublicText(err, "")}
	for _, c := range classes() {
		if errors.Is(err, c.err) {
			f.Code = c.code
			return f, c.status
		}
	}
	return f, http.StatusInternalServerError
}

// RemoteError is an error of the server. It has the class that it had there.
type RemoteError struct {
	Failure
	class error
}

// Error returns the whole story.
func (e *RemoteError) Error() string { return e.Message }

// Unwrap returns the class, nil if there is none.
func (e *RemoteError) Unwrap() error { return e.class }

// err is the reverse of failureOf.
func (f *Failure) err() error {
	if f == nil {
		return nil
	}
	e := &RemoteError{Failure: *f}
	for _, c := range classes() {
		if c.code == f.Code {
			e.class = c.err
		}
	}
	if f.Public == "" {
		return e
	}
	return &publicError{Public: errdefs.Public{Text: f.Public, Err: e}}
}

// publicError prints as the original did.
type publicError struct{ errdefs.Public }

// Error returns the whole story.
func (e *publicError) Error() string { return e.Err.Error() }

// Unwrap leads to the text for tenants and to the class.
func (e *publicError) Unwrap() error { return &e.Public }

// maxFailure bounds what a client reads of an error.
const maxFailure = 256 << 10

// parseFailure reads an error from a response's body.
func parseFailure(status int, body []byte) error {
	var doc failed
	if err := json.Unmarshal(body, &doc); err != nil || doc.Error == nil {
		f := Failure{Code: "corrupt", Message: "the server answered " + http.StatusText(status) + " without an error document"}
		return f.err()
	}
	return doc.Error.err()
}
