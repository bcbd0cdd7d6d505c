package messaging

import (
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// RemoteError is an exception that crossed the wire, in either direction
// (oslo_messaging/_drivers/common.py, serialize_remote_exception).
type RemoteError struct {
	// Class is the exception's name, for example "InstanceNotFound".
	Class string
	// Module is "nova.exception" or "builtins"; others arrive as a plain
	// RemoteError at a Nova caller.
	Module string
	// Message is shown to people.
	Message string
	// Code is the HTTP status that Nova's API answers with; 0 means 500.
	Code int
	// Traceback lines, received ones only.
	Traceback []string
}

// Error returns class and message.
func (e *RemoteError) Error() string { return fmt.Sprintf("%s: %s", e.Class, e.Message) }

// NovaError returns an exception of module nova.exception.
func NovaError(class string, code int, format string, args ...any) *RemoteError {
	return &RemoteError{Class: class, Module: "nova.exception", Message: fmt.Sprintf(format, args...), Code: code}
}

// NotImplemented returns Python's NotImplementedError, Nova's word for an
// unsupported operation (HTTP 501 or a fallback in the API).
func NotImplemented(text string) *RemoteError {
	return &RemoteError{Class: "NotImplementedError", Module: "builtins", Message: text}
}

// IsRemote reports whether err's chain holds a remote exception of one of the
// given classes.
func IsRemote(err error, classes ...string) bool {
	re, ok := errors.AsType[*RemoteError](err)
	if !ok {
		return false
	}
	for _, c := range classes {
		if re.Class == c {
			return true
		}
	}
	return false
}

// RemoteErrorOf finds the remote exception for err: the *RemoteError in its
// chain, or else a NovaException that shows no more than the text for tenants.
// ServerOptions.RemoteErrorOf replaces it where errors have better names.
func RemoteErrorOf(err error) *RemoteError {
	if re, ok := errors.AsType[*RemoteError](err); ok {
		return re
	}
	return NovaError("NovaException", 500, "%s", errdefs.PublicText(err, "An unknown exception occurred."))
}
