package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
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
// The copy is one file, the pack, that holds the contents of files one behind
// the other, and what the names are in memory: making one file takes less than
// making thousands. Stream writes it as a layer, Pack says what the pack needs
// beside it to be one.
//
// A file is copied again when its inode, size or change time differs: nobody
// inside a container can set the last. The copy of before stays in the pack if
// it is small, as a part that nobody reads. Not safe for concurrent use, but Stream is.
type Stage struct {
	pack *os.File
	size atomic.Int64
	// known is what each path was in the pass before, nodes what it is in this
	// one, in the order of the layer.
	known map[string]*staged
	nodes []*staged
	links map[inode]*staged // of the pass: files with several names
	begun time.Time         // of the pass
	pass  int
	res   Pass
	left  int64 // what the last pass has left out
	crew  *crew // of the pass
	buf   []byte
}

// staged is an entry of the layer, and what it was when it was copied.
type staged struct {
	path         string // clean, "." is the root
	id           inode
	ctime, mtime unix.Timespec
	size         int64
	mode         uint32
	uid, gid     uint32
	several      bool // names of the file
	opaque       bool
	link         string            // target of a symbolic link
	xattrs       map[string]string // as records of pax
	// at is where in the pack the content begins, size bytes of it. Files of
	// several names have it at the first of them.
	at int64
	// racy: it may have changed within the same tick of the clock since.
	racy bool
	// gone: it vanished before it was copied.
	gone bool
	pass int // the last that has seen it so
}

// Pass is what one pass has done.
type Pass struct {
	// Files and Bytes copied; holes are not counted.
	Files int
	Bytes int64
}

// coarse is longer than a tick of the clock that file systems stamp files with.
const coarse = 20 * time.Millisecond

// NewStage begins a copy in pack, an empty private file, which the caller keeps
// open for as long as the stage is used.
func NewStage(pack *os.File) *Stage {
	return &Stage{pack: pack, buf: make([]byte, 65536)}
}

// Run makes the copy like from. mapped is nil for the last pass; for one during
// which somebody writes it says whether anybody has files of from mapped so that
// writes to memory go to them. The file system is then written back first, since
// the kernel stamps only the first write to a page after that. A mapping that is
// made later stamps its file within the pass, which is then copied again.
// Sockets, devices and attributes that cannot be part of a layer are left out,
// and a path that no call could open is errdefs.ErrInvalid.
// errdefs.ErrExhausted: no room on the disk. On error the copy is of no use.
func (s *Stage) Run(ctx context.Context, from *os.File, mapped func() (bool, error)) (Pass, error) {
	s.begun, s.res, s.left, s.pass = time.Now(), Pass{}, 0, s.pass+1
	s.known = make(map[string]*staged, len(s.nodes))
	for _, n := range s.nodes {
		if !n.gone {
			s.known[n.path] = n
		}
	}
	s.nodes, s.links = make([]*staged, 0, len(s.nodes)), map[inode]*staged{}
	if mapped != nil {
		is, err := mapped()
		if err == nil && is {
			err = unix.Syncfs(int(from.Fd()))
		}
		if err != nil {
			return Pass{}, fmt.Errorf("copy changes: mapped files: %w", err)
		}
	}
	s.crew = newCrew(s.pack, &s.size)
	var st unix.Stat_t
	err := wrap("stat", ".", unix.Fstat(int(from.Fd()), &st))
	if err == nil {
		err = s.directory(ctx, int(from.Fd()), ".", &st)
	}
	err = errors.Join(err, s.crew.close(), s.pack.Truncate(s.size.Load())) // which may end in a hole
	s.free()
	runtime.KeepAlive(from)
	runtime.KeepAlive(s.pack)
	return s.res, copyError("copy changes", err)
}

// free gives back what large files took that are not so any more. Where the file
// system cannot do that it stays.
func (s *Stage) free() {
	for _, n := range s.known {
		if n.pass != s.pass && n.size > smallFile && !n.several && n.mode&unix.S_IFMT == unix.S_IFREG {
			_ = unix.Fallocate(int(s.pack.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, n.at, n.size)
		}
	}
	s.known = nil
}

// directory notes the open directory and all that is in it.
func (s *Stage) directory(ctx context.Context, fd int, path string, st *unix.Stat_t) error {
	n, same := s.note(path, st)
	if !same {
		var err error
		if n.xattrs, n.opaque, err = readXattrs(fd, s.buf); err != nil {
			return err
		}
	}
	names, err := readNames(fd)
	if err != nil {
		return wrap("read directory", path, err)
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		if strings.HasPrefix(name, whiteoutPrefix) {
			s.left++
			continue
		}
		if err := s.node(ctx, fd, name, join(path, name)); err != nil && !vanished(err) {
			return err
		}
	}
	return nil
}

// note adds an entry to the layer: what it was in the pass before if it is the
// same still, with what was copied then.
func (s *Stage) note(path string, st *unix.Stat_t) (n *staged, same bool) {
	was, ok := s.known[path]
	if ok && !was.racy && was.id == inodeOf(st) && was.ctime == st.Ctim && was.size == st.Size {
		was.pass = s.pass
		s.nodes = append(s.nodes, was)
		return was, true
	}
	n = &staged{
		path: path, pass: s.pass, id: inodeOf(st), ctime: st.Ctim, mtime: st.Mtim, size: st.Size, mode: st.Mode, uid: st.Uid, gid: st.Gid, several: st.Nlink > 1,
		racy: time.Unix(st.Ctim.Unix()).After(s.begun.Add(-coarse)),
	}
	s.nodes = append(s.nodes, n)
	return n, false
}

// node notes an entry of an open directory. The contents of most files are
// copied by the crew.
func (s *Stage) node(ctx context.Context, dir int, name, path string) error {
	if len(path)+len(whiteoutPrefix) >= unix.PathMax {
		return fmt.Errorf("path of %d bytes: %w", len(path), errdefs.ErrInvalid)
	}
	st, err := lstat(dir, name)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		fd, err := unix.Openat(dir, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return wrap("open", path, err)
		}
		defer unix.Close(fd)
		if err := unix.Fstat(fd, st); err != nil {
			return wrap("stat", path, err)
		}
		return s.directory(ctx, fd, path, st)
	case unix.S_IFREG:
		return s.file(ctx, dir, name, path, st)
	case unix.S_IFLNK:
		n, same := s.note(path, st)
		if same {
			return nil
		}
		length, err := readlink(dir, name, s.buf)
		n.link, n.gone = string(s.buf[:max(length, 0)]), err != nil
		return wrap("readlink", path, err)
	case unix.S_IFIFO:
		s.note(path, st)
		return nil
	case unix.S_IFCHR:
		if isWhiteout(st) {
			s.note(path, st)
			return nil
		}
	}
	s.left++ // a socket, or a device that nobody could have made
	return nil
}

// file notes a regular file.
func (s *Stage) file(ctx context.Context, dir int, name, path string, st *unix.Stat_t) error {
	n, same := s.note(path, st)
	if n.several {
		first, ok := s.links[n.id]
		if ok && first.ctime == n.ctime && first.size == n.size {
			n.at, n.xattrs, n.gone = first.at, first.xattrs, first.gone
			return nil
		}
		s.links[n.id] = n
	}
	if same {
		return nil
	}
	s.res.Files++
	s.res.Bytes += min(st.Size, st.Blocks*512)
	fd, err := openFile(dir, name)
	if err != nil {
		n.gone = true
		return wrap("open", path, err)
	}
	work := job{node: n, fd: fd, holes: st.Blocks*512 < st.Size && st.Size >= tiny}
	if n.several { // the other names have to know
		return s.crew.now(ctx, work)
	}
	return s.crew.do(ctx, work)
}
