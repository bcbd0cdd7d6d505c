// Package checkpoint writes the processes of a container to a directory and
// brings them back, by criu, where that is installed: it is probed and never
// required.
//
// What criu 4.2 is told, over the socket of "criu swrk" (criu's rpc.proto):
//
//   - The user, pid, mount, ipc, uts and time namespaces are made again from the
//     images. A user namespace cannot be joined, so the restored one is another
//     with the same maps, and what belongs to the old one is of no use to it.
//   - So the network namespace is another, too, and empty: connections are
//     refused at the dump, devices and addresses are the caller's to make again.
//   - Mounts that show something of the host (Mount) are bound anew from a stage.
//   - Control groups are the caller's: criu itself runs in them while it restores,
//     so what it makes is born there, and whatever becomes of it ends with them.
//   - The terminal whose other end the keeper held is made anew in the container's
//     own devpts, and its master handed over.
//   - File locks are kept; a file that was deleted while open is kept if small.
//
// The disk is no part of a checkpoint: criu finds the files of the processes by
// their paths in the root that a restore is given, and refuses those whose size
// has changed.
//
// A checkpoint is a directory of mode 0700, because the images hold the memory of
// the tenant:
//
//	gantry.json  Manifest
//	images/      criu's, with its logs; the processes of a restore read them by descriptor
//
// Who may write to it may do anything on this host.
package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// The oldest criu that is used: the oldest that any of this was tried with. 3.17,
// Debian 12's, does not know the rseq and time namespaces of newer kernels.
const (
	minMajor = 4
	minMinor = 2
)

// Tool is a criu that can be used. Its methods are safe for concurrent use.
type Tool struct {
	Path string
	// Version as criu says it.
	Version string
}

// Probe looks for criu at path, or in PATH if that is "", and asks it whether
// the kernel has what it needs. Every reason against using it is an
// errdefs.ErrUnsupported that names it.
func Probe(ctx context.Context, path string) (*Tool, error) {
	if path == "" {
		path = "criu"
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: criu %d.%d or newer is not installed: %w", minMajor, minMinor, errdefs.ErrUnsupported)
	}
	if found, err = filepath.Abs(found); err != nil {
		return nil, err
	}
	out, err := run(ctx, found, "--version")
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w: %w", err, errdefs.ErrUnsupported)
	}
	version, err := parseVersion(out)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %s: %w", found, err)
	}
	if _, err := run(ctx, found, "check"); err != nil {
		return nil, fmt.Errorf("checkpoint: the kernel lacks what criu needs: %w: %w", err, errdefs.ErrUnsupported)
	}
	return &Tool{Path: found, Version: version}, nil
}

var versionLine = regexp.MustCompile(`(?m)^Version:\s*(\d{1,4})\.(\d{1,4})(\.\d{1,4})*\s*$`)

func parseVersion(out []byte) (string, error) {
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("no version in %.64q: %w", out, errdefs.ErrUnsupported)
	}
	_, version, _ := strings.Cut(string(m[0]), ":")
	version = strings.TrimSpace(version)
	major, _ := strconv.Atoi(string(m[1])) // digits, and few
	minor, _ := strconv.Atoi(string(m[2]))
	if major < minMajor || major == minMajor && minor < minMinor {
		return "", fmt.Errorf("criu %s is too old, %d.%d is needed: %w", version, minMajor, minMinor, errdefs.ErrUnsupported)
	}
	return version, nil
}

// DumpRequest of Dump.
type DumpRequest struct {
	// Pid is the first process, in the caller's terms; it is the first of its
	// pid namespace.
	Pid int
	// Dir is an absolute path of a directory that does not exist: it is made.
	Dir string
	// LeaveRunning lets the processes go on; otherwise they are killed.
	LeaveRunning bool
	// Caller is a JSON document that the manifest keeps for the caller.
	Caller json.RawMessage
}

// Dump writes a checkpoint of the process and its descendants; others in its pid
// namespace are no part of it. On error the processes run on and Dir does not
// exist. When ctx ends criu is not killed but refuses to go on at its next step.
//
// errdefs.ErrInvalid, errdefs.ErrAlreadyExists (Dir), errdefs.ErrNotFound (Pid)
// and errdefs.ErrUnsupported (a mount that shows more of the host than is known
// here) name what they are about; other errors end with criu's own reason.
func (t *Tool) Dump(ctx context.Context, req DumpRequest) (err error) {
	if req.Pid <= 1 || !filepath.IsAbs(req.Dir) {
		return fmt.Errorf("checkpoint: process %d, directory %q: %w", req.Pid, req.Dir, errdefs.ErrInvalid)
	}
	mounts, err := foreignMounts(req.Pid)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("process %d: %w: %w", req.Pid, err, errdefs.ErrNotFound)
		}
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := os.Mkdir(req.Dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrAlreadyExists)
		}
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := t.dump(ctx, req, mounts); err != nil {
		return errors.Join(fmt.Errorf("checkpoint: %w", err), os.RemoveAll(req.Dir))
	}
	return nil
}

func (t *Tool) dump(ctx context.Context, req DumpRequest, mounts []Mount) error {
	// The manifest comes first: once criu has killed the processes nothing may fail.
	m := Manifest{Version: manifestVersion, Criu: t.Version, Created: time.Now().UTC(), Arch: runtime.GOARCH, Mounts: mounts, Caller: req.Caller}
	if err := m.write(req.Dir); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(req.Dir, imagesName), 0o711); err != nil {
		return err
	}
	opts := message{}.number(optPid, uint64(req.Pid)).flag(optLeaveRunning, req.LeaveRunning).flag(optFileLocks, true).
		flag(optLinkRemap, true).flag(optOrphanPTY, true).number(optCgroups, cgroupsIgnore).
		number(optEmptyNS, unix.CLONE_NEWNET).number(optNetworkLock, lockNothing)
	for _, m := range mounts {
		opts = opts.text(optExternal, m.key()+":"+m.Path)
	}
	c := call{program: t.Path, typ: typeDump, opts: opts, dir: req.Dir, logFile: "dump.log"}
	c.start = func(cmd *exec.Cmd) (*os.File, error) { return startDump(cmd, req.Dir) }
	_, err := c.run(ctx)
	return err
}

// startDump starts criu with a umask that lets the processes of a restore, which
// have no rights on the host, read their images.
func startDump(cmd *exec.Cmd, dir string) (images *os.File, err error) {
	if images, err = os.Open(filepath.Join(dir, imagesName)); err != nil {
		return nil, err
	}
	err = linux.OwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		unix.Umask(0o022)
		return cmd.Start()
	})
	if err != nil {
		_ = images.Close()
		return nil, err
	}
	return images, nil
}

// run runs criu to its end and returns what it has said.
func run(ctx context.Context, path string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env, cmd.Dir = environment(), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("criu %s: %w: %w", args[0], context.Cause(ctx), errdefs.ErrAborted)
		}
		return nil, fmt.Errorf("criu %s: %w: %.256q", args[0], err, bytes.TrimSpace(out.Bytes()))
	}
	return out.Bytes(), nil
}
