package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Names of the compared services, for -only.
const (
	fakeName         = "fake"
	lxcName          = "lxc"
	gantryName       = "gantry"
	gantryNoWaitName = "gantry-nowait"
)

// Hosts of the control plane: see functional/controlplane/lib.sh.
const (
	agentHost = "gantry-1"
	fakeHost  = "fake-1"
)

// contender is a compute service that is compared. start returns once Nova
// can use it; pids are the leaders of the process trees that it consists of.
type contender struct {
	name, title, host, image string

	start func(context.Context) error
	stop  func(context.Context) error
	pids  func() ([]int, error)
	// log is gantry's own log of this run, "" for the others.
	log string
}

// script runs one of the control plane's scripts.
func (b *bench) script(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(b.set.scripts, name), args...)
	cmd.Env = append(os.Environ(), "STATE="+b.set.state, "GANTRY_CP_PASS="+b.set.pass)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// stock is a nova-compute that a script starts and stops; its processes are
// those recorded under names.
func (b *bench) stock(name, title, script, host, image string, names ...string) *contender {
	return &contender{
		name: name, title: title, host: host, image: image,
		start: func(ctx context.Context) error { return b.script(ctx, script) },
		stop:  func(ctx context.Context) error { return b.script(ctx, script, "stop") },
		pids: func() ([]int, error) {
			var pids []int
			for _, n := range names {
				pid, err := pidFrom(filepath.Join(b.set.state, "run", n+".pid"))
				if err != nil {
					return nil, err
				}
				pids = append(pids, pid)
			}
			return pids, nil
		},
	}
}

// gantry is the service under test with further SECTION.KEY=VALUE settings.
// It runs from a copy of the binary, so that no other process on this machine
// shares its pages, and logs at debug level.
func (b *bench) gantry(name, title, image string, set ...string) *contender {
	g := &gantryService{bench: b, set: set, logFile: filepath.Join(b.set.state, "log", "bench-"+name+".log")}
	return &contender{
		name: name, title: title, host: agentHost, image: image, log: g.logFile,
		start: g.start, stop: g.stop, pids: g.pids,
	}
}

type gantryService struct {
	bench   *bench
	set     []string
	logFile string
	cmd     *exec.Cmd
	ended   chan struct{} // closed once the service has ended
}

func (g *gantryService) start(ctx context.Context) error {
	state := g.bench.set.state
	if err := os.MkdirAll(filepath.Join(state, "gantry"), 0o755); err != nil {
		return err
	}
	if err := os.Remove(g.logFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	log, err := os.OpenFile(g.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{
		"compute", "--debug", "--config-file", filepath.Join(state, "etc/nova/common.conf"),
		"--config-file", filepath.Join(state, "etc/nova/gantry.conf"),
	}
	for _, s := range g.set {
		args = append(args, "--set", s)
	}
	g.cmd = exec.Command(g.bench.binary, args...)
	g.cmd.Stdout, g.cmd.Stderr = log, log
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := g.cmd.Start(); err != nil {
		return err
	}
	cmd, ended := g.cmd, make(chan struct{})
	g.ended = ended
	go func() {
		_ = cmd.Wait() // the log says why
		close(ended)
	}()
	err = until(ctx, 90*time.Second, 200*time.Millisecond, func() (bool, error) {
		select {
		case <-ended:
			return false, fmt.Errorf("gantry ended, see %s", g.logFile)
		default:
		}
		text, err := os.ReadFile(g.logFile)
		return bytes.Contains(text, []byte("compute service ready")), err
	})
	if err != nil {
		return errors.Join(err, g.stop(ctx))
	}
	return g.bench.script(ctx, "wait-compute", agentHost, "90")
}

// stop ends the service, and its keeper, which has no instances left.
func (g *gantryService) stop(context.Context) error {
	if g.cmd == nil || g.cmd.Process == nil {
		return nil
	}
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.ended:
	case <-time.After(30 * time.Second):
		_ = g.cmd.Process.Kill()
		<-g.ended
	}
	g.cmd = nil
	if pid, err := g.keeper(); err == nil {
		return syscall.Kill(pid, syscall.SIGTERM)
	}
	return nil
}

func (g *gantryService) pids() ([]int, error) {
	keeper, err := g.keeper()
	return []int{g.cmd.Process.Pid, keeper}, err
}

// keeper is the pid of the process that holds the containers, checked to be it.
func (g *gantryService) keeper() (int, error) {
	dir := filepath.Join(g.bench.set.state, "gantry/engine")
	pid, err := pidFrom(filepath.Join(dir, "keeper.pid"))
	if err != nil {
		return 0, err
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte(dir+"/")) {
		return 0, fmt.Errorf("process %d is not the keeper of %s", pid, dir)
	}
	return pid, nil
}

// pidFrom reads the first word of a pid file.
func pidFrom(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	words := strings.Fields(string(text))
	if len(words) == 0 {
		return 0, fmt.Errorf("%s is empty", file)
	}
	return strconv.Atoi(words[0])
}

// until polls until ok, an error, the limit or the end of ctx.
func until(ctx context.Context, limit, every time.Duration, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", limit, ctx.Err())
		}
	}
}
