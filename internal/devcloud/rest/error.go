package rest

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Error is an answer other than success, in the words of the real service.
type Error struct {
	Status int
	// Type is what the service calls the fault: Neutron's exception
	// ("NetworkNotFound"), Placement's code, Nova's element ("itemNotFound");
	// empty for the one that goes with the status.
	Type string
	// Message is for the caller and tells nothing of the host.
	Message string
	// Header is added to the answer.
	Header http.Header
	cause  error
}

// Error implements error.
func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%d %s: %v", e.Status, e.Message, e.cause)
	}
	return fmt.Sprintf("%d %s", e.Status, e.Message)
}

// Unwrap returns what is behind the answer, if anything.
func (e *Error) Unwrap() error { return e.cause }

// Because sets what is behind the answer, which the caller does not see, and
// returns e.
func (e *Error) Because(cause error) *Error {
	e.cause = cause
	return e
}

// Errorf makes an answer with that status and a text for the caller.
func Errorf(status int, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...)}
}

// asError makes an answer of any error: an *Error is itself, a class of
// errdefs its status with the public text, all else 500 without a text.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	status := http.StatusInternalServerError
	for _, c := range []struct {
		class  error
		status int
	}{
		{errdefs.ErrNotFound, http.StatusNotFound},
		{errdefs.ErrInvalid, http.StatusBadRequest},
		{errdefs.ErrAlreadyExists, http.StatusConflict},
		{errdefs.ErrConflict, http.StatusConflict},
		{errdefs.ErrForbidden, http.StatusForbidden},
		{errdefs.ErrExhausted, http.StatusRequestEntityTooLarge},
		{errdefs.ErrUnsupported, http.StatusNotImplemented},
		{errdefs.ErrUnavailable, http.StatusServiceUnavailable},
	} {
		if errors.Is(err, c.class) {
			status = c.status
			break
		}
	}
	e := &Error{Status: status, cause: err}
	if status != http.StatusInternalServerError {
		e.Message = errdefs.PublicText(err, "")
	}
	return e
}

// Style is how a service words its errors.
type Style interface {
	// Render returns the body of an error's answer and its content type. An
	// empty Message is to be filled with the service's own words for the
	// status.
	Render(e *Error, r *http.Request, requestID string) (contentType string, body []byte)
}
