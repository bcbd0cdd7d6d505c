// Package runtime runs containers by the OCI runtime specification (runtime.md)
// for callers that come and go: each operation may happen in a process of its
// own, and nothing runs in the background. What containers there are is told
// by a directory of records (docs/runtime.md); what state one is in, by the
// kernel.
//
// It is to engine/process and engine/cgroup what engine is, without images,
// snapshots and a keeper: the first process of a container is a child of the
// caller of Create, which waits for it or leaves that to whoever adopts orphans.
//
// Errors have a class of internal/errdefs, and for the usual mistakes the
// texts of runc, which other engines look for: "container does not exist",
// "container with given ID already exists", "container not running".
package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/oci"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// DefaultRoot is where records are if Options do not say otherwise.
const DefaultRoot = "/run/gantry/runtime"

// Options of New.
type Options struct {
	// Root is the directory of the records; it is made (0700) if absent. ""
	// is DefaultRoot.
	Root string
	// Groups is the name of the tree of control groups for containers whose
	// configuration names none; "" is "gantry-runtime".
	Groups string
	// LeaveEnded leaves ended processes to whoever adopts orphans: a command
	// that starts one and ends itself must not take its exit status.
	LeaveEnded bool
	Log        zerolog.Logger
}

// Runtime runs containers. Its methods are safe for concurrent use, also by
// several processes with one root. It needs root.
type Runtime struct {
	root   string
	groups string
	log    zerolog.Logger
	bootID string

	serial atomic.Uint64 // of names for the runner

	tree   func() (cgroup.Tree, error)
	runner func() (*process.Local, error)
	host   func() oci.Host
}

// New returns a runtime. It touches nothing until a method is called.
func New(ctx context.Context, o Options) (*Runtime, error) {
	if o.Root == "" {
		o.Root = DefaultRoot
	}
	if o.Groups == "" {
		o.Groups = "gantry-runtime"
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	bootID, err := linux.BootID()
	if err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	ctx = context.WithoutCancel(ctx) // of what is done once for all callers
	return &Runtime{
		root: root, groups: o.Groups, log: o.Log, bootID: bootID,
		tree: sync.OnceValues(func() (cgroup.Tree, error) { return cgroup.New(ctx, cgroup.Options{Name: o.Groups}) }),
		runner: sync.OnceValues(func() (*process.Local, error) {
			return process.New(process.Options{Log: o.Log, LeaveEnded: o.LeaveEnded})
		}),
		host: sync.OnceValue(func() oci.Host { return hostFacts() }),
	}, nil
}

// warm readies what is made once for all callers while the caller does something
// else. An error is told to who asks again.
func warm[T any](once func() (T, error)) {
	go func() { _, _ = once() }()
}

// hostFacts are what configurations are converted for.
func hostFacts() oci.Host {
	h := oci.Host{Arch: goruntime.GOARCH}
	have, err := linux.Capabilities()
	if err != nil {
		have = ^uint64(0)
	}
	for n, name := range oci.Capabilities() {
		if have&(1<<n) != 0 {
			h.Capabilities = append(h.Capabilities, name)
		}
	}
	_, err = os.Stat("/sys/fs/selinux/enforce")
	h.SELinux = err == nil
	return h
}

// name is one that the runner has not had yet.
func (r *Runtime) name(what string) string {
	return what + "#" + strconv.FormatUint(r.serial.Add(1), 10)
}

// maxID is the longest id: it is the name of a directory and of a control
// group.
const maxID = 128

// checkID takes names that are one path element (runc's rule).
func checkID(id string) error {
	const others = "_+-."
	bad := strings.IndexFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(others, r)
	})
	if id == "" || len(id) > maxID || id[0] == '.' || bad >= 0 {
		shown := id
		if len(shown) > maxID {
			shown = shown[:maxID] + "…"
		}
		return fmt.Errorf("invalid container ID %q: %w", shown, errdefs.ErrInvalid)
	}
	return nil
}

func absent(id string) error {
	return fmt.Errorf("container %s: container does not exist: %w", id, errdefs.ErrNotFound)
}

func notRunning(id string) error {
	return fmt.Errorf("container %s: container not running: %w", id, errdefs.ErrConflict)
}

// group returns the control group of a record; absent is errdefs.ErrNotFound.
func (r *Runtime) group(ctx context.Context, rec *record) (cgroup.Group, error) {
	tree, err := r.tree()
	if err != nil {
		return nil, err
	}
	return tree.Open(ctx, rec.Group)
}

// join collects errors of a clean-up under one operation.
func join(op, id string, errs ...error) error {
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s container %s: %w", op, id, err)
	}
	return nil
}
