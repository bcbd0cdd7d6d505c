package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Flatten writes into to, an empty private directory, what the layers, lowest
// first, show together as an overlay would. Data is shared where the file
// system can do that. errdefs.ErrExhausted: no room on the disk. On error to
// holds a part.
func Flatten(ctx context.Context, layers []*os.File, to *os.File) error {
	c := newCopier(to, false)
	top := rootStack(layers)
	err := c.flatten(ctx, top, int(to.Fd()), ".")
	runtime.KeepAlive(layers)
	runtime.KeepAlive(to)
	return copyError("flatten layers", err)
}

// stack is a directory of a merged tree: those that it is made of, topmost
// first. It is empty for a directory that no layer has.
type stack []int

// rootStack does not own its descriptors.
func rootStack(layers []*os.File) stack {
	var s stack
	for _, l := range slices.Backward(layers) {
		s = append(s, int(l.Fd()))
		if isOpaqueDir(int(l.Fd())) {
			break
		}
	}
	return s
}

func isOpaqueDir(fd int) bool {
	var v [2]byte
	n, err := unix.Fgetxattr(fd, OpaqueXattr, v[:])
	return err == nil && n == 1 && v[0] == 'y'
}

func (s stack) close() {
	for _, fd := range s {
		_ = unix.Close(fd)
	}
}

// names lists what some directory of the stack has, removed names included.
func (s stack) names() ([]string, error) {
	var all []string
	for _, fd := range s {
		names, err := readNames(fd)
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// lookup finds the entry that shows under name, and the directory that has it.
func (s stack) lookup(name string) (dir int, st *unix.Stat_t, err error) {
	for _, fd := range s {
		st, err := lstat(fd, name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil && isWhiteout(st) {
			break
		}
		return fd, st, err
	}
	return -1, nil, os.ErrNotExist
}

// sub opens the directory name of the merged tree. The caller closes it.
func (s stack) sub(name string) (out stack, err error) {
	defer func() {
		if err != nil {
			out.close()
		}
	}()
	for _, dir := range s {
		st, err := lstat(dir, name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return out, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			break // a whiteout, or a file that a directory above hides
		}
		fd, err := unix.Openat(dir, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return out, wrap("open", name, err)
		}
		out = append(out, fd)
		if isOpaqueDir(fd) {
			break
		}
	}
	return out, nil
}

// flatten copies what is in the merged directory s, and its attributes.
func (c *copier) flatten(ctx context.Context, s stack, to int, path string) error {
	names, err := s.names()
	if err != nil {
		return wrap("read directory", path, err)
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		dir, st, err := s.lookup(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := c.node(ctx, dir, name, to, join(path, name)); err != nil {
				return err
			}
			continue
		}
		if err := c.flattenSub(ctx, s, name, to, join(path, name)); err != nil {
			return err
		}
	}
	if len(s) == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(s[0], &st); err != nil {
		return wrap("stat", path, err)
	}
	return c.attributes(s[0], to, &st)
}

func (c *copier) flattenSub(ctx context.Context, s stack, name string, to int, path string) error {
	sub, err := s.sub(name)
	if err != nil {
		return err
	}
	defer sub.close()
	fd, err := makeDir(to, name)
	if err != nil {
		return wrap("mkdir", path, err)
	}
	defer unix.Close(fd)
	markOrigin(fd, path)
	return c.flatten(ctx, sub, fd, path)
}
