// Package transfer moves files between tar streams and the root file system of
// a container that may run, and be hostile, at the same time.
//
// Every path is opened below a descriptor of the root (openat2 with
// RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS) and acted on by descriptor: a
// component that the container swaps meanwhile leads to another place of the
// same container, never out of it. Nothing of the container is executed or
// parsed. Only regular files are opened for reading or writing; devices and
// sockets are left out, whiteouts and extended attributes are not known here.
//
// Owners in a stream are the container's own ids; IDs says where they lie on
// the mounted root. The package imports internal packages only and needs the
// privileges of the host's root.
package transfer

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// IDs says how the container's ids 0 to Size-1 show on its mounted root: they
// begin at Base. Files of other owners cannot be there.
type IDs struct {
	Base, Size uint32
}

// Limits bound one transfer. A zero field means the default.
type Limits struct {
	// Bytes of content. Default 64 GiB.
	Bytes int64
	// Entries of the stream. Default 1,000,000.
	Entries int64
	// Depth of the path of an entry, in components. Default 256.
	Depth int
}

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 64 << 30
	}
	if l.Entries == 0 {
		l.Entries = 1_000_000
	}
	if l.Depth == 0 {
		l.Depth = 256
	}
	return l
}

// Result counts what was moved, and what was left out: devices, sockets,
// files that vanished while they were being read.
type Result struct {
	Bytes, Entries, Skipped int64
}

const (
	maxPath = 4095
	maxName = 255
)

func invalid(format string, a ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, a...), errdefs.ErrInvalid)
}

// cleanPath returns an absolute path of the container as one relative to its
// root, "." for the root itself.
func cleanPath(name string) (string, error) {
	if name == "" || len(name) > maxPath || strings.ContainsRune(name, 0) {
		return "", invalid("path %.128q", name)
	}
	// as text only: what ".." means is decided by the kernel, inside the root
	rel := strings.TrimLeft(name, "/")
	if rel == "" {
		return ".", nil
	}
	return rel, nil
}

// cleanEntry checks the name of a stream's entry, which has to lie below where
// it is unpacked.
func cleanEntry(name string, lim Limits) (string, error) {
	if name == "" || len(name) > maxPath || strings.ContainsRune(name, 0) || strings.HasPrefix(name, "/") {
		return "", invalid("name")
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "..":
			return "", invalid("name leads upwards")
		case len(part) > maxName:
			return "", invalid("name too long")
		}
		if depth++; depth > lim.Depth {
			return "", invalid("more than %d directories", lim.Depth)
		}
	}
	return path.Clean(name), nil
}

// openBelow opens path below root and nowhere else.
func openBelow(root int, name string, flags int, more uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV | more,
	}
	for {
		fd, err := unix.Openat2(root, name, &how)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR, unix.EAGAIN: // EAGAIN: a rename somewhere made the kernel unsure
			continue
		}
		return -1, classify("open", name, err)
	}
}

// classify gives errors of the kernel their class.
func classify(op, name string, err error) error {
	if err == nil {
		return nil
	}
	full := &os.PathError{Op: op, Path: name, Err: err}
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: %w", full, errdefs.ErrNotFound)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%w: %w", full, errdefs.ErrInvalid)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", full, errdefs.ErrExhausted)
	}
	return full
}

func lstat(dir int, base string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, classify("stat", base, err)
	}
	return &st, nil
}
