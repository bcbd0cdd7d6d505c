package filesystem_test

import (
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
)

var errDisk = errors.New("the disk is broken")

// file is an inode of tree; the zero one is an empty regular file.
type file struct {
	attr    filesystem.Attr
	target  string
	xattrs  map[string]string
	data    string     // of the whole file
	parts   [][2]int64 // its segments; nil: all of it
	entries []entry
	err     error // what opening it fails with
}

type entry struct {
	name string
	node uint64
}

// tree is a file system in memory; its root is the inode 1.
type tree map[uint64]*file

func dir(entries ...entry) *file {
	return &file{attr: filesystem.Attr{Mode: unix.S_IFDIR | 0o755, Links: 2}, entries: entries}
}

func regular(data string) *file {
	return &file{attr: filesystem.Attr{Mode: unix.S_IFREG | 0o644, Links: 1, Size: int64(len(data)), Mtime: time.Unix(1_700_000_000, 0)}, data: data}
}

// sparse is a file of some size with data at some places.
func sparse(size int64, parts ...[2]int64) *file {
	f := regular("")
	f.attr.Size, f.parts = size, append([][2]int64{}, parts...)
	return f
}

func special(mode uint32) *file { return &file{attr: filesystem.Attr{Mode: mode, Links: 1}} }

func symlink(target string) *file {
	return &file{attr: filesystem.Attr{Mode: unix.S_IFLNK | 0o777, Links: 1}, target: target}
}

func (t tree) Info() filesystem.Info { return filesystem.Info{Type: "memory"} }
func (t tree) Root() filesystem.Node { return filesystem.Node{Inode: 1} }

func (t tree) Stat(n filesystem.Node) (filesystem.Attr, error) {
	f, ok := t[n.Inode]
	if !ok {
		return filesystem.Attr{}, errDisk
	}
	return f.attr, nil
}

func (t tree) ReadDir(n filesystem.Node, visit func(string, filesystem.Node) error) error {
	for _, e := range t[n.Inode].entries {
		if err := visit(e.name, filesystem.Node{Inode: e.node}); err != nil {
			return err
		}
	}
	return t[n.Inode].err
}

func (t tree) Readlink(n filesystem.Node) (string, error) { return t[n.Inode].target, t[n.Inode].err }

func (t tree) Xattrs(n filesystem.Node) (map[string]string, error) { return t[n.Inode].xattrs, nil }

func (t tree) Open(n filesystem.Node) (filesystem.File, error) { return t[n.Inode], t[n.Inode].err }

// ReadAt reads what is not in data as the letter x.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for ; n < len(p) && off < f.attr.Size; n, off = n+1, off+1 {
		if p[n] = 'x'; off < int64(len(f.data)) {
			p[n] = f.data[off]
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Segments(visit func(offset, length int64) error) error {
	parts := f.parts
	if parts == nil && f.attr.Size > 0 {
		parts = [][2]int64{{0, f.attr.Size}}
	}
	for _, p := range parts {
		if err := visit(p[0], p[1]); err != nil {
			return err
		}
	}
	return nil
}
