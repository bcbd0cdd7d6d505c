package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// A Stage is a copy of a directory in the form of overlayfs that is brought
// closer to the original pass by pass, while somebody writes there. What a pass
// has to copy shrinks, until the writer is held still for the last one: that
// makes the copy consistent and takes as long as the files take that were
// written since the pass before.
//
// A file is copied again when its inode, size or change time differs: nobody
// inside a container can set the last. Not safe for concurrent use.
type Stage struct {
	to   *os.File
	copy *copier
	// files is what each path was copied from.
	files map[string]staged
	begun time.Time // of the pass
	res   Pass
	crew  *crew // of the pass
}

// staged is what a file was when it was copied.
type staged struct {
	id    inode
	ctime unix.Timespec
	size  int64
	// racy: it may have changed within the same tick of the clock since.
	racy bool
}

// Pass is what one pass has done.
type Pass struct {
	// Files and Bytes copied; holes are not counted.
	Files int
	Bytes int64
}

// coarse is longer than a tick of the clock that file systems stamp files with.
const coarse = 20 * time.Millisecond

// NewStage begins a copy in to, an empty private directory, which the caller
// keeps open until the last pass.
func NewStage(to *os.File) *Stage {
	return &Stage{to: to, copy: newCopier(to, true), files: map[string]staged{}}
}

// Run makes the copy like from. mapped is nil for the last pass; for one during
// which somebody writes it says whether anybody has files of from mapped so that
// writes to memory go to them. The file system is then written back first, since
// the kernel stamps only the first write to a page after that. A mapping that is
// made later stamps its file within the pass, which is then copied again.
// Sockets, devices and attributes that cannot be part of a layer are left out.
// errdefs.ErrExhausted: no room on the disk. On error the copy is of no use.
func (s *Stage) Run(ctx context.Context, from *os.File, mapped func() (bool, error)) (Pass, error) {
	s.begun, s.res = time.Now(), Pass{}
	s.copy.links = map[inode]string{}
	if mapped != nil {
		is, err := mapped()
		if err == nil && is {
			err = unix.Syncfs(int(from.Fd()))
		}
		if err != nil {
			return Pass{}, fmt.Errorf("copy changes: mapped files: %w", err)
		}
	}
	s.crew = newCrew(s.to)
	err := s.directory(ctx, int(from.Fd()), int(s.to.Fd()), ".")
	s.crew.close()
	runtime.KeepAlive(from)
	runtime.KeepAlive(s.to)
	return s.res, copyError("copy changes", err)
}

// directory makes the open directory to like from.
func (s *Stage) directory(ctx context.Context, from, to int, path string) error {
	names, err := readNames(from)
	if err != nil {
		return wrap("read directory", path, err)
	}
	had, err := readNames(to)
	if err != nil {
		return wrap("read directory", path, err)
	}
	touched, err := s.forget(to, path, names, had)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, name := range had {
		there[name] = true
	}
	work := s.crew.batch()
	for _, name := range names {
		var did bool
		did, err = s.node(ctx, node{from, to, name, join(path, name), there[name]}, work)
		touched = touched || did || err != nil
		if err != nil && !vanished(err) {
			break
		}
		err = nil
	}
	if err = errors.Join(err, work.wait()); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return wrap("stat", path, err)
	}
	if !touched && s.same(path, &st) {
		return nil
	}
	if err := clearXattrs(to); err != nil {
		return err
	}
	s.note(path, &st)
	return s.copy.attributes(from, to, &st)
}

// forget removes what the copy has and the original has not any more.
func (s *Stage) forget(to int, path string, names, had []string) (touched bool, err error) {
	keep := map[string]bool{}
	for _, name := range names {
		keep[name] = true
	}
	for _, name := range had {
		if keep[name] {
			continue
		}
		touched = true
		if err := s.remove(to, name, join(path, name)); err != nil {
			return true, err
		}
	}
	return touched, nil
}

// same reports whether the copy at path is of this very state.
func (s *Stage) same(path string, st *unix.Stat_t) bool {
	was, ok := s.files[path]
	return ok && !was.racy && was.id == inodeOf(st) && was.ctime == st.Ctim && was.size == st.Size
}

// note remembers what the copy at path is of.
func (s *Stage) note(path string, st *unix.Stat_t) {
	racy := time.Unix(st.Ctim.Unix()).After(s.begun.Add(-coarse))
	s.files[path] = staged{id: inodeOf(st), ctime: st.Ctim, size: st.Size, racy: racy}
}

// node is an entry of two open directories.
type node struct {
	from, to   int
	name, path string
	// there: the copy has something of the name.
	there bool
}

// node makes the copy of an entry like the original. Most files are copied by
// the crew.
func (s *Stage) node(ctx context.Context, n node, work *batch) (touched bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
	}
	st, err := lstat(n.from, n.name)
	if err != nil {
		return true, errors.Join(err, s.remove(n.to, n.name, n.path))
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return s.subdirectory(ctx, n.from, n.name, n.to, n.path)
	}
	if s.same(n.path, st) {
		if st.Nlink > 1 {
			s.copy.links[inodeOf(st)] = n.path
		}
		return false, nil
	}
	if n.there {
		if err := s.remove(n.to, n.name, n.path); err != nil {
			return true, err
		}
	}
	s.note(n.path, st)
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return true, s.copy.node(ctx, n.from, n.name, n.to, n.path)
	}
	s.res.Files++
	s.res.Bytes += min(st.Size, st.Blocks*512)
	if st.Nlink > 1 { // the other names have to know
		return true, s.copy.file(ctx, n.from, n.name, n.to, n.path)
	}
	work.do(func(c *copier) error {
		if err := c.file(ctx, n.from, n.name, n.to, n.path); !vanished(err) {
			return err
		}
		return nil
	})
	return true, nil
}

// remove takes what is there under a name out of the copy.
func (s *Stage) remove(to int, name, path string) error {
	delete(s.files, path)
	err := unix.Unlinkat(to, name, 0)
	if err == unix.EISDIR {
		err = removeTree(to, name)
	}
	if err == unix.ENOENT {
		err = nil
	}
	return wrap("remove", path, err)
}

func (s *Stage) subdirectory(ctx context.Context, from int, name string, to int, path string) (touched bool, err error) {
	src, err := unix.Openat(from, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return true, wrap("open", path, err)
	}
	defer unix.Close(src)
	var st, is unix.Stat_t
	err = unix.Fstatat(to, name, &is, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == unix.ENOENT:
		touched = true
	case err != nil:
		return true, wrap("stat", path, err)
	case is.Mode&unix.S_IFMT != unix.S_IFDIR:
		touched = true
		if err := s.remove(to, name, path); err != nil {
			return true, err
		}
	}
	if err := unix.Fstat(src, &st); err != nil {
		return true, wrap("stat", path, err)
	}
	dst, err := makeDir(to, name)
	if err != nil {
		return true, wrap("mkdir", path, err)
	}
	defer unix.Close(dst)
	return touched, s.directory(ctx, src, dst, path)
}

// clearXattrs removes what an earlier pass has set.
func clearXattrs(fd int) error {
	names, err := listXattrs(fd)
	if err != nil {
		return wrap("list attributes", "", err)
	}
	for _, name := range names {
		if judgeXattr(name) != xattrKeep && name != OpaqueXattr {
			continue
		}
		if err := unix.Fremovexattr(fd, name); err != nil && err != unix.ENODATA {
			return wrap("remove attribute", name, err)
		}
	}
	return nil
}
