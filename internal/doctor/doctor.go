// Package doctor looks at a host and says what an engine misses there, and what
// that costs. It changes nothing.
//
// A Check is an entry of a table: a name, what it costs when it is missing, and
// a function over a Host. Host is what is read of the machine, so that tests can
// show another one. Checks that need the engine itself, and those of its state,
// are added by internal/daemon. The package imports internal/linux only.
package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Level says how bad it is that something is not there.
type Level string

// The levels.
const (
	OK Level = "ok"
	// Note: it is fine without; a feature is not offered.
	Note Level = "note"
	// Warn: instances run, but worse or less safely than they could.
	Warn Level = "warn"
	// Fail: instances cannot run, or not safely.
	Fail Level = "fail"
)

// Check is one thing to look at.
type Check struct {
	// Name is short and stable: scripts may look for it.
	Name string
	// Costs says what is lost where the check does not pass, Remedy what an
	// operator does about it.
	Costs, Remedy string
	// Run looks and says what it found. It ends soon.
	Run func(ctx context.Context, h *Host) (Level, string)
}

// Result of a check.
type Result struct {
	Name  string `json:"name"`
	Level Level  `json:"level"`
	Found string `json:"found"`
	// Costs and Remedy are empty when the level is OK.
	Costs  string `json:"costs,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// Run makes all checks in their order.
func Run(ctx context.Context, h *Host, checks []Check) []Result {
	out := make([]Result, 0, len(checks))
	for _, c := range checks {
		out = append(out, c.result(ctx, h))
	}
	return out
}

// Together makes all checks at a time, for those that wait for others. Results
// are in the order of the checks.
func Together(ctx context.Context, h *Host, checks []Check) []Result {
	out := make([]Result, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { out[i] = c.result(ctx, h) })
	}
	all.Wait()
	return out
}

func (c Check) result(ctx context.Context, h *Host) Result {
	level, found := c.Run(ctx, h)
	r := Result{Name: c.Name, Level: level, Found: found}
	if level != OK {
		r.Costs, r.Remedy = c.Costs, c.Remedy
	}
	return r
}

// Host is a machine to look at.
type Host struct {
	// Root is "/"; tests have a directory of their own with proc, sys and dev.
	Root string
	// Store is the engine's root, or where it will be.
	Store string
	// LookPath finds a program (exec.LookPath), Output runs one.
	LookPath func(name string) (string, error)
	Output   func(ctx context.Context, name string, args ...string) ([]byte, error)
	// Clock tells how the kernel keeps the time (KernelClock).
	Clock func() (Clock, error)
}

// read returns a file of the machine without white space around it.
func (h *Host) read(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(h.Root, name))
	return strings.TrimSpace(string(data)), err
}

func (h *Host) number(name string) (int64, error) {
	text, err := h.read(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

func (h *Host) exists(name string) bool {
	_, err := os.Lstat(filepath.Join(h.Root, name))
	return err == nil
}
