package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// A midwife does for a child what it waits for.
type midwife struct {
	spec  *Spec
	null  *os.File
	facts facts
}

func (m *midwife) serve(ctx context.Context, b *birth, kind uint32, val uint64) error {
	switch kind {
	case recordConsole:
		if m.spec.ConsoleSocket == nil {
			return nil
		}
		master := b.master
		b.master = nil
		defer func() { _ = master.Close() }()
		return sendConsole(m.spec, master)
	case recordPrepared:
		if err := unix.SchedSetAttr(b.pid, schedAttr(m.spec.Scheduler), 0); err != nil {
			return schedulerError(err)
		}
		return nil
	case recordListener:
		return sendListener(m.spec, b, int(val))
	case recordMounted:
		return m.mounted(ctx, b)
	case recordCreated:
		return m.inside(ctx, b, "startContainer", m.spec.Hooks.StartContainer, m.spec.rights())
	}
	return nil
}

func schedulerError(err error) error {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		if fault := rightFault(errno); fault != nil {
			err = fault
		}
	}
	return fmt.Errorf("set scheduler: %w", err)
}

// mounted runs the hooks that come before the root is entered.
func (m *midwife) mounted(ctx context.Context, b *birth) error {
	h := &m.spec.Hooks
	for _, point := range []struct {
		name string
		list []Hook
	}{{"prestart", h.Prestart}, {"createRuntime", h.CreateRuntime}} {
		for i := range point.list {
			if err := runHook(ctx, &point.list[i], h.State("creating", b.pid)); err != nil {
				return fmt.Errorf("%s hook %d (%s): %w", point.name, i, point.list[i].Path, err)
			}
		}
	}
	return m.inside(ctx, b, "createContainer", h.CreateContainer, nil)
}

// inside runs hooks in the namespaces of the child.
func (m *midwife) inside(ctx context.Context, b *birth, point string, hooks []Hook, rights *Spec) error {
	if len(hooks) == 0 {
		return nil
	}
	status := "creating"
	if rights != nil {
		status = "created"
	}
	if b.pidfd == nil {
		return errors.New("hooks of an unknown process")
	}
	t, err := newTarget(b.pid, b.pidfd)
	if err != nil {
		return err
	}
	defer func() { _ = t.pidfd.Close() }()
	for i := range hooks {
		err := runHookInside(ctx, &hooks[i], t, m.spec.CgroupFiles, m.spec.Hooks.State(status, b.pid), rights, m.null, m.facts)
		if err != nil {
			return fmt.Errorf("%s hook %d (%s): %w", point, i, hooks[i].Path, err)
		}
	}
	return nil
}

// errHookTimeout is the cause of an end by Hook.Timeout.
var errHookTimeout = errors.New("took longer than its timeout")

func hookContext(ctx context.Context, h *Hook) (context.Context, context.CancelFunc) {
	if h.Timeout > 0 {
		return context.WithTimeoutCause(ctx, h.Timeout, errHookTimeout)
	}
	return context.WithCancel(ctx)
}

// hookDelay is how long a hook's descendants may hold its output open.
const hookDelay = time.Second

// runHook runs a hook in the caller's namespaces. When it fails or is to end
// early, all of its process group are killed.
func runHook(ctx context.Context, h *Hook, state []byte) error {
	ctx, cancel := hookContext(ctx, h)
	defer cancel()
	output := tail{limit: 1024}
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args, cmd.Env = hookArgs(h), append([]string{}, h.Env...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(state), &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = hookDelay
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it went well, and left something running
	}
	if err != nil && cmd.Process != nil {
		// Its group, should it not be gone: no other has this number as long as
		// one process is in it. An empty one is no error.
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), errdefs.ErrAborted)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalid)
	}
	if text := output.String(); err != nil && text != "" {
		return fmt.Errorf("%w: %q", err, text)
	}
	return err
}

// tail keeps the end of what is written to it.
type tail struct {
	limit int
	data  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p[max(0, len(p)-t.limit):]...)
	t.data = t.data[max(0, len(t.data)-t.limit):]
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.data)) }

// runHookInside runs a hook as a process of its own inside the container of t.
func runHookInside(ctx context.Context, h *Hook, t *target, cgroups []*os.File, state []byte, rights *Spec, null *os.File, facts facts) error {
	ctx, cancel := hookContext(ctx, h)
	defer cancel()
	input, err := stateFile(state)
	if err != nil {
		return err
	}
	defer func() { _ = input.Close() }()
	prog := compileHook(h, t, cgroups, input, rights, facts)
	child, status, err := launch(prog, null, nil)
	if err != nil {
		return err
	}
	defer func() { _ = status.Close() }()
	b := &birth{prog: prog, child: child, status: status}
	if err := b.await(ctx); err != nil {
		return err
	}
	defer func() { _ = b.pidfd.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = b.pidfd.SetReadDeadline(time.Now()) })
	defer stop()
	awaited := linux.AwaitPidfd(b.pidfd)
	if awaited != nil {
		// It leads a session: whatever it has started in it ends too. Nobody has
		// reaped it, so the number is still its own.
		_ = unix.Kill(-b.pid, unix.SIGKILL)
		_ = linux.PidfdSignal(b.pidfd, int(unix.SIGKILL))
	}
	var ws unix.WaitStatus
	if _, err := linux.RetryEINTR(func() (int, error) { return unix.Wait4(b.pid, &ws, 0, nil) }); err != nil {
		return os.NewSyscallError("wait4", err)
	}
	switch {
	case awaited != nil && ctx.Err() != nil:
		return fmt.Errorf("%w: %w", context.Cause(ctx), errdefs.ErrAborted)
	case awaited != nil:
		return awaited
	case ws.Signaled():
		return fmt.Errorf("ended by signal %d", ws.Signal())
	case ws.ExitStatus() != 0:
		return fmt.Errorf("exit status %d", ws.ExitStatus())
	}
	return nil
}

// stateFile is a file with what a hook reads; nobody can change it.
func stateFile(state []byte) (*os.File, error) {
	f, err := linux.Memfd("state")
	if err != nil {
		return nil, err
	}
	_, err = f.Write(state)
	if err == nil {
		_, err = f.Seek(0, 0)
	}
	if err = errors.Join(err, linux.Seal(f)); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// sendConsole hands the master to Spec.ConsoleSocket as runc does
// (docs/terminals.md, Detached new terminal): the descriptor, and as data the
// name of the file.
func sendConsole(spec *Spec, master *os.File) error {
	raw, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) {
		if sent = unix.SetNonblock(int(fd), false); sent == nil {
			sent = sendRights(spec.ConsoleSocket, []byte("/dev/ptmx"), int(fd))
		}
	}); err != nil {
		return err
	}
	if sent != nil {
		return fmt.Errorf("send console to its socket: %w", sent)
	}
	return nil
}

// sendRights writes one message with one descriptor, without waiting.
func sendRights(socket *os.File, body []byte, fd int) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(s uintptr) {
		sent = unix.Sendmsg(int(s), body, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	}); err != nil {
		return err
	}
	return os.NewSyscallError("sendmsg", sent)
}

// sendListener takes the listener of the system call filter out of the child
// and sends it to the agent.
func sendListener(spec *Spec, b *birth, number int) error {
	if spec.SeccompListener == nil || b.pidfd == nil {
		return errors.New("listener of a system call filter that nobody asked for")
	}
	raw, err := b.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	var got error
	if err := raw.Control(func(pidfd uintptr) { fd, got = unix.PidfdGetfd(int(pidfd), number, 0) }); err != nil {
		return err
	}
	if got != nil {
		return os.NewSyscallError("pidfd_getfd", got)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := sendRights(spec.SeccompListener, seccompState(spec.SeccompState, b.pid), fd); err != nil {
		return fmt.Errorf("send listener of the system call filter: %w", err)
	}
	return nil
}

// seccompState puts the pid into a container process state, twice: as the
// process's and, for a first process that has none yet, as the container's
// (config-linux.md, The Container Process State). What is no object is sent as
// it is.
func seccompState(text []byte, pid int) []byte {
	var object, inner map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil || object == nil {
		return text
	}
	number, _ := json.Marshal(pid)
	changes := map[string]json.RawMessage{"pid": number}
	if err := json.Unmarshal(object["state"], &inner); err == nil && inner != nil {
		if old, ok := inner["pid"]; !ok || string(old) == "0" {
			changes["state"] = withMembers(inner, map[string]json.RawMessage{"pid": number})
		}
	}
	return withMembers(object, changes)
}
