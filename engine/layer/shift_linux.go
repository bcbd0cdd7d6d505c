package layer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// idCount is how many ids a container has, and nobody the last but one: what
// has no id shows as it.
const (
	idCount = 65536
	nobody  = 65534
)

// unshifted is an id on a disk whose ids begin at base, as the container's own.
func unshifted(id, base uint32) uint32 {
	switch {
	case base == 0:
		return id
	case id >= base && id-base < idCount:
		return id - base
	}
	return nobody
}

// Shift re-owns the tree dir, which nobody uses meanwhile: ids that begin at
// from begin at to, in access lists and file capabilities too. It may be called
// again after it was interrupted: ids that are in to's range already stay. The
// ranges of 65,536 ids each must not overlap. Files with several names are
// re-owned once.
func Shift(ctx context.Context, dir *os.File, from, to uint32) error {
	if from == to {
		return nil
	}
	if from-to < idCount || to-from < idCount {
		return fmt.Errorf("shift ids from %d to %d: the ranges overlap: %w", from, to, errdefs.ErrInvalid)
	}
	s := shifter{from: from, to: to}
	err := s.tree(ctx, int(dir.Fd()), ".")
	runtime.KeepAlive(dir)
	return copyError(fmt.Sprintf("shift ids from %d to %d", from, to), err)
}

type shifter struct{ from, to uint32 }

func (s shifter) id(id uint32) uint32 {
	if id-s.to < idCount {
		return id // done before
	}
	return s.to + unshifted(id, s.from)%idCount
}

// tree re-owns what is in an open directory, then the directory.
func (s shifter) tree(ctx context.Context, dir int, path string) error {
	names, err := readNames(dir)
	if err != nil {
		return wrap("read directory", path, err)
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrAborted, err)
		}
		st, err := lstat(dir, name)
		if err != nil {
			return err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			fd, err := unix.Openat(dir, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err == nil {
				err = errors.Join(s.tree(ctx, fd, join(path, name)), unix.Close(fd))
			}
			if err != nil {
				return err
			}
		case unix.S_IFREG:
			fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err == nil {
				err = errors.Join(s.open(fd, st), unix.Close(fd))
			}
			if err != nil {
				return wrap("re-own", join(path, name), err)
			}
		default:
			err := unix.Fchownat(dir, name, int(s.id(st.Uid)), int(s.id(st.Gid)), unix.AT_SYMLINK_NOFOLLOW)
			if err != nil {
				return wrap("re-own", join(path, name), err)
			}
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return wrap("stat", path, err)
	}
	return wrap("re-own", path, s.open(dir, &st))
}

// open re-owns an open file or directory. A change of owner drops set-user-ID
// bits and capabilities, so those are put back after it.
func (s shifter) open(fd int, st *unix.Stat_t) error {
	saved := map[string][]byte{}
	for _, name := range []string{capabilityXattr, "system.posix_acl_access", "system.posix_acl_default"} {
		var buf [4096]byte
		n, err := unix.Fgetxattr(fd, name, buf[:])
		if err != nil {
			continue // none, or the file system knows none
		}
		if value, ok := shiftXattr(name, buf[:n], s.id); ok {
			if name == capabilityXattr {
				value = rootedCapability(value, s.to)
			}
			saved[name] = value
		}
	}
	if err := unix.Fchown(fd, int(s.id(st.Uid)), int(s.id(st.Gid))); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	for name, value := range saved {
		if err := unix.Fsetxattr(fd, name, value, 0); err != nil {
			return wrap("set attribute", name, err)
		}
	}
	return nil
}

// Layout of the attributes of access lists, linux/posix_acl_xattr.h: a version
// in 4 bytes, then entries of tag (2), permissions (2), id (4).
const (
	aclHeader = 4
	aclEntry  = 8
	aclUser   = 0x02
	aclGroup  = 0x08
)

// shiftXattr returns the value of an attribute with the ids in it changed; ok
// is false if the attribute is to be dropped.
func shiftXattr(name string, value []byte, id func(uint32) uint32) (shifted []byte, ok bool) {
	switch name {
	case capabilityXattr:
		return plainCapabilityOf(value, id)
	case "system.posix_acl_access", "system.posix_acl_default":
		out := append([]byte(nil), value...)
		for i := aclHeader; i+aclEntry <= len(out); i += aclEntry {
			if tag := binary.LittleEndian.Uint16(out[i:]); tag == aclUser || tag == aclGroup {
				old := binary.LittleEndian.Uint32(out[i+4:])
				binary.LittleEndian.PutUint32(out[i+4:], id(old))
			}
		}
		return out, true
	}
	return value, true
}

// plainCapabilityOf is plainCapability of a value whose root id is changed
// first.
func plainCapabilityOf(value []byte, id func(uint32) uint32) ([]byte, bool) {
	if len(value) == capSize3 {
		value = append([]byte(nil), value...)
		if id(binary.LittleEndian.Uint32(value[capSize2:])) == id(0) {
			binary.LittleEndian.PutUint32(value[capSize2:], 0)
		}
	}
	return plainCapability(value)
}

// rootedCapability is the form of plain capabilities that only the user
// namespace whose root is the host's id root obeys (revision 3).
func rootedCapability(plain []byte, root uint32) []byte {
	if root == 0 {
		return plain
	}
	out := append(append([]byte(nil), plain...), 0, 0, 0, 0)
	magic := binary.LittleEndian.Uint32(out)
	binary.LittleEndian.PutUint32(out, magic&^capRevisionMask|capRevision3)
	binary.LittleEndian.PutUint32(out[capSize2:], root)
	return out
}
