package foreign

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// checkProgram refuses what nobody but root should be able to name.
func checkProgram(program string) error {
	info, err := os.Stat(program)
	if err != nil {
		return fmt.Errorf("runtime: %w: %w", err, errdefs.ErrInvalid)
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("runtime %s is no program: %w", program, errdefs.ErrInvalid)
	}
	return nil
}

// A call is one run of a runtime.
type call struct {
	// id is the container, log a file for what the runtime has to say.
	id, log string
	args    []string
	stdio   [3]*os.File
}

// run runs a verb to its end; an error has the runtime's last words.
func (f *Foreign) run(ctx context.Context, c call) error {
	program, err := os.ReadFile(f.path(c.id, runtimeFile))
	if err != nil {
		return fmt.Errorf("container %s of another runtime: %w: %w", c.id, err, errdefs.ErrNotFound)
	}
	if err := os.Remove(c.log); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	args := append([]string{"--root", f.path(c.id, stateDir), "--log", c.log, "--log-format", "json"}, c.args...)
	cmd := exec.CommandContext(ctx, string(program), args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	// Never a pipe: what the runtime leaves behind would hold it open.
	cmd.Dir = f.path(c.id)
	null, err := openNull()
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	for i, f := range c.stdio {
		if f == nil {
			c.stdio[i] = null
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdio[0], c.stdio[1], c.stdio[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	err = cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w: %w", program, c.args[0], context.Cause(ctx), errdefs.ErrAborted)
	}
	return fmt.Errorf("%s %s: %s: %w", program, c.args[0], lastWords(c.log), err)
}

// lastWords returns the last error of a log in JSON lines, clipped.
func lastWords(path string) string {
	const most, shown = 1 << 20, 1024
	file, err := os.Open(path)
	if err != nil {
		return "no log"
	}
	defer func() { _ = file.Close() }()
	last := "no error in the log"
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, most)
	for lines.Scan() {
		last = wordsOf(lines.Bytes(), last)
	}
	if len(last) > shown {
		last = last[:shown] + "…"
	}
	return last
}

// wordsOf returns the text of one line if that is an error, or else before.
func wordsOf(line []byte, before string) string {
	var entry struct {
		Level string `json:"level"`
		Msg   string `json:"msg"`
		// as zerolog has it
		Message string `json:"message"`
	}
	if json.Unmarshal(line, &entry) != nil {
		return before
	}
	text := entry.Msg + entry.Message
	if text == "" || entry.Level != "error" && entry.Level != "fatal" && entry.Level != "" {
		return before
	}
	return strings.TrimSpace(text)
}

// A birth is a verb that makes a process.
type birth struct {
	id   string // of the container
	dir  string // for log and console
	args []string
	name string // the last argument
	spec *process.Spec
}

// bear runs a verb that makes a process and tells its number by --pid-file.
func (f *Foreign) bear(ctx context.Context, b birth) (_ process.ForeignProcess, err error) {
	var made process.ForeignProcess
	var console *consoleSocket
	if b.spec.Terminal {
		if console, err = listenConsole(b.dir); err != nil {
			return made, err
		}
		defer console.close()
		console.receive(ctx, b.spec)
		b.args = append(b.args, "--console-socket", console.path)
	}
	err = f.run(ctx, call{id: b.id, log: filepath.Join(b.dir, logFile), args: append(b.args, b.name), stdio: b.spec.Stdio})
	if err != nil {
		return made, err
	}
	if made.Pid, err = readPid(filepath.Join(b.dir, pidFile)); err != nil {
		return made, err
	}
	made.Pidfd, err = linux.PidfdOpen(made.Pid)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return made, err
	}
	if console != nil {
		made.Console, err = console.take()
	}
	if err != nil {
		closeProcess(made)
		return process.ForeignProcess{}, err
	}
	return made, nil
}

func readPid(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("runtime names no process: %w", err)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("runtime names process %.32q: %w", text, errdefs.ErrCorrupt)
	}
	return pid, nil
}

// Exec implements process.Foreign.
func (f *Foreign) Exec(ctx context.Context, id string, spec *process.Spec) (_ process.ForeignProcess, err error) {
	var none process.ForeignProcess
	if err := errors.Join(checkID(id), checkID(spec.Join)); err != nil {
		return none, err
	}
	body, err := processOf(spec)
	if err != nil {
		return none, err
	}
	dir, err := os.MkdirTemp(f.path(spec.Join), "exec-")
	if err != nil {
		return none, fmt.Errorf("join process %s: %w", spec.Join, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "process.json")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		return none, err
	}
	args := []string{"exec", "--detach", "--process", file, "--pid-file", filepath.Join(dir, pidFile)}
	made, err := f.bear(ctx, birth{id: spec.Join, dir: dir, args: args, name: spec.Join, spec: spec})
	if err != nil && ctx.Err() == nil {
		err = f.blame(spec, err)
	}
	return made, err
}

// blame finds out whether a command that was not executed could have been. The
// container may be hostile, or gone: then the words are the runtime's.
func (f *Foreign) blame(spec *process.Spec, failed error) error {
	pid, err := readPid(f.path(spec.Join, pidFile))
	if err != nil {
		return failed
	}
	root := fmt.Sprintf("/proc/%d/root", pid)
	if _, err := os.Stat(root); err != nil {
		return failed
	}
	if err := findCommandIn(root, spec); err != nil {
		return fmt.Errorf("%w (%w)", err, failed)
	}
	return failed
}

// consoleLimit is how long a runtime may take to send the console after it has
// ended well: the message is in the socket then.
const consoleLimit = 5 * time.Second
