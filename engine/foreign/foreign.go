// Package foreign starts first processes by another OCI runtime: a program with
// the command line of runc(8), such as crun, runc, runsc or gantry runtime. It
// is the process.Foreign of process.Local, which keeps consoles, logs and exits
// of what is started here as it does for its own children.
//
// A process.Spec becomes the configuration of a bundle (the reverse of
// engine/oci); what the specification cannot say, or an older runtime would pass
// over in silence, is refused with errdefs.ErrUnsupported. The verbs in use are
// create, start, kill, exec and delete. Each container has a directory with all
// that its runtime keeps, so that removing it leaves nothing:
//
//	DIR/ID/runtime       the path of the program, for the later verbs
//	DIR/ID/config.json   the bundle
//	DIR/ID/rootfs        the root, bound here until the container is created
//	DIR/ID/state         the program's --root
//
// The set-up of the container is the runtime's: it decides how paths of the
// image are resolved and what is closed before the command runs.
//
// Source: runtime-spec runtime.md, config.md, config-linux.md; runc(8).
package foreign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/internal/undo"
)

// Options of New.
type Options struct {
	// Dir is an absolute path, best a short one below /run: it need not survive
	// a boot. It is made (0711) if absent; user namespaces have to reach the
	// roots below it, each of which only its container's root can enter.
	Dir string
	Log zerolog.Logger
}

// Foreign is a process.Foreign. It needs root. Its methods are safe for
// concurrent use as that interface says.
type Foreign struct {
	dir string
	log zerolog.Logger
	// life bounds clean-up, which has no caller to wait for.
	life context.Context //nolint:containedctx // that of clean-up
}

var _ process.Foreign = (*Foreign)(nil)

// deleteLimit is how long a runtime may take to delete a container.
const deleteLimit = 30 * time.Second

// Names below the directory of a container.
const (
	runtimeFile = "runtime"
	configFile  = "config.json"
	rootfsDir   = "rootfs"
	stateDir    = "state"
	pidFile     = "pid"
	logFile     = "log"
	consoleFile = "console"
)

// New returns a Foreign; it touches nothing. ctx gives values only: clean-up
// goes on after its end.
func New(ctx context.Context, o Options) (*Foreign, error) {
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("foreign runtimes: directory %q is not absolute: %w", o.Dir, errdefs.ErrInvalid)
	}
	return &Foreign{dir: filepath.Clean(o.Dir), log: o.Log, life: context.WithoutCancel(ctx)}, nil
}

func (f *Foreign) path(id string, name ...string) string {
	return filepath.Join(append([]string{f.dir, id}, name...)...)
}

// checkID takes what every runtime takes as an id, and as one path element.
func checkID(id string) error {
	const good = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-."
	if id == "" || len(id) > 128 || id[0] == '.' || strings.Trim(id, good) != "" {
		return fmt.Errorf("id %.128q: %w", id, errdefs.ErrInvalid)
	}
	return nil
}

// Create implements process.Foreign.
func (f *Foreign) Create(ctx context.Context, id string, spec *process.Spec) (_ process.ForeignProcess, err error) {
	var none process.ForeignProcess
	if err := checkID(id); err != nil {
		return none, err
	}
	config, err := configOf(spec, f.path(id, rootfsDir))
	if err != nil {
		return none, err
	}
	if err := checkProgram(spec.Runtime); err != nil {
		return none, err
	}
	if err := checkRoot(spec); err != nil {
		return none, err
	}
	if err := findCommand(spec); err != nil {
		return none, err
	}
	if err := f.Delete(id); err != nil { // of one that a crash has left
		return none, err
	}
	var undone undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, undone.Unwind(ctx))
		}
	}()
	undone.Push("container", func(context.Context) error { return f.Delete(id) })
	if err := f.prepare(ctx, id, spec, config); err != nil {
		return none, err
	}
	made, err := f.create(ctx, id, spec)
	if err != nil {
		return none, err
	}
	undone.Push("files", func(context.Context) error { closeProcess(made); return nil })
	if err := joinGroups(made.Pid, spec); err != nil {
		return none, err
	}
	// the container has its own
	if err := unix.Unmount(f.path(id, rootfsDir), unix.MNT_DETACH); err != nil {
		return none, fmt.Errorf("release root: %w", err)
	}
	undone.Release()
	return made, nil
}

// prepare makes the bundle, and of the root what a runtime would not make.
func (f *Foreign) prepare(ctx context.Context, id string, spec *process.Spec, config []byte) error {
	if err := os.MkdirAll(f.dir, 0o711); err != nil {
		return err
	}
	dir := f.path(id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	// In its user namespace the container's root has no rights over directories
	// of the host, and nobody else is to get in.
	if err := errors.Join(os.Chown(dir, 0, rootGID(spec)), os.Chmod(dir, 0o710)); err != nil {
		return err
	}
	for name, data := range map[string][]byte{runtimeFile: []byte(spec.Runtime), configFile: config} {
		if err := os.WriteFile(f.path(id, name), data, 0o600); err != nil {
			return err
		}
	}
	if err := os.Mkdir(f.path(id, rootfsDir), 0o700); err != nil {
		return err
	}
	root, err := os.OpenFile(spec.Rootfs, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("root: %w: %w", err, errdefs.ErrInvalid)
	}
	defer func() { _ = root.Close() }()
	if err := writeFiles(ctx, root, spec); err != nil {
		return err
	}
	target := f.path(id, rootfsDir)
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", root.Fd()), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind root: %w", err)
	}
	if err := unix.Mount("", target, "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind root: %w", err)
	}
	return nil
}

// create runs the verb.
func (f *Foreign) create(ctx context.Context, id string, spec *process.Spec) (process.ForeignProcess, error) {
	args := []string{"create", "--bundle", f.path(id), "--pid-file", f.path(id, pidFile)}
	return f.bear(ctx, birth{id: id, dir: f.path(id), args: args, name: id, spec: spec})
}

// Start implements process.Foreign.
func (f *Foreign) Start(ctx context.Context, id string) error {
	return f.run(ctx, call{id: id, log: f.path(id, logFile), args: []string{"start", id}})
}

// Kill implements process.Foreign.
func (f *Foreign) Kill(ctx context.Context, id string, sig int) error {
	return f.run(ctx, call{id: id, log: f.path(id, logFile), args: []string{"kill", id, strconv.Itoa(sig)}})
}

// Delete implements process.Foreign.
func (f *Foreign) Delete(id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	if _, err := os.Lstat(f.path(id)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(f.life, deleteLimit)
	defer cancel()
	// Whatever the runtime says, what it knows goes with the directory; crun
	// and runc fail for what was never created.
	failed := f.run(ctx, call{id: id, log: f.path(id, logFile), args: []string{"delete", "--force", id}})
	for _, p := range []string{f.path(id, rootfsDir), f.path(id)} {
		for unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			continue
		}
	}
	if f.mounted(id) {
		return errors.Join(failed, fmt.Errorf("delete container %s: its root is still mounted: %w", id, errdefs.ErrConflict))
	}
	if failed != nil {
		f.log.Debug().Err(failed).Str("container", id).Msg("runtime cannot delete container")
	}
	if err := os.RemoveAll(f.path(id)); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	return nil
}

// mounted keeps RemoveAll out of the container's root.
func (f *Foreign) mounted(id string) bool {
	var parent, root unix.Stat_t
	if unix.Lstat(f.path(id, rootfsDir), &root) != nil {
		return false
	}
	return unix.Lstat(f.path(id), &parent) != nil || parent.Dev != root.Dev
}

// Sweep implements process.Foreign.
func (f *Foreign) Sweep(keep []string) error {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, id := range keep {
		kept[id] = true
	}
	var errs []error
	for _, e := range entries {
		if !kept[e.Name()] && checkID(e.Name()) == nil {
			errs = append(errs, f.Delete(e.Name()))
		}
	}
	return errors.Join(errs...)
}

func closeProcess(p process.ForeignProcess) { linux.CloseAll([]*os.File{p.Pidfd, p.Console}) }
