// Package undo collects the reverse of each step of a longer operation and
// runs it when the operation fails.
//
// Use: push right after a step succeeded, defer Unwind, and call Release when
// nothing may be undone any more. It imports only the standard library.
package undo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Limit bounds how long all steps of one Unwind may take together.
const Limit = 60 * time.Second

type step struct {
	name string
	fn   func(context.Context) error
}

// Stack is a list of undo steps. The zero value is ready. Not safe for
// concurrent use.
type Stack struct {
	steps []step
}

// Push adds the undo of a step that has just succeeded. fn must be idempotent.
func (s *Stack) Push(name string, fn func(context.Context) error) {
	s.steps = append(s.steps, step{name, fn})
}

// Release forgets all steps: ownership has moved to somebody else.
func (s *Stack) Release() { s.steps = nil }

// Unwind runs the steps in reverse order under a fresh context that keeps the
// values of ctx but not its cancellation, and returns all failures joined. It
// runs every step even if an earlier one fails, and empties the stack.
func (s *Stack) Unwind(ctx context.Context) error {
	if len(s.steps) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Limit)
	defer cancel()
	var errs []error
	for i := len(s.steps) - 1; i >= 0; i-- {
		if err := s.steps[i].fn(ctx); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", s.steps[i].name, err))
		}
	}
	s.steps = nil
	return errors.Join(errs...)
}
