package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// The type bits of st_mode.
const (
	formatMask      = 0o170000
	formatDirectory = 0o040000
	formatRegular   = 0o100000
	formatLink      = 0o120000
	formatBlock     = 0o060000
	formatCharacter = 0o020000
)

const (
	maxLink = 4095
	// maxXattrs is the most that the extended attributes of an inode may take:
	// listxattr(2) cannot tell of more than 64 KiB of names anyway.
	maxXattrs = 4 << 20
	// stub marks the Volume of a directory that stands where a nested
	// subvolume was when a snapshot was made: Volume is the snapshot, and Inode
	// is the subvolume that is missing. Numbers of subvolumes have 48 bits.
	stub = 1 << 63
)

// inode is an inode item, or stands for one.
type inode struct {
	volume volume
	number uint64
	stub   bool
	attr   filesystem.Attr
}

// String names the inode in errors.
func (i inode) String() string {
	return fmt.Sprintf("inode %d of subvolume %d", i.number, i.volume.tree.id)
}

// inode reads the item of n.
func (v *volumes) inode(n filesystem.Node) (inode, error) {
	i := inode{number: n.Inode, stub: n.Volume&stub != 0}
	vol, err := v.volume(n.Volume &^ stub)
	if errors.Is(err, errdefs.ErrNotFound) {
		return i, corrupt("inode %d of the subvolume %d, which is missing", n.Inode, n.Volume)
	} else if err != nil {
		return i, err
	}
	i.volume = vol
	if i.stub {
		top, err := v.inode(filesystem.Node{Volume: vol.tree.id, Inode: vol.rootInode})
		i.attr = top.attr
		i.attr.Mode, i.attr.Links, i.attr.Size = formatDirectory|0o755, 1, 0
		return i, err
	}
	b, found, err := v.get(vol.tree, key{n.Inode, kindInode, 0})
	switch {
	case err != nil:
		return i, fmt.Errorf("%v: %w", i, err)
	case !found:
		return i, corrupt("%v: is missing", i)
	case len(b) < 160:
		return i, corrupt("%v: its item has %d bytes", i, len(b))
	}
	le := binary.LittleEndian
	size := le.Uint64(b[16:])
	if size > math.MaxInt64 {
		return i, corrupt("%v: has %d bytes", i, size)
	}
	i.attr = filesystem.Attr{
		Mode: le.Uint32(b[52:]), UID: le.Uint32(b[44:]), GID: le.Uint32(b[48:]), Links: le.Uint32(b[40:]),
		Size: int64(size), Atime: parseTime(b[112:]), Ctime: parseTime(b[124:]), Mtime: parseTime(b[136:]),
	}
	if f := i.attr.Mode & formatMask; f == formatBlock || f == formatCharacter {
		// The number is the kernel's own dev_t: 20 bits of minor.
		device := le.Uint64(b[56:])
		i.attr.Major, i.attr.Minor = uint32(device>>20)&0xfff, uint32(device)&0xfffff
	}
	return i, nil
}

func parseTime(b []byte) time.Time {
	return time.Unix(int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint32(b[8:])))
}

// typed reads the item of n, which has to be of the type format.
func (v *volumes) typed(n filesystem.Node, format uint32, what string) (inode, error) {
	i, err := v.inode(n)
	if err == nil && i.attr.Mode&formatMask != format {
		err = fmt.Errorf("btrfs: %v is not a %s: %w", i, what, errdefs.ErrInvalid)
	}
	return i, err
}

// Stat implements filesystem.FileSystem. The kernel makes up the attributes of
// a directory that stands for a nested subvolume of a snapshot; here it has
// the owner and the times of the top of the snapshot.
func (s *FileSystem) Stat(n filesystem.Node) (filesystem.Attr, error) {
	i, err := s.inode(n)
	return i.attr, err
}

// ReadDir implements filesystem.FileSystem, in the order that readdir(3) has.
func (s *FileSystem) ReadDir(n filesystem.Node, visit func(name string, child filesystem.Node) error) error {
	dir, err := s.typed(n, formatDirectory, "directory")
	if err != nil || dir.stub {
		return err
	}
	return s.each(dir.volume.tree, n.Inode, kindDirIndex, func(it item) error {
		e, rest, err := parseEntry(it.data)
		if err != nil || len(rest) > 0 {
			return corrupt("%v: entry %d cannot be read", dir, it.key.offset)
		}
		name := string(e.name)
		child, err := s.child(dir, name, e.location)
		if err != nil {
			return fmt.Errorf("%v: entry %d: %w", dir, it.key.offset, err)
		}
		return visit(name, child)
	})
}

// child returns the node that the entry name of dir leads to.
func (v *volumes) child(dir inode, name string, at key) (filesystem.Node, error) {
	switch {
	case at.kind == kindInode && at.object >= firstFree && at.object <= lastFree:
		return filesystem.Node{Volume: dir.volume.tree.id, Inode: at.object}, nil
	case at.kind == kindRoot && isVolume(at.object):
		shown, err := v.shownIn(dir.volume.tree.id, dir.number, name, at.object)
		if err != nil {
			return filesystem.Node{}, err
		}
		if !shown {
			return filesystem.Node{Volume: dir.volume.tree.id | stub, Inode: at.object}, nil
		}
		vol, err := v.volume(at.object)
		return filesystem.Node{Volume: at.object, Inode: vol.rootInode}, err
	}
	return filesystem.Node{}, corrupt("leads to %v", at)
}

// Readlink implements filesystem.FileSystem.
func (s *FileSystem) Readlink(n filesystem.Node) (string, error) {
	i, err := s.typed(n, formatLink, "symbolic link")
	if err != nil {
		return "", err
	}
	if i.attr.Size == 0 || i.attr.Size > maxLink {
		return "", corrupt("%v: a symbolic link of %d bytes", i, i.attr.Size)
	}
	target := make([]byte, i.attr.Size)
	if _, err := (&file{s.volumes, i}).ReadAt(target, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(target), nil
}

// Xattrs implements filesystem.FileSystem. POSIX access control lists are
// among them, in the form of getxattr(2).
func (s *FileSystem) Xattrs(n filesystem.Node) (map[string]string, error) {
	i, err := s.inode(n)
	if err != nil || i.stub {
		return nil, err
	}
	var all map[string]string
	bytes := 0
	err = s.each(i.volume.tree, n.Inode, kindXattr, func(it item) error {
		return eachEntry(it, func(e entry) error {
			if bytes += len(e.name) + len(e.value); bytes > maxXattrs {
				return unsupported("%v: more than %d bytes of extended attributes", i, maxXattrs)
			}
			if all == nil {
				all = map[string]string{}
			}
			all[string(e.name)] = string(e.value)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// entry is one of a directory, or an extended attribute.
type entry struct {
	location    key
	name, value []byte
}

var errShort = errors.New("is cut off")

// parseEntry reads the entry at the beginning of b.
func parseEntry(b []byte) (e entry, rest []byte, err error) {
	const head = 30
	le := binary.LittleEndian
	if len(b) < head {
		return e, nil, errShort
	}
	value, name := int(le.Uint16(b[25:])), int(le.Uint16(b[27:]))
	if len(b) < head+name+value {
		return e, nil, errShort
	}
	return entry{parseKey(b), b[head : head+name], b[head+name : head+name+value]}, b[head+name+value:], nil
}

// eachEntry calls visit for the entries of an item, of which there are several
// when their names have the same hash.
func eachEntry(it item, visit func(entry) error) error {
	for b := it.data; len(b) > 0; {
		e, rest, err := parseEntry(b)
		if err != nil {
			return corrupt("item %v: %v", it.key, err)
		}
		if err := visit(e); err != nil {
			return err
		}
		b = rest
	}
	return nil
}
