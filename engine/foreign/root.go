package foreign

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/transfer"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// writeFiles writes the files of a Spec below the root, as the container's root
// would; links are resolved inside.
func writeFiles(ctx context.Context, root *os.File, s *process.Spec) error {
	if len(s.Files) == 0 {
		return nil
	}
	var stream bytes.Buffer
	w := tar.NewWriter(&stream)
	for _, f := range s.Files {
		hdr := &tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(path.Clean(f.Path), "/"), Size: int64(len(f.Data)),
			Mode: int64(f.Mode & 0o7777), Uid: int(f.UID), Gid: int(f.GID), ModTime: time.Now(), Format: tar.FormatPAX,
		}
		if err := w.WriteHeader(hdr); err != nil {
			return err
		}
		if _, err := w.Write(f.Data); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	ids := transfer.IDs{Size: 1<<31 - 1}
	for _, m := range s.UIDMap {
		if m.ContainerID == 0 {
			ids = transfer.IDs{Base: m.HostID, Size: m.Size}
		}
	}
	if _, err := transfer.In(ctx, root, "/", ids, transfer.Limits{}, &stream); err != nil {
		return fmt.Errorf("write files: %w", err)
	}
	return nil
}

// checkRoot refuses mount points of the kernel's file systems that the image
// made into something else. Not every runtime does: runc 1.1.5 follows a link
// at /dev out of the container and makes its own links there. Nothing runs in
// the root yet that could swap them.
func checkRoot(s *process.Spec) error {
	root, err := os.OpenFile(s.Rootfs, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("root: %w: %w", err, errdefs.ErrInvalid)
	}
	defer func() { _ = root.Close() }()
	for _, name := range []string{"proc", "sys", "dev"} {
		var st unix.Stat_t
		err := unix.Fstatat(int(root.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return errdefs.WithPublic(fmt.Errorf("root: /%s is no directory (mode %#o): %w", name, st.Mode, errdefs.ErrInvalid),
				fmt.Sprintf("/%s of the image is not a directory", name))
		}
	}
	return nil
}

// findCommand refuses a command that cannot be executed, in the words of the
// engine's own runner: texts of runtimes differ. It may miss what only the
// container's mounts show, and then it says nothing.
func findCommand(s *process.Spec) error {
	return findCommandIn(s.Rootfs, s)
}

func findCommandIn(rootfs string, s *process.Spec) error {
	root, err := os.OpenFile(rootfs, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("root: %w: %w", err, errdefs.ErrInvalid)
	}
	defer func() { _ = root.Close() }()
	command := s.Args[0]
	names := []string{command}
	if !strings.Contains(command, "/") {
		names = names[:0]
		for _, dir := range searchPath(s.Env) {
			names = append(names, path.Join(dir, command))
		}
	} else if !path.IsAbs(command) {
		names[0] = path.Join("/", s.Cwd, command)
	}
	last := fs.ErrNotExist
	for _, name := range names {
		if behindMount(s, name) {
			return nil
		}
		switch err := checkExecutable(root, name); {
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrPermission):
			last = err
		}
	}
	shown := command
	if len(shown) > 128 {
		shown = shown[:128] + "…"
	}
	text := fmt.Sprintf("command %q not found in the image", shown)
	if errors.Is(last, fs.ErrPermission) {
		text = fmt.Sprintf("command %q of the image may not be executed", shown)
	}
	return errdefs.WithPublic(fmt.Errorf("find command: %w: %w", last, errdefs.ErrInvalid), text)
}

func searchPath(env []string) (dirs []string) {
	for _, e := range env {
		if list, ok := strings.CutPrefix(e, "PATH="); ok {
			dirs = nil
			for _, d := range strings.Split(list, ":") {
				if path.IsAbs(d) {
					dirs = append(dirs, d)
				}
			}
		}
	}
	return dirs
}

// behindMount: what is there cannot be seen from here.
func behindMount(s *process.Spec, name string) bool {
	for _, m := range s.Mounts {
		if d := path.Clean(m.Destination); d == "/" || name == d || strings.HasPrefix(name, d+"/") {
			return true
		}
	}
	return false
}

func checkExecutable(root *os.File, name string) error {
	f, err := linux.OpenInRoot(root, strings.TrimPrefix(path.Clean(name), "/"), unix.O_PATH)
	if err != nil {
		return fs.ErrNotExist
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return fs.ErrPermission
	}
	return nil
}
