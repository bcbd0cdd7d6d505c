package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/linux"
)

func exists(dir, file string) bool {
	var st unix.Stat_t
	return unix.Lstat(filepath.Join(dir, file), &st) == nil
}

// readFile returns a file of a group without surrounding space.
func readFile(dir, file string) (string, error) {
	b, err := linux.ReadFile(filepath.Join(dir, file))
	return strings.TrimSpace(string(b)), err
}

// writeFile writes a value in one system call, as these files demand.
func writeFile(dir, file, value string) error {
	var w writer
	defer w.close()
	return w.write(dir, file, value)
}

// writer writes values. It keeps a file open for the next value, as several in
// a row may be for one: the rules of devices.allow.
type writer struct {
	path string // "" for none
	fd   int
}

func (w *writer) write(dir, file, value string) error {
	path := filepath.Join(dir, file)
	if path != w.path {
		w.close()
		fd, err := linux.OpenFd(path, unix.O_WRONLY)
		if err != nil {
			return err
		}
		w.path, w.fd = path, fd
	}
	if _, err := linux.RetryEINTR(func() (int, error) { return unix.Write(w.fd, []byte(value)) }); err != nil {
		return &os.PathError{Op: "write " + value + " to", Path: path, Err: err}
	}
	return nil
}

func (w *writer) close() {
	if w.path != "" {
		_ = unix.Close(w.fd)
		w.path = ""
	}
}

// Values of the extended attribute that says what Create made a directory for.
// Directories of control groups keep trusted attributes on v1 and v2.
const (
	markName   = "trusted.gantry"
	markGroup  = "group"
	markParent = "parent"
)

func mark(dir, what string) error {
	if err := unix.Setxattr(dir, markName, []byte(what), 0); err != nil {
		return &os.PathError{Op: "mark", Path: dir, Err: err}
	}
	return nil
}

func isMarked(dir, what string) bool {
	var buf [16]byte
	n, err := unix.Getxattr(dir, markName, buf[:])
	return err == nil && string(buf[:n]) == what
}

// removeTree removes a group and its sub-groups; absent is nil.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EBUSY && err != unix.ENOTEMPTY {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	subs, lerr := subgroups(dir)
	for _, sub := range subs {
		if err := removeTree(sub); err != nil {
			return err
		}
	}
	if lerr != nil || len(subs) == 0 {
		return errors.Join(lerr, &os.PathError{Op: "rmdir", Path: dir, Err: err})
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// subgroups lists the directories of a group, none when it is absent. Most
// have none, which the link count tells at once.
func subgroups(dir string) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err == unix.ENOENT || err == nil && st.Nlink == 2 {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, err
}
