package drivertest

import (
	"context"
	"slices"
	"sync"

	"github.com/gantry-project/gantry/driver"
)

// Events is an EventWaiter that answers at once and remembers what it was
// asked. The zero value says that every event has come.
type Events struct {
	// Err is what Wait returns.
	Err error

	mu       sync.Mutex
	expected []string // guarded by mu
	open     int      // guarded by mu; expectations neither waited for nor cancelled
	waited   int      // guarded by mu
}

// Expect registers.
func (e *Events) Expect(_ driver.InstanceUUID, portIDs []string) driver.Expectation {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expected = append(e.expected, portIDs...)
	e.open++
	return &expectation{e: e, end: sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.open--
	})}
}

// Expected lists the ports that were asked for, sorted.
func (e *Events) Expected() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(slices.Values(e.expected))
}

// Open counts the expectations whose end nobody has told.
func (e *Events) Open() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open
}

// Waited counts the calls of Wait.
func (e *Events) Waited() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.waited
}

type expectation struct {
	e   *Events
	end func()
}

func (x *expectation) Wait(context.Context) error {
	x.end()
	x.e.mu.Lock()
	defer x.e.mu.Unlock()
	x.e.waited++
	return x.e.Err
}

func (x *expectation) Cancel() { x.end() }
