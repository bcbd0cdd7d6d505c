package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/oci"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/undo"
)

// CreateRequest says what to create and how the caller is connected to it.
type CreateRequest struct {
	ID string
	// Bundle is the directory with config.json; "" is the working directory.
	Bundle string
	// PidFile receives the first process's number in decimal, "" for none.
	PidFile string
	// ConsoleSocket is the path of a listening unix socket that receives the
	// terminal's other end (SCM_RIGHTS); required by Create and by a detached
	// Run when the configuration asks for a terminal, refused when it does not.
	ConsoleSocket string
	// Stdio is for a command without a terminal; nil is the null device.
	Stdio [3]*os.File
	// Preserve become descriptors 3 and up; LISTEN_FDS tells the command of the
	// first Listen of them (sd_listen_fds(3)).
	Preserve []*os.File
	Listen   int
}

// birth is a container on its way.
type birth struct {
	*Runtime
	req  CreateRequest
	name string // the runner's
	rec  *record
	conf *oci.Container
	undo undo.Stack
	// files are ours to close when the child has them.
	files []*os.File
	group cgroup.Group
}

// Create makes a container and returns when it waits for Start. On error
// nothing of it is left.
func (r *Runtime) Create(ctx context.Context, req CreateRequest) (err error) {
	b, lock, err := r.conceive(ctx, req)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	defer func() { err = b.end(ctx, err) }()
	if err := b.console(false); err != nil {
		return err
	}
	gate, err := process.OpenGate(r.path(req.ID, gateFile))
	if err != nil {
		return err
	}
	b.files = append(b.files, gate)
	b.conf.Process.Gate = gate
	_, err = b.bear(ctx)
	return err
}

// end undoes what a failed birth has made, and closes its files.
func (b *birth) end(ctx context.Context, err error) error {
	linux.CloseAll(b.files)
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("create container %s: %w", b.req.ID, err), b.undo.Unwind(ctx))
}

// conceive reserves the id and reads the configuration. On error nothing is
// left; otherwise the caller closes the lock, and calls end in any case.
func (r *Runtime) conceive(ctx context.Context, req CreateRequest) (*birth, *os.File, error) {
	bundle, err := filepath.Abs(req.Bundle)
	if err != nil {
		return nil, nil, err
	}
	if err := checkID(req.ID); err != nil {
		return nil, nil, err
	}
	warm(r.runner) // changes nothing on the host
	raw, spec, err := readConfig(bundle)
	if err != nil {
		return nil, nil, fmt.Errorf("create container %s: %w", req.ID, err)
	}
	conf, err := oci.Convert(spec, bundle, r.host())
	if err != nil {
		return nil, nil, fmt.Errorf("create container %s: %w", req.ID, err)
	}
	for _, w := range conf.Warnings {
		r.log.Warn().Str("container", req.ID).Msg(w)
	}
	warm(r.tree)
	lock, err := r.reserve(req.ID)
	if err != nil {
		return nil, nil, err
	}
	b := &birth{Runtime: r, req: req, conf: conf, name: r.name(req.ID)}
	b.undo.Push("record", func(context.Context) error { return os.RemoveAll(r.dir(req.ID)) })
	b.rec = &record{
		Schema: schema, ID: req.ID, Bundle: bundle, Rootfs: conf.Process.Rootfs, Created: time.Now().UTC(),
		Group: conf.CgroupsPath, Annotations: spec.Annotations, UserNS: hasUserNS(spec), Poststart: len(conf.Poststart) > 0, Poststop: len(conf.Poststop) > 0,
	}
	if b.rec.Group == "" {
		b.rec.Group = req.ID
	}
	if err := b.write(raw); err != nil {
		err = b.end(ctx, err)
		_ = lock.Close()
		return nil, nil, err
	}
	return b, lock, nil
}

func (b *birth) write(raw []byte) error {
	if err := os.WriteFile(b.path(b.req.ID, configFile), raw, 0o600); err != nil {
		return err
	}
	return b.save(b.rec)
}

func hasUserNS(spec *specs.Spec) bool {
	if spec.Linux == nil {
		return false
	}
	for _, n := range spec.Linux.Namespaces {
		if n.Type == specs.UserNamespace {
			return true
		}
	}
	return false
}

// readConfig returns config.json as it is and parsed.
func readConfig(bundle string) ([]byte, *specs.Spec, error) {
	path := filepath.Join(bundle, configFile)
	fd, err := linux.OpenFd(path, unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalid)
	}
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }()
	raw, err := oci.Read(f)
	if err != nil {
		return nil, nil, err
	}
	spec, err := oci.Parse(raw)
	return raw, spec, err
}

// bear makes the control group and the process, and completes the record.
func (b *birth) bear(ctx context.Context) (*process.Local, error) {
	if err := b.enter(ctx); err != nil {
		return nil, err
	}
	if err := b.connect(); err != nil {
		return nil, err
	}
	spec := &b.conf.Process
	spec.Hooks.State = func(status string, pid int) []byte { return b.stateBytes(b.rec, Status(status), pid) }
	runner, err := b.runner()
	if err != nil {
		return nil, err
	}
	p, err := runner.Start(ctx, b.name, *spec)
	if err != nil {
		return nil, err
	}
	b.undo.Push("process", b.group.Kill)
	b.rec.Process = p
	if err := b.save(b.rec); err != nil {
		return nil, err
	}
	return runner, writePid(b.req.PidFile, p.Pid)
}

// enter makes the control group and opens it for the child.
func (b *birth) enter(ctx context.Context) error {
	tree, err := b.tree()
	if err != nil {
		return err
	}
	b.group, err = tree.Create(ctx, b.rec.Group, b.conf.Limits)
	if err != nil {
		return err
	}
	b.undo.Push("control group", b.group.Delete)
	files, err := joinFiles(&b.conf.Process, b.group)
	b.files = append(b.files, files...)
	return err
}

// joinFiles opens the group for a child, the quick way unless hooks inside have
// to join too. The caller closes the files.
func joinFiles(spec *process.Spec, g cgroup.Group) ([]*os.File, error) {
	if len(spec.Hooks.CreateContainer)+len(spec.Hooks.StartContainer) > 0 {
		files, err := g.JoinFiles()
		spec.CgroupFiles = files
		return files, err
	}
	files, err := g.BirthFiles()
	if err != nil {
		return nil, err
	}
	spec.CgroupFiles = files
	if info, err := files[0].Stat(); err == nil && info.IsDir() {
		spec.CgroupDir, spec.CgroupFiles = files[0], files[1:]
	}
	return files, nil
}

// connect sets what connects the caller with the command.
func (b *birth) connect() error {
	spec := &b.conf.Process
	if !spec.Terminal {
		spec.Stdio = b.req.Stdio
	}
	spec.Preserve = b.req.Preserve
	if b.req.Listen > 0 {
		spec.Env = append(spec.Env, "LISTEN_FDS="+strconv.Itoa(b.req.Listen), "LISTEN_PID=1")
	}
	if b.conf.ListenerPath == "" {
		return nil
	}
	var err error
	spec.SeccompListener, err = dial(b.conf.ListenerPath)
	if err != nil {
		return fmt.Errorf("connect to linux.seccomp.listenerPath: %w", err)
	}
	b.files = append(b.files, spec.SeccompListener)
	spec.SeccompState, err = b.listenerState()
	return err
}

func writePid(file string, pid int) error {
	if file == "" {
		return nil
	}
	return atomicfile.Replace(file, []byte(strconv.Itoa(pid)), 0o644)
}

// Start lets a created container run its command, after the startContainer
// hooks, and then runs the poststart hooks. errdefs.ErrConflict in any other
// state. When the command cannot be executed, or a hook fails, the container is
// a stopped one afterwards.
func (r *Runtime) Start(ctx context.Context, id string) error {
	lock, err := r.lock(id)
	if err != nil {
		return err
	}
	rec, err := r.release(ctx, id)
	_ = lock.Close()
	if err != nil {
		return err
	}
	if !rec.Poststart {
		return nil
	}
	poststart, _, err := r.hooks(rec)
	if err != nil {
		return err
	}
	return r.poststart(ctx, rec, poststart)
}

// release opens the gate. The caller holds the lock.
func (r *Runtime) release(ctx context.Context, id string) (*record, error) {
	rec, err := r.load(id)
	if err != nil {
		return nil, err
	}
	switch status := r.status(ctx, rec); status {
	case Created:
	case Stopped:
		return nil, fmt.Errorf("start container %s: cannot start a container that has stopped: %w", id, errdefs.ErrConflict)
	case Running, Paused:
		return nil, fmt.Errorf("start container %s: cannot start an already running container: %w", id, errdefs.ErrConflict)
	default:
		return nil, fmt.Errorf("start container %s: cannot start a container in the %s state: %w", id, status, errdefs.ErrConflict)
	}
	gate := r.path(id, gateFile)
	if err := process.ReleaseGate(ctx, gate); err != nil {
		return nil, fmt.Errorf("start container %s: %w", id, err)
	}
	if err := os.Remove(gate); err != nil {
		return nil, fmt.Errorf("start container %s: %w", id, err)
	}
	return rec, nil
}
