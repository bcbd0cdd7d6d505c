package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// Where criu is when it says so (criu's action-scripts, "criu --action-script").
const (
	scriptConsole     = "orphan-pts-master" // with the master of a terminal
	scriptPostRestore = "post-restore"      // everything is there and nothing runs yet
)

// Restore makes the processes of spec.Restore run again, with spec.Rootfs as
// their root, in the control groups of spec.CgroupFiles and spec.CgroupDir; the
// rest of spec has no meaning. It is a process.Restorer: the first process is
// left to the reaper of orphans when Restore returns. On error no process is
// left and the images are as they were, but for criu's restore.log.
//
// Errors are those of Read, errdefs.ErrConflict when a control group of the
// checkpoint is gone, errdefs.ErrAborted when ctx ended (criu then undoes what it
// did), and others that end with criu's own reason.
func Restore(ctx context.Context, spec *process.Spec) (_ process.ForeignProcess, err error) {
	r := restore{spec: spec, dir: spec.Restore.Images}
	defer func() {
		if err != nil {
			linux.CloseAll([]*os.File{r.made.Pidfd, r.made.Console})
		}
	}()
	if err := r.run(ctx); err != nil {
		return process.ForeignProcess{}, fmt.Errorf("restore checkpoint %s: %w", r.dir, err)
	}
	return r.made, nil
}

// restore is one that is under way.
type restore struct {
	spec   *process.Spec
	dir    string
	mounts []Mount
	made   process.ForeignProcess
}

func (r *restore) run(ctx context.Context) error {
	m, err := read(r.dir)
	if err != nil {
		return err
	}
	opts := message{}.text(optRoot, stageRoot).flag(optFileLocks, true).flag(optOrphanPTY, true).
		flag(optLinkRemap, true).number(optCgroups, cgroupsIgnore).number(optEmptyNS, unix.CLONE_NEWNET).
		number(optNetworkLock, lockNothing)
	for i, mount := range m.Mounts {
		opts = opts.text(optExternal, mount.key()+":"+stageOf(i))
	}
	r.mounts = m.Mounts
	c := call{
		program: r.spec.Restore.Program, typ: typeRestore, opts: opts, dir: r.dir, logFile: "restore.log",
		start: r.start, notified: r.notified,
	}
	a, err := c.run(ctx)
	if err != nil {
		return err
	}
	if r.made.Pidfd == nil || a.pid != r.made.Pid {
		return errors.Join(fmt.Errorf("criu restored process %d and spoke of %d: %w", a.pid, r.made.Pid, errdefs.ErrCorrupt), r.kill())
	}
	return nil
}

// start starts criu where the restored processes will find what they had: the
// stage, the control groups with a namespace of them, and a key ring that is not
// the caller's. All of it is the thread's that forks, which ends then.
func (r *restore) start(cmd *exec.Cmd) (images *os.File, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWCGROUP}
	if dir := r.spec.CgroupDir; dir != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	err = linux.OwnThread(func() error {
		if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
			return os.NewSyscallError("keyctl", err)
		}
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		// before the stage covers anything, and of the new mount namespace
		if images, err = os.Open(filepath.Join(r.dir, imagesName)); err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrCorrupt)
		}
		if err := setStage(r.spec.Rootfs, r.mounts); err != nil {
			return err
		}
		if err := joinTasks(r.spec.CgroupFiles); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		linux.CloseAll([]*os.File{images})
		return nil, err
	}
	return images, nil
}

// joinTasks moves the calling thread, and no other, into control groups of v1.
func joinTasks(files []*os.File) error {
	for _, f := range files {
		path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		if err == nil && filepath.Base(path) != "tasks" {
			err = fmt.Errorf("it takes no single thread: %w", errdefs.ErrUnsupported)
		}
		if err == nil {
			_, err = f.WriteString("0")
		}
		if err != nil {
			return fmt.Errorf("join control group %s: %w", path, err)
		}
	}
	return nil
}

// notified takes the console and the first process. It takes the files.
func (r *restore) notified(a answer, files []*os.File) (err error) {
	keep := 0
	if a.script == scriptConsole && r.made.Console == nil && len(files) > 0 {
		r.made.Console, keep = files[0], 1
	}
	linux.CloseAll(files[keep:]) // terminals that nobody holds any more
	if a.script == scriptPostRestore {
		r.made.Pid = a.pid
		if r.made.Pidfd, err = linux.PidfdOpen(a.pid); err != nil {
			return fmt.Errorf("restored process %d: %w", a.pid, err)
		}
	}
	return nil
}

func (r *restore) kill() error {
	if r.made.Pidfd == nil {
		return nil
	}
	return linux.PidfdSignal(r.made.Pidfd, int(unix.SIGKILL))
}
