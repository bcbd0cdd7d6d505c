package conductor

import (
	"errors"
	"fmt"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// or is err as the caller is to see it: absent where a row was not found, the
// conflict where it was one of states, otherwise err itself.
func or(err error, absent *messaging.RemoteError) error {
	if se, ok := errors.AsType[*cell.StateError](err); ok {
		class := "InstanceUpdateConflict"
		switch {
		case se.Deleting():
			class = "UnexpectedDeletingTaskStateError"
		case se.Field == "task_state":
			class = "UnexpectedTaskStateError"
		}
		return messaging.NovaError(class, 500, "%s", se.Error())
	}
	if errors.Is(err, errdefs.ErrNotFound) {
		return absent
	}
	return err
}

func builtin(class, format string, args ...any) *messaging.RemoteError {
	return &messaging.RemoteError{Class: class, Module: "builtins", Message: fmt.Sprintf(format, args...)}
}

// versioned is an exception of oslo.versionedobjects.
func versioned(class, format string, args ...any) *messaging.RemoteError {
	return &messaging.RemoteError{Class: class, Module: "oslo_versionedobjects.exception", Message: fmt.Sprintf(format, args...)}
}

func noInstance(id string) *messaging.RemoteError {
	return messaging.NovaError("InstanceNotFound", 404, "Instance %s could not be found.", id)
}

func noHost(host string) *messaging.RemoteError {
	return messaging.NovaError("ComputeHostNotFound", 404, "Compute host %s could not be found.", host)
}

func actionFailed(action, reason string) *messaging.RemoteError {
	return messaging.NovaError("ObjectActionError", 500, "Object action %s failed because: %s", action, reason)
}
