package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
)

// Request is a request that was let in. It is used by one goroutine.
type Request struct {
	*http.Request
	// ID is its request id, "req-" and a UUID.
	ID string
	// Caller sends it; nil on open routes.
	Caller *Caller
	// Version is its microversion; zero for a service without.
	Version Version

	maxBody int64
	query   url.Values
}

// Params are the query of the request. It is not to be changed.
func (r *Request) Params() url.Values {
	if r.query == nil {
		r.query = r.URL.Query()
	}
	return r.query
}

// Bytes reads the whole body: at most what API.MaxBody says, 413 above.
func (r *Request) Bytes() ([]byte, error) {
	data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, r.maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, Errorf(http.StatusRequestEntityTooLarge, "Request is too large.")
	}
	if err != nil {
		return nil, Errorf(http.StatusBadRequest, "The body could not be read.").Because(err)
	}
	return data, nil
}

// Decode reads the body as one JSON document into v. Anything else is 400 in
// words that suit all services; services with words of their own use Bytes.
func (r *Request) Decode(v any) error {
	data, err := r.Bytes()
	if err != nil {
		return err
	}
	return Unmarshal(data, v)
}

// Unmarshal is Decode for bytes. Numbers in values of type any are json.Number.
func Unmarshal(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
			return Errorf(http.StatusBadRequest, "Invalid input for field/attribute %s: a %s is not accepted there.", e.Field, e.Value).Because(err)
		}
		return Errorf(http.StatusBadRequest, "The server could not comply with the request since it is either malformed or otherwise incorrect.").Because(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Errorf(http.StatusBadRequest, "The server could not comply with the request since it is either malformed or otherwise incorrect.")
	}
	return nil
}

// Response is a successful answer.
type Response struct {
	// Status; 0 is 200, or 204 without Body and Stream.
	Status int
	Header http.Header
	// Body is written as JSON, unless it is nil.
	Body any
	// Stream, if set, writes everything itself, status and headers included.
	Stream func(w http.ResponseWriter) error
}

// OK is the answer 200 with a body.
func OK(body any) (*Response, error) { return &Response{Status: http.StatusOK, Body: body}, nil }

// Created is the answer 201 with a body.
func Created(body any) (*Response, error) {
	return &Response{Status: http.StatusCreated, Body: body}, nil
}

// Accepted is the answer 202, with a body unless it is nil.
func Accepted(body any) (*Response, error) {
	return &Response{Status: http.StatusAccepted, Body: body}, nil
}

// NoContent is the answer 204.
func NoContent() (*Response, error) { return &Response{Status: http.StatusNoContent}, nil }
