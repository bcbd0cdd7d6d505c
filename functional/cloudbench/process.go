package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a gantry cloud.
type process struct {
	state, url string
	cmd        *exec.Cmd
	// ready is the time from its start until it said that instances can be made.
	ready time.Duration
}

// readyTime bounds a start; it is not what is promised.
const readyTime = time.Minute

// run starts a cloud with that state and waits until it is ready.
func (b *session) run(ctx context.Context, state string) (*process, error) {
	p := &process{state: filepath.Join(b.work, state)}
	args := []string{"cloud", "--state", p.state, "--listen", "127.0.0.1:0", "--log-file", p.state + ".log"}
	if b.debug {
		args = append(args, "--debug")
	}
	p.cmd = exec.Command(b.gantry, args...)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stderr = os.Stderr
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		said <- line
		_, _ = io.Copy(io.Discard, out)
	}()
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	select {
	case line := <-said:
		p.ready = time.Since(began)
		_, rest, ok := strings.Cut(line, "The cloud is up at ")
		if !ok {
			return nil, errors.Join(fmt.Errorf("the cloud said %q", line), p.stop())
		}
		p.url, _, _ = strings.Cut(rest, ". ")
		return p, nil
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("await the cloud: %w", ctx.Err()), p.stop())
	}
}

// stop ends the process; its keeper and instances go on.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	return p.cmd.Wait()
}

// password is a user's, as gantry cloud env prints it.
func (b *session) password(ctx context.Context, p *process, user string) (string, error) {
	out, err := exec.CommandContext(ctx, b.gantry, "cloud", "env", "--state", p.state, "--user", user).Output()
	if err != nil {
		return "", fmt.Errorf("cloud env: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "export OS_PASSWORD="); ok {
			return strings.Trim(v, `'"`), nil
		}
	}
	return "", fmt.Errorf("cloud env: no password in %q", out)
}

// household are all processes of the binary: in the namespace of this program
// nobody else has any.
func (b *session) household() (pids []int, err error) {
	dir, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range dir {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		exe, err := os.Readlink("/proc/" + e.Name() + "/exe")
		if err == nil && exe == b.gantry {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// purge removes a stopped cloud from the host, so that the next one is alone.
func (b *session) purge(ctx context.Context, p *process) error {
	out, err := exec.CommandContext(ctx, b.gantry, "cloud", "purge", "--state", p.state).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cloud purge: %w: %s", err, out)
	}
	return nil
}
