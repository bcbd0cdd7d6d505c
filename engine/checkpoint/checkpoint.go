// Package checkpoint writes the state of a process tree to a directory by criu,
// where that is installed: it is probed and never required.
//
// What criu 4.2 is told (criu(8)): the user and network namespaces are
// external, since they are pinned and outlive the process; so is the terminal,
// whose other end the keeper holds; control groups are left alone, open TCP
// connections refused, file locks kept. The images of a checkpoint hold the
// memory of the tenant: the directory is made with mode 0700.
//
// Not proven with a real criu yet; tests run a stand-in.
package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// The oldest criu that is used. 3.17, Debian 12's, knows neither external user
// namespaces with pinned network ones nor the rseq and time namespaces of newer
// kernels.
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
	// Pid is the first process, in the caller's terms.
	Pid int
	// Dir is an absolute path of a directory that does not exist: it is made.
	Dir string
	// Root is the container's root on the host.
	Root string
	// LeaveRunning lets the processes go on; otherwise they are killed.
	LeaveRunning bool
}

// Dump writes a checkpoint. On error the processes run on and Dir does not
// exist.
func (t *Tool) Dump(ctx context.Context, req DumpRequest) (err error) {
	if req.Pid <= 1 || !filepath.IsAbs(req.Dir) || !filepath.IsAbs(req.Root) {
		return fmt.Errorf("checkpoint: process %d, directory %q, root %q: %w", req.Pid, req.Dir, req.Root, errdefs.ErrInvalid)
	}
	external, err := externals(req.Pid)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := os.Mkdir(req.Dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrAlreadyExists)
		}
		return fmt.Errorf("checkpoint: %w", err)
	}
	args := []string{
		"dump", "--tree", strconv.Itoa(req.Pid), "--images-dir", req.Dir, "--root", req.Root, "--log-file", "dump.log",
		"--manage-cgroups=ignore", "--file-locks", "--shell-job", "--link-remap",
	}
	for _, e := range external {
		args = append(args, "--external", e)
	}
	if req.LeaveRunning {
		args = append(args, "--leave-running")
	}
	if _, err := run(ctx, t.Path, args...); err != nil {
		err = fmt.Errorf("checkpoint: %w%s", err, reason(filepath.Join(req.Dir, "dump.log")))
		return errors.Join(err, os.RemoveAll(req.Dir))
	}
	return nil
}

// externals are the namespaces of a process that are not its own to dump, in
// criu's words: KIND[INODE]:KEY.
func externals(pid int) (list []string, err error) {
	for _, kind := range []string{"net", "user"} {
		var st unix.Stat_t
		path := fmt.Sprintf("/proc/%d/ns/%s", pid, kind)
		if err := unix.Stat(path, &st); err != nil {
			if errors.Is(err, unix.ENOENT) {
				err = errdefs.ErrNotFound
			}
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, fmt.Sprintf("%s[%d]:%s", kind, st.Ino, kind))
	}
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/fd/0", pid), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR {
		list = append(list, fmt.Sprintf("tty[%x:%x]", st.Rdev, st.Dev))
	}
	return list, nil
}

// run runs criu to its end and returns what it has said.
func run(ctx context.Context, path string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env, cmd.Dir = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "/"
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

// reason is the last error of criu's log, for an error text.
func reason(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	last := ""
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "Error") {
			last = strings.TrimSpace(line)
		}
	}
	if last == "" {
		return ""
	}
	return fmt.Sprintf(": %.256q", last)
}
