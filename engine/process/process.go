// Package process starts, signals and watches isolated process trees.
//
// A Spec is plain data: namespaces to join, mounts, files to write, limits of
// the first process, its command. Runner turns it into a process; the rest of
// the engine decides nothing here and this package decides nothing of images,
// networks or control groups. It may import only internal/errdefs and
// engine/seccomp among ours.
//
// The order of set-up steps follows the OCI runtime specification (runtime.md,
// Lifecycle; config-linux.md). Start compiles a Spec into a list of system
// calls (Program), which a forked child runs without the Go runtime; a child
// that fails reports the step and the errno, and nothing of it is left.
package process

import (
	"context"
	"io"
	"time"
)

// Runner runs process trees. Implementations: the one in this package whose
// children belong to the calling process (and, with a Guard, outlive it),
// engine/keeper's client, whose children belong to a small process that
// outlives its clients, and the fake in processtest. All pass processtest.
//
// Methods are safe for concurrent use.
type Runner interface {
	// Start returns when the child has replaced itself by the command, or with
	// the child's own error: errdefs.ErrInvalid when the command cannot be
	// executed, with a text naming it. On error no process is left. A present,
	// not yet forgotten id is errdefs.ErrAlreadyExists.
	Start(ctx context.Context, id string, spec Spec) (Process, error)
	// Signal sends to the first process, by pidfd. errdefs.ErrNotFound when id
	// is unknown or has ended.
	Signal(ctx context.Context, id string, sig int) error
	// Status reports one process; errdefs.ErrNotFound when id is unknown.
	Status(ctx context.Context, id string) (Status, error)
	// List reports all that are known, ended ones included until Forget.
	List(ctx context.Context) ([]Status, error)
	// Wait returns when the first process has ended. Many callers may wait.
	Wait(ctx context.Context, id string) (Exit, error)
	// Forget drops an ended process. A running one is errdefs.ErrConflict, an
	// unknown one nil.
	Forget(ctx context.Context, id string) error
	// Attach connects to the terminal that the runner holds for a process: Read
	// returns what is said from now on, as terminals want it ("\r\n"), Write is
	// input. Any number may be attached at once. A client that reads slower
	// than the process writes is left out by some 256 KiB at most: then Read
	// returns, behind what came before, errdefs.ErrExhausted; neither the
	// process nor its log ever waits for a client. Write waits while the
	// process does not read. Read returns io.EOF when the process has ended,
	// and errdefs.ErrUnavailable when the runner itself has: attach again. ctx
	// bounds attaching only; Close detaches. Close may be called beside Read and
	// Write and ends both; one goroutine may read and one write.
	// errdefs.ErrNotFound when id is unknown or has ended,
	// errdefs.ErrUnsupported when the runner holds no terminal of it. With
	// history what is read first is the end of the process's log, at most so many
	// bytes (and at most MaxHistory) and from the beginning of a line, again as
	// terminals want it and without what asks them for an answer; then comes what is said from now on, with no gap and
	// nothing twice.
	Attach(ctx context.Context, id string, history int) (io.ReadWriteCloser, error)
	// Resize sets the size of that terminal, neither of which is 0
	// (errdefs.ErrInvalid). Further errors are those of Attach.
	Resize(ctx context.Context, id string, rows, cols uint16) error
}

// Process names a running first process beyond pid reuse.
type Process struct {
	Pid int `json:"pid"`
	// StartTime is field 22 of /proc/PID/stat, in clock ticks since boot.
	StartTime uint64 `json:"start_time"`
	// BootID is /proc/sys/kernel/random/boot_id.
	BootID string `json:"boot_id"`
}

// Status of a process tree.
type Status struct {
	ID      string  `json:"id"`
	Process Process `json:"process"`
	Running bool    `json:"running"`
	Exit    Exit    `json:"exit"`
}

// Exit says how a first process ended.
type Exit struct {
	// Code is the exit status, or 128 plus the signal.
	Code int `json:"code"`
	// Signal is the signal that ended it, 0 if it exited. The kernel ends the
	// first process of a pid namespace with SIGHUP when it asks for a reboot
	// and with SIGINT when it asks for power off (reboot(2)).
	Signal int       `json:"signal"`
	Time   time.Time `json:"time"`
}
