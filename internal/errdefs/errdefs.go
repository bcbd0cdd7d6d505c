// Package errdefs holds the closed set of error classes that gantry's packages
// return and test for.
//
// An error belongs to a class when errors.Is(err, errdefs.ErrX) is true. Wrap a
// class with %w and say the operation and the identifier; never compare text.
// Each edge translates classes once: driver/compute to Nova's exception names,
// the command line to an exit message. Any package may import errdefs; it
// imports only the standard library.
package errdefs

import "errors"

// The classes. An error carries at most one of them.
var (
	// ErrNotFound: the named thing does not exist.
	ErrNotFound = errors.New("not found")
	// ErrAlreadyExists: the thing to create is there already.
	ErrAlreadyExists = errors.New("already exists")
	// ErrInvalid: the caller's input cannot be accepted; trying again is useless.
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported: understood, but this host or driver cannot do it.
	ErrUnsupported = errors.New("unsupported")
	// ErrConflict: the thing is in a state that forbids the operation.
	ErrConflict = errors.New("conflict")
	// ErrUnavailable: a service or the host cannot do it now; a later try may.
	ErrUnavailable = errors.New("unavailable")
	// ErrExhausted: out of a counted resource (disk, memory, addresses, ids).
	ErrExhausted = errors.New("exhausted")
	// ErrCorrupt: stored or received data is not what its digest or format says.
	ErrCorrupt = errors.New("corrupt")
	// ErrForbidden: the credentials at hand do not allow it.
	ErrForbidden = errors.New("forbidden")
	// ErrAborted: somebody asked to stop the work (a delete during a build).
	ErrAborted = errors.New("aborted")
)

// Public is an error with a text that a tenant may read: it names the cause
// and holds no path, address, host name or command of the host.
type Public struct {
	// Text is shown to the tenant, for example as the fault of an instance.
	Text string
	// Err is the whole story, for the log.
	Err error
}

// Error returns the whole story.
func (p *Public) Error() string {
	if p.Err == nil {
		return p.Text
	}
	return p.Text + ": " + p.Err.Error()
}

// Unwrap returns the wrapped error.
func (p *Public) Unwrap() error { return p.Err }

// WithPublic attaches a text for tenants to err. A nil err stays nil.
func WithPublic(err error, text string) error {
	if err == nil {
		return nil
	}
	return &Public{Text: text, Err: err}
}

// PublicText returns the outermost text for tenants in err's chain, or
// fallback when it has none.
func PublicText(err error, fallback string) string {
	if p, ok := errors.AsType[*Public](err); ok {
		return p.Text
	}
	return fallback
}
