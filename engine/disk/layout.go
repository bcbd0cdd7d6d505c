package disk

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// maxSymlinks is how many symbolic links a path may lead over, and maxSteps how
// many names: each is a directory to be read.
const (
	maxSymlinks = 40
	maxSteps    = 256
)

// layout is what of a root a file system has.
type layout struct {
	etc, usrDir, bin, init bool
	// lib and share at the top are what a file system for /usr has
	lib, share bool
}

func (l layout) root() bool { return l.etc && (l.usrDir || l.bin) && l.init }

// usr is a file system that belongs on /usr.
func (l layout) usr() bool { return l.bin && l.lib && l.share && !l.etc }

// withoutUsr is a root whose programs are elsewhere.
func (l layout) withoutUsr() bool { return l.etc && !l.init }

// inits are the programs that an instance is started with, in any order: the
// same that driver/local looks for.
func inits() []string {
	return []string{"sbin/init", "usr/lib/systemd/systemd", "lib/systemd/systemd", "usr/sbin/init", "init", "bin/sh"}
}

// layoutOf looks into a file system.
func layoutOf(fs filesystem.FileSystem) (layout, error) {
	var l layout
	for name, has := range map[string]*bool{"etc": &l.etc, "usr": &l.usrDir, "bin": &l.bin, "lib": &l.lib, "share": &l.share} {
		var err error
		if *has, err = exists(fs, name, unix.S_IFDIR); err != nil {
			return l, err
		}
	}
	for _, name := range inits() {
		if l.init || !l.etc {
			break
		}
		var err error
		if l.init, err = exists(fs, name, unix.S_IFREG); err != nil {
			return l, err
		}
	}
	return l, nil
}

// exists says whether a path leads to something of the type.
func exists(fs filesystem.FileSystem, path string, kind uint32) (bool, error) {
	a, err := lookup(fs, path)
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	return err == nil && a.Mode&unix.S_IFMT == kind, err
}

// lookup follows a path from the root, and symbolic links as they are for a
// process whose root it is. errdefs.ErrNotFound if it leads nowhere.
func lookup(fs filesystem.FileSystem, path string) (filesystem.Attr, error) {
	missing := fmt.Errorf("%s: %w", path, errdefs.ErrNotFound)
	trail := []filesystem.Node{fs.Root()}
	at, err := fs.Stat(fs.Root())
	if err != nil {
		return at, err
	}
	rest := strings.Split(path, "/")
	for links, steps := 0, 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			trail = trail[:max(1, len(trail)-1)]
			continue
		}
		if steps++; steps > maxSteps {
			return at, missing
		}
		here := trail[len(trail)-1]
		if at, err = fs.Stat(here); err != nil {
			return at, err
		}
		if at.Mode&unix.S_IFMT != unix.S_IFDIR {
			return at, missing
		}
		node, found, err := child(fs, here, name)
		if err != nil {
			return at, err
		}
		if !found {
			return at, missing
		}
		if at, err = fs.Stat(node); err != nil {
			return at, err
		}
		if at.Mode&unix.S_IFMT != unix.S_IFLNK {
			trail = append(trail, node)
			continue
		}
		target, err := fs.Readlink(node)
		if err != nil {
			return at, err
		}
		if links++; links > maxSymlinks {
			return at, missing
		}
		if strings.HasPrefix(target, "/") {
			trail = trail[:1]
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return fs.Stat(trail[len(trail)-1])
}

// errFound ends the reading of a directory.
var errFound = errors.New("found")

// child looks for a name in a directory.
func child(fs filesystem.FileSystem, dir filesystem.Node, name string) (node filesystem.Node, found bool, err error) {
	err = fs.ReadDir(dir, func(n string, c filesystem.Node) error {
		if n != name {
			return nil
		}
		node, found = c, true
		return errFound
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return node, found, err
}
