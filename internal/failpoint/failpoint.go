// Package failpoint lets tests make a named step of an operation fail, stall or
// kill the process, in the real code.
//
// Points are armed by a test through Set, or by the environment variable
// GANTRY_FAILPOINTS, a comma separated list of name=action entries, which is
// read only by Arm. Actions: error, kill (SIGKILL to itself), sleep:DURATION,
// hold:FILE, which makes the file and goes on when somebody has removed it. An
// entry name:n=action acts on the n-th pass. With nothing armed Hit costs
// one atomic load. It imports only the standard library.
package failpoint

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrInjected is the error of a point armed with the action error.
var ErrInjected = errors.New("injected failure")

type point struct {
	action string
	nth    int // acts when the count of passes equals nth; 0 means always
	passed int
}

var (
	armed atomic.Bool
	mu    sync.Mutex
	set   = map[string]*point{} // guarded by mu
)

// Set arms one point: name or name:n, and an action. The empty action disarms.
func Set(name, action string) error {
	mu.Lock()
	defer mu.Unlock()
	base, n, found := strings.Cut(name, ":")
	p := &point{action: action}
	if found {
		v, err := strconv.Atoi(n)
		if err != nil || v < 1 {
			return fmt.Errorf("failpoint %q: bad count", name)
		}
		p.nth = v
	}
	switch kind, arg, _ := strings.Cut(action, ":"); kind {
	case "":
		delete(set, base)
		armed.Store(len(set) > 0)
		return nil
	case "error", "kill":
	case "sleep":
		if _, err := time.ParseDuration(arg); err != nil {
			return fmt.Errorf("failpoint %q: %w", name, err)
		}
	case "hold":
		if !strings.HasPrefix(arg, "/") {
			return fmt.Errorf("failpoint %q: want the absolute name of a file", name)
		}
	default:
		return fmt.Errorf("failpoint %q: unknown action %q", name, action)
	}
	set[base] = p
	armed.Store(true)
	return nil
}

// Arm reads a list as the environment variable holds it.
func Arm(list string) error {
	for entry := range strings.SplitSeq(list, ",") {
		if entry == "" {
			continue
		}
		name, action, found := strings.Cut(entry, "=")
		if !found {
			return fmt.Errorf("failpoint entry %q: want name=action", entry)
		}
		if err := Set(name, action); err != nil {
			return err
		}
	}
	return nil
}

// Hit passes the named point. It returns an error wrapping ErrInjected when
// the point is armed to fail.
func Hit(name string) error {
	if !armed.Load() {
		return nil
	}
	mu.Lock()
	p := set[name]
	if p == nil {
		mu.Unlock()
		return nil
	}
	p.passed++
	act := p.nth == 0 || p.nth == p.passed
	action := p.action
	mu.Unlock()
	if !act {
		return nil
	}
	kind, arg, _ := strings.Cut(action, ":")
	switch kind {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "sleep":
		d, _ := time.ParseDuration(arg)
		time.Sleep(d)
		return nil
	case "hold":
		return hold(name, arg)
	}
	return fmt.Errorf("%s: %w", name, ErrInjected)
}

// hold makes the file and returns when it is gone.
func hold(name, file string) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for {
		_, err := os.Lstat(file)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		time.Sleep(time.Millisecond)
	}
}
