package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// run runs a command of the set-up; its output is part of the error.
func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// spawn times a command from its fork to its end, as a caller of it would see
// it. Its output goes to a file, since a container may keep it.
func spawn(log *os.File, args ...string) (time.Duration, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	began := time.Now()
	p, err := os.StartProcess(path, args, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{null, log, log}})
	if err != nil {
		return 0, err
	}
	state, err := p.Wait()
	wall := time.Since(began)
	if err != nil {
		return 0, err
	}
	if !state.Success() {
		return 0, fmt.Errorf("%s: %s", strings.Join(args, " "), state)
	}
	return wall, nil
}

// A spawner runs commands in a mount namespace of their own: crun 1.8 refuses
// a hybrid tree whose v2 part has a controller, so the peers are shown the v1
// part only. It is this program with -spawner.
type spawner struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

// order is a list of commands to run after each other by so many workers.
type order struct {
	Commands [][]string
	Workers  int
}

type spawned struct {
	Wall  time.Duration
	Error string
}

func newSpawner(log *os.File) (*spawner, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", self, "-spawner")
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &spawner{cmd, json.NewEncoder(in), json.NewDecoder(out)}, nil
}

// spawn is spawn in the spawner's namespace. One caller at a time.
func (s *spawner) spawn(args ...string) (time.Duration, error) {
	return s.all(1, [][]string{args})
}

// all runs the commands by so many workers and times them together.
func (s *spawner) all(workers int, commands [][]string) (time.Duration, error) {
	if err := s.in.Encode(order{commands, workers}); err != nil {
		return 0, err
	}
	var res spawned
	if err := s.out.Decode(&res); err != nil {
		return 0, err
	}
	if res.Error != "" {
		return 0, errors.New(res.Error)
	}
	return res.Wall, nil
}

func (s *spawner) run(args ...string) error {
	_, err := s.spawn(args...)
	return err
}

// inside gives the command line that runs args in the spawner's namespace.
func (s *spawner) inside(args ...string) []string {
	return append([]string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", s.cmd.Process.Pid), "--"}, args...)
}

// serveSpawner is the other end.
func serveSpawner() error {
	if err := unix.Unmount("/sys/fs/cgroup/unified", 0); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var res spawned
		wall, err := o.run()
		if res.Wall = wall; err != nil {
			res.Error = err.Error()
		}
		if err := out.Encode(res); err != nil {
			return err
		}
	}
}

func (o order) run() (time.Duration, error) {
	if len(o.Commands) == 1 {
		return spawn(os.Stderr, o.Commands[0]...)
	}
	return workers(context.Background(), o.Workers, len(o.Commands), func(_ context.Context, i int) error {
		_, err := spawn(os.Stderr, o.Commands[i]...)
		return err
	})
}
