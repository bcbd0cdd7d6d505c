package cell

import (
	"fmt"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Expect is a compare-and-swap: the states that an instance must be in. The
// empty string stands for null ("no task"); nil means any.
type Expect struct {
	VMState   []string
	TaskState []string
}

// StateError says that an instance was not in the state that a change was
// made for. It is errdefs.ErrConflict.
type StateError struct {
	UUID string
	// Field is vm_state or task_state.
	Field    string
	Expected []string
	// Actual is what the row has, "" for null.
	Actual string
}

// Error is worded as Nova's UnexpectedTaskStateError.
func (e *StateError) Error() string {
	want := make([]string, len(e.Expected))
	for i, s := range e.Expected {
		want[i] = python(s)
	}
	return fmt.Sprintf("Conflict updating instance %s. Expected: {'%s': [%s]}. Actual: {'%s': %s}",
		e.UUID, e.Field, strings.Join(want, ", "), e.Field, python(e.Actual))
}

func python(s string) string {
	if s == "" {
		return "None"
	}
	return "'" + s + "'"
}

// Unwrap returns the class.
func (e *StateError) Unwrap() error { return errdefs.ErrConflict }

// Deleting says that the instance is being deleted: a tenant was faster, and
// what the change was for is to be given up quietly.
func (e *StateError) Deleting() bool { return e.Field == "task_state" && e.Actual == "deleting" }
