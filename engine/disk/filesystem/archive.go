package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Limits bound what WriteTar reads. A zero field means the default, which is
// that of layer.Limits.
type Limits struct {
	// Bytes of file content, holes included. Default 64 GiB.
	Bytes int64
	// Entries, those that are left out included. Default 500,000.
	Entries int64
	// Depth of a path in components. Default 256.
	Depth int
	// PathLen of an entry, in bytes. Default 4,095.
	PathLen int
}

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 64 << 30
	}
	if l.Entries == 0 {
		l.Entries = 500_000
	}
	if l.Depth == 0 {
		l.Depth = 256
	}
	if l.PathLen == 0 {
		l.PathLen = 4095
	}
	return l
}

// TarOptions of WriteTar.
type TarOptions struct {
	Limits Limits
}

// TarResult of WriteTar.
type TarResult struct {
	// Entries of the stream, its root included.
	Entries int64
	// Bytes of file content, holes included; Data without the holes.
	Bytes, Data int64
	// Devices and Sockets that were left out, by name.
	Devices, Sockets int64
	// Skipped counts what else was left out: names that would be whiteouts in
	// a layer, with what is below them, and extended attributes that
	// layer.Apply refuses or a tar stream cannot hold.
	Skipped int64
}

// mostNames bounds the bytes of names that are remembered at one time: those
// of directories that are being read, and of files with several.
const mostNames = 24 << 20

// copyLen is the length of a read of content.
const copyLen = 1 << 20

// WriteTar writes the tree of fs as a tar stream for layer.Apply: POSIX pax
// format, the root as "./", parents before children, entries of a directory in
// the order of their names, later names of a file as hard links, extended
// attributes as SCHILY.xattr records, times of modification with all that is
// known of them, and files with holes in GNU's sparse format 1.0. The same
// tree gives the same stream. Nothing of the tree is left out but what
// TarResult counts: lost+found, boot loader and kernel are files like others.
//
// errdefs.ErrInvalid: a limit is exceeded; the error names limit and entry.
// errdefs.ErrCorrupt: the tree cannot be one: a directory has two names, a
// name is empty, ".", "..", double, or holds a slash or NUL.
// errdefs.ErrAborted: ctx ended. Errors of fs and w are passed on. After an
// error the stream is of no use.
func WriteTar(ctx context.Context, fs FileSystem, w io.Writer, opts TarOptions) (TarResult, error) {
	a := &archiver{
		fs: fs, lim: opts.Limits.withDefaults(), out: newTarWriter(w), buf: make([]byte, copyLen),
		dirs: map[Node]bool{}, links: map[Node]*linked{},
	}
	if err := a.run(ctx); err != nil {
		return TarResult{}, err
	}
	return a.res, nil
}

// child is an entry of a directory.
type child struct {
	name string
	node Node
}

// childLen is about what a child costs beside its name.
const childLen = 48

// linked is a file of which not every name was seen.
type linked struct {
	path string
	left uint32
}

// archiver holds one run of WriteTar.
type archiver struct {
	fs  FileSystem
	lim Limits
	out tarWriter
	res TarResult
	buf []byte

	// listed counts the entries that were read, names the bytes remembered.
	listed int64
	names  int
	// dirs holds the directories seen.
	dirs  map[Node]bool
	links map[Node]*linked
}

// level is a directory that is being written.
type level struct {
	path string
	todo []child
	cost int
}

func (a *archiver) run(ctx context.Context) error {
	root := a.fs.Root()
	attr, err := a.fs.Stat(root)
	if err != nil {
		return nameError(".", err)
	}
	if attr.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nameError(".", corrupt("the root is not a directory"))
	}
	top, err := a.dir(".", root, &attr)
	if err != nil {
		return nameError(".", err)
	}
	stack := []*level{top}
	for len(stack) > 0 {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("write tar: %w: %w", errdefs.ErrAborted, err)
		}
		l := stack[len(stack)-1]
		if len(l.todo) == 0 {
			a.names -= l.cost
			stack = stack[:len(stack)-1]
			continue
		}
		next := l.todo[0]
		l.todo = l.todo[1:]
		path := join(l.path, next.name)
		down, err := a.entry(ctx, path, len(stack), next)
		if err != nil {
			return nameError(path, err)
		}
		if down != nil {
			stack = append(stack, down)
		}
	}
	return a.out.end()
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// entry writes one entry; of a directory it returns what is to be written next.
func (a *archiver) entry(ctx context.Context, path string, depth int, c child) (*level, error) {
	switch {
	case depth > a.lim.Depth:
		return nil, invalid("it is deeper than %d directories", a.lim.Depth)
	case len(path) > a.lim.PathLen:
		return nil, invalid("its path is longer than %d bytes", a.lim.PathLen)
	case strings.HasPrefix(c.name, ".wh."):
		a.res.Skipped++
		return nil, nil
	}
	attr, err := a.fs.Stat(c.node)
	if err != nil {
		return nil, err
	}
	kind := attr.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFDIR:
		return a.dir(path, c.node, &attr)
	case unix.S_IFCHR, unix.S_IFBLK:
		a.res.Devices++
		return nil, nil
	case unix.S_IFSOCK:
		a.res.Sockets++
		return nil, nil
	case unix.S_IFREG, unix.S_IFLNK, unix.S_IFIFO:
	default:
		return nil, corrupt("its mode is %o", attr.Mode)
	}
	if first := a.firstName(c.node); first != "" {
		return nil, a.out.header(&header{path: path, kind: typeLink, target: first, attr: &attr}, &a.res)
	}
	h := &header{path: path, attr: &attr}
	if h.xattrs, err = a.fs.Xattrs(c.node); err != nil {
		return nil, err
	}
	switch kind {
	case unix.S_IFREG:
		err = a.file(ctx, c.node, h)
	case unix.S_IFLNK:
		h.kind = typeSymlink
		if h.target, err = a.fs.Readlink(c.node); err == nil && (h.target == "" || strings.IndexByte(h.target, 0) >= 0) {
			err = corrupt("the symbolic link has no target, or one with a NUL byte")
		}
		if err == nil {
			err = a.out.header(h, &a.res)
		}
	case unix.S_IFIFO:
		h.kind = typeFifo
		err = a.out.header(h, &a.res)
	}
	if err == nil {
		err = a.remember(c.node, path, attr.Links)
	}
	return nil, err
}

// firstName returns an earlier name of a file, or "".
func (a *archiver) firstName(n Node) string {
	l, ok := a.links[n]
	if !ok {
		return ""
	}
	if l.left--; l.left == 0 {
		a.names -= len(l.path) + childLen
		delete(a.links, n)
	}
	return l.path
}

// remember keeps the first name of a file that has more. An inode that has
// more names than it says is several files.
func (a *archiver) remember(n Node, path string, names uint32) error {
	if names < 2 {
		return nil
	}
	a.links[n] = &linked{path: path, left: names - 1}
	return a.spend(len(path) + childLen)
}

// spend counts memory for names.
func (a *archiver) spend(n int) error {
	if a.names += n; a.names > mostNames {
		return invalid("the names of one directory, or of files with several names, take more than %d bytes", mostNames)
	}
	return nil
}

// dir writes the entry of a directory and lists it.
func (a *archiver) dir(path string, n Node, attr *Attr) (*level, error) {
	if a.dirs[n] {
		return nil, corrupt("the directory was there before, by another name")
	}
	a.dirs[n] = true
	h := &header{path: path + "/", kind: typeDir, attr: attr}
	var err error
	if h.xattrs, err = a.fs.Xattrs(n); err != nil {
		return nil, err
	}
	if err := a.out.header(h, &a.res); err != nil {
		return nil, err
	}
	l := &level{path: path}
	err = a.fs.ReadDir(n, func(name string, node Node) error {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return corrupt("it has an entry %q", name)
		}
		if a.listed++; a.listed > a.lim.Entries {
			return invalid("there are more than %d entries", a.lim.Entries)
		}
		l.todo = append(l.todo, child{name, node})
		l.cost += len(name) + childLen
		return a.spend(len(name) + childLen)
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(l.todo, func(a, b child) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(l.todo); i++ {
		if l.todo[i].name == l.todo[i-1].name {
			return nil, corrupt("it has two entries %q", l.todo[i].name)
		}
	}
	return l, nil
}

// nameError adds the entry's name.
func nameError(path string, err error) error {
	const most = 120
	if len(path) > most {
		path = path[:most] + "…"
	}
	return fmt.Errorf("write tar: entry %q: %w", path, err)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrCorrupt)...)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalid)...)
}

// file writes a regular file, its holes as such.
func (a *archiver) file(ctx context.Context, n Node, h *header) error {
	size := h.attr.Size
	if size > a.lim.Bytes-a.res.Bytes {
		return invalid("there are more than %d bytes in files", a.lim.Bytes)
	}
	f, err := a.fs.Open(n)
	if err != nil {
		return err
	}
	parts := collector{size: size}
	if err := f.Segments(parts.add); err != nil {
		return err
	}
	h.kind = typeFile
	h.parts = parts.list
	if parts.data() == size {
		h.parts = []segment{{0, size}}
	} else {
		h.sparse = true
	}
	if err := a.out.header(h, &a.res); err != nil {
		return err
	}
	a.res.Bytes += size
	for _, p := range h.parts {
		if err := a.copy(ctx, f, p); err != nil {
			return err
		}
	}
	return a.out.pad()
}

// copy writes a part of a file.
func (a *archiver) copy(ctx context.Context, f File, p segment) error {
	for at := p.offset; at < p.end; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		b := a.buf[:min(int64(len(a.buf)), p.end-at)]
		n, err := f.ReadAt(b, at)
		if n < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = corrupt("%d of %d bytes at %d", n, len(b), at)
			}
			return err
		}
		if err := a.out.write(b); err != nil {
			return err
		}
		at += int64(n)
		a.res.Data += int64(n)
	}
	return nil
}
