package compute

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// naming is how one class of errdefs looks to Nova and to a tenant.
type naming struct {
	class error
	nova  string // class of nova.exception; empty means NotImplementedError
	code  int
	text  string
}

// names is the one translation of error classes (see nova/exception.py). The
// texts say nothing of the host.
func names() []naming {
	return []naming{
		{errdefs.ErrNotFound, "InstanceNotFound", 404, "Something that the operation needs was not found."},
		{errdefs.ErrAlreadyExists, "InstanceExists", 409, "The instance already exists on the host."},
		{errdefs.ErrInvalid, "Invalid", 400, "The request cannot be accepted."},
		{errdefs.ErrUnsupported, "", 501, "The operation is not supported."},
		{errdefs.ErrConflict, "InstanceInvalidState", 409, "The state of the instance forbids the operation."},
		{errdefs.ErrUnavailable, "NovaException", 500, "A service that the operation needs is not available."},
		{errdefs.ErrExhausted, "ComputeResourcesUnavailable", 500, "Insufficient compute resources."},
		{errdefs.ErrCorrupt, "ImageUnacceptable", 400, "Stored or received data is damaged."},
		{errdefs.ErrForbidden, "Forbidden", 403, "The credentials do not allow the operation."},
		{errdefs.ErrAborted, "UnexpectedDeletingTaskStateError", 500, "The operation was cancelled."},
	}
}

const unknownText = "An unexpected error occurred on the compute host."

// translate finds the exception for err: a remote exception in its chain, or
// that of its class.
func translate(err error) *messaging.RemoteError {
	if e, ok := errors.AsType[*messaging.RemoteError](err); ok {
		return e
	}
	for _, n := range names() {
		switch {
		case !errors.Is(err, n.class):
		case n.nova == "":
			return messaging.NotImplemented(errdefs.PublicText(err, n.text))
		default:
			return messaging.NovaError(n.nova, n.code, "%s", errdefs.PublicText(err, n.text))
		}
	}
	return messaging.NovaError("NovaException", 500, "%s", errdefs.PublicText(err, unknownText))
}

// tenantText is what a tenant may read of err: a public text, else that of its
// exception. It never holds detail of the host.
func tenantText(err error) string {
	if text := errdefs.PublicText(err, ""); text != "" {
		return text
	}
	e := translate(err)
	if e.Message == "" || e.Module != "nova.exception" && e.Module != "builtins" {
		return e.Class // as nova-compute: foreign exceptions may tell anything
	}
	return e.Message
}

// faultLimit is the length of the column instance_faults.message.
const faultLimit = 255

// clip cuts text to at most n bytes, between characters.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// errDeleted is the cause of work cancelled by a delete.
var errDeleted = fmt.Errorf("instance is being deleted: %w", errdefs.ErrAborted)

// errClosing is the cause of work cancelled by the end of the service.
var errClosing = errors.New("the compute service is stopping")

// gone reports whether err says that the instance is deleted or being deleted,
// which ends an operation quietly.
func gone(err error) bool {
	return errors.Is(err, errDeleted) || messaging.IsRemote(err, "InstanceNotFound", "UnexpectedDeletingTaskStateError")
}

// verdict is what becomes of an instance whose build failed.
type verdict int

const (
	reschedule verdict = iota // try another host
	abort                     // no host can do it: error
	silent                    // the instance is going away: clean up only
)

// buildError carries the verdict of the step that failed.
type buildError struct {
	verdict verdict
	err     error
}

func (e *buildError) Error() string { return e.err.Error() }
func (e *buildError) Unwrap() error { return e.err }

func judged(v verdict, err error) error {
	if err == nil {
		return nil
	}
	return &buildError{v, err}
}

// judge decides what becomes of a failed build (nova-compute's
// _build_and_run_instance): what is wrong with the request or the network is
// the end, what is wrong with this host is tried elsewhere.
func judge(err error) verdict {
	if gone(err) {
		return silent
	}
	if e, ok := errors.AsType[*buildError](err); ok {
		return e.verdict
	}
	if messaging.IsRemote(err, "UnexpectedTaskStateError", "UnexpectedVMStateError") {
		return abort
	}
	for _, class := range []error{
		errdefs.ErrInvalid, errdefs.ErrUnsupported, errdefs.ErrCorrupt, errdefs.ErrForbidden, errdefs.ErrNotFound,
	} {
		if errors.Is(err, class) {
			return abort
		}
	}
	return reschedule
}

// because adds the cause of a cancelled context to an error that came of it.
func because(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}

// String is for the log.
func (v verdict) String() string {
	switch v {
	case reschedule:
		return "reschedule"
	case abort:
		return "abort"
	case silent:
		return "silent"
	}
	return "unknown"
}
