package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/oci"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// Files of a container's directory below the root.
const (
	recordFile = "state.json"
	// configFile is the configuration as it was at create: the bundle's may
	// change afterwards, which has no effect (runtime.md, Lifecycle).
	configFile = "config.json"
	// gateFile is the pipe at which a created container waits; its removal is
	// what makes a container a started one.
	gateFile = "gate"
	// resourcesFile is what update made of the configuration's resources.
	resourcesFile = "resources.json"
)

// schema is the version of record; another is errdefs.ErrUnsupported.
const schema = 1

// record is state.json.
type record struct {
	Schema  int       `json:"schema"`
	ID      string    `json:"id"`
	Bundle  string    `json:"bundle"`
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
	// Group is the name of the control group, as cgroup.Tree takes it.
	Group string `json:"group"`
	// Process is the first process, zero while the container is being created.
	Process     process.Process   `json:"process"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// UserNS: the container has a user namespace other than the caller's.
	UserNS bool `json:"user_namespace,omitempty"`
	// Poststart and Poststop: the configuration has such hooks.
	Poststart bool `json:"poststart,omitempty"`
	Poststop  bool `json:"poststop,omitempty"`
}

func (r *Runtime) dir(id string) string { return filepath.Join(r.root, id) }

func (r *Runtime) path(id, file string) string { return filepath.Join(r.root, id, file) }

// save replaces the record. It need not survive a loss of power, which ends
// the container too.
func (r *Runtime) save(rec *record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return atomicfile.Replace(r.path(rec.ID, recordFile), data, 0o600)
}

// load reads a record. One that has not been written yet, or that was lost, is
// errdefs.ErrCorrupt; an unknown id errdefs.ErrNotFound.
func (r *Runtime) load(id string) (*record, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	data, err := linux.ReadFile(r.path(id, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Lstat(r.dir(id)); errors.Is(serr, fs.ErrNotExist) {
			return nil, absent(id)
		}
		return nil, fmt.Errorf("container %s: its record is missing: %w", id, errdefs.ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("read container %s: %w", id, err)
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil || rec.ID != id {
		return nil, fmt.Errorf("container %s: its record is damaged: %w", id, errdefs.ErrCorrupt)
	}
	if rec.Schema != schema {
		return nil, fmt.Errorf("container %s: record of version %d: %w", id, rec.Schema, errdefs.ErrUnsupported)
	}
	return &rec, nil
}

// config reads the configuration of a container.
func (r *Runtime) config(id string) (*specs.Spec, error) {
	text, err := linux.ReadFile(r.path(id, configFile))
	if err != nil {
		return nil, fmt.Errorf("read container %s: %w", id, err)
	}
	return oci.Parse(text)
}

// lock keeps other processes from changing a container until the returned file
// is closed. It waits for them.
func (r *Runtime) lock(id string) (*os.File, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	for {
		fd, err := linux.OpenFd(r.dir(id), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, absent(id)
		}
		if err != nil {
			return nil, fmt.Errorf("lock container %s: %w", id, err)
		}
		f := os.NewFile(uintptr(fd), r.dir(id))
		_, err = linux.RetryEINTR(func() (int, error) { return 0, unix.Flock(fd, unix.LOCK_EX) })
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock container %s: %w", id, err)
		}
		// Whoever had the lock may have removed the directory, and another may
		// have made it again.
		mine, err := f.Stat()
		if err == nil {
			if now, serr := os.Lstat(r.dir(id)); serr == nil && os.SameFile(mine, now) {
				return f, nil
			}
		}
		_ = f.Close()
	}
}

// reserve makes the directory of a new container, locked.
func (r *Runtime) reserve(id string) (*os.File, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	err := os.Mkdir(r.dir(id), 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(r.root, 0o700); err == nil {
			err = os.Mkdir(r.dir(id), 0o700)
		}
	}
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("create container %s: container with given ID already exists: %w", id, errdefs.ErrAlreadyExists)
		}
		return nil, fmt.Errorf("create container %s: %w", id, err)
	}
	lock, err := r.lock(id)
	if err != nil {
		return nil, errors.Join(err, os.Remove(r.dir(id)))
	}
	return lock, nil
}
