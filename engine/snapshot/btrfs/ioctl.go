package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests and structures of linux/btrfs.h and linux/btrfs_tree.h.
const (
	subvolCreate  = 0x50009418 // BTRFS_IOC_SUBVOL_CREATE_V2
	snapCreate    = 0x50009417 // BTRFS_IOC_SNAP_CREATE_V2
	snapDestroy   = 0x5000940f // BTRFS_IOC_SNAP_DESTROY
	subvolFlags   = 0x4008941a // BTRFS_IOC_SUBVOL_SETFLAGS
	inoLookup     = 0xd0009412 // BTRFS_IOC_INO_LOOKUP
	quotaControl  = 0xc0109428 // BTRFS_IOC_QUOTA_CTL
	qgroupAssign  = 0x40189429 // BTRFS_IOC_QGROUP_ASSIGN
	qgroupCreate  = 0x4010942a // BTRFS_IOC_QGROUP_CREATE
	qgroupLimit   = 0x8030942b // BTRFS_IOC_QGROUP_LIMIT
	treeSearch    = 0xd0009411 // BTRFS_IOC_TREE_SEARCH
	argsSize      = 4096
	nameOffset    = 56 // in struct btrfs_ioctl_vol_args_v2
	nameOffsetV1  = 8  // in struct btrfs_ioctl_vol_args
	longestName   = 255
	qgroupInherit = 1 << 2 // BTRFS_SUBVOL_QGROUP_INHERIT
	// first inode of a subvolume, BTRFS_FIRST_FREE_OBJECTID
	firstInode = 256

	quotaTree       = 8   // BTRFS_QUOTA_TREE_OBJECTID
	qgroupStatusKey = 240 // BTRFS_QGROUP_STATUS_KEY
	qgroupInfoKey   = 242 // BTRFS_QGROUP_INFO_KEY
	limitExclusive  = 1 << 1
	statusSimple    = 1 << 3 // BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE
	enableQuota     = 1
	enableSimple    = 4
)

func ioctl(fd int, request uintptr, arg unsafe.Pointer, what string) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return os.NewSyscallError("btrfs "+what, errno)
		}
	}
}

// at opens dir for a request.
func at(dir string, fn func(fd int) error) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return errors.Join(fn(fd), unix.Close(fd))
}

// volumeArgs is struct btrfs_ioctl_vol_args_v2.
type volumeArgs struct {
	fd, transid, flags uint64
	size               uint64
	inherit            unsafe.Pointer
	_                  [16]byte
	name               [argsSize - nameOffset]byte
}

// inheritArgs is struct btrfs_qgroup_inherit with one group.
type inheritArgs struct {
	flags, groups, refCopies, exclCopies uint64
	limit                                [5]uint64
	group                                uint64
}

// makeVolume makes the subvolume name in dir: empty, or a snapshot of the
// subvolume from. It becomes a member of the quota group, unless that is 0.
func makeVolume(dir, name, from string, group uint64) error {
	if len(name) > longestName {
		return &os.PathError{Op: "subvolume", Path: name, Err: unix.ENAMETOOLONG}
	}
	args := volumeArgs{}
	copy(args.name[:], name)
	inherit := inheritArgs{groups: 1, group: group}
	if group != 0 {
		args.flags |= qgroupInherit
		args.size, args.inherit = uint64(unsafe.Sizeof(inherit)), unsafe.Pointer(&inherit)
	}
	return at(dir, func(fd int) error {
		if from == "" {
			return ioctl(fd, subvolCreate, unsafe.Pointer(&args), "create subvolume")
		}
		return at(from, func(source int) error {
			args.fd = uint64(source)
			return ioctl(fd, snapCreate, unsafe.Pointer(&args), "create snapshot")
		})
	})
}

// destroyVolume removes the subvolume name in dir with all in it but other
// subvolumes.
func destroyVolume(dir, name string) error {
	var args [argsSize]byte
	copy(args[nameOffsetV1:len(args)-1], name)
	return at(dir, func(fd int) error { return ioctl(fd, snapDestroy, unsafe.Pointer(&args), "destroy subvolume") })
}

// setWritable allows changes of a subvolume (clears BTRFS_SUBVOL_RDONLY).
func setWritable(dir string) error {
	var flags uint64
	return at(dir, func(fd int) error { return ioctl(fd, subvolFlags, unsafe.Pointer(&flags), "set subvolume flags") })
}

// volumeID is the id of the subvolume that dir is in.
func volumeID(dir string) (id uint64, err error) {
	var args [argsSize]byte // struct btrfs_ioctl_ino_lookup_args: tree, object
	binary.NativeEndian.PutUint64(args[8:], firstInode)
	err = at(dir, func(fd int) error { return ioctl(fd, inoLookup, unsafe.Pointer(&args), "look up inode") })
	return binary.NativeEndian.Uint64(args[:]), err
}

// enable turns quotas on: simple ones, which count for whoever wrote first, or
// full ones where the kernel has no others. On already is nil.
func enable(root string) error {
	control := func(cmd uint64) error {
		args := [2]uint64{cmd}
		return at(root, func(fd int) error { return ioctl(fd, quotaControl, unsafe.Pointer(&args), "enable quotas") })
	}
	err := control(enableSimple)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		err = control(enableQuota)
	}
	return err
}

func makeGroup(root string, id uint64) error {
	args := [2]uint64{1, id}
	return at(root, func(fd int) error { return ioctl(fd, qgroupCreate, unsafe.Pointer(&args), "create quota group") })
}

func destroyGroup(root string, id uint64) error {
	args := [2]uint64{0, id}
	return at(root, func(fd int) error { return ioctl(fd, qgroupCreate, unsafe.Pointer(&args), "destroy quota group") })
}

// leaveGroup ends the membership of a subvolume's own group.
func leaveGroup(root string, volume, group uint64) error {
	args := [3]uint64{0, volume, group}
	return at(root, func(fd int) error { return ioctl(fd, qgroupAssign, unsafe.Pointer(&args), "leave quota group") })
}

// limitGroup limits what only the members of a group hold; 0 is no limit.
func limitGroup(root string, id uint64, bytes int64) error {
	args := [6]uint64{id, limitExclusive, 0, uint64(bytes)} // qgroup, then struct btrfs_qgroup_limit
	if bytes == 0 {
		args[3] = ^uint64(0) // clears it
	}
	return at(root, func(fd int) error { return ioctl(fd, qgroupLimit, unsafe.Pointer(&args), "limit quota group") })
}

// item of the quota tree.
type item struct {
	kind  uint32
	group uint64 // offset of the key
	data  []byte
}

// searchArgs is struct btrfs_ioctl_search_args.
type searchArgs struct {
	tree, minObject, maxObject, minOffset, maxOffset, minTransid, maxTransid uint64
	minType, maxType, items                                                  uint32
	_                                                                        [4 + 4*8]byte
	buf                                                                      [argsSize - 104]byte
}

const itemHeader = 32 // struct btrfs_ioctl_search_header

// quotaItems lists items of one kind whose group is from first to last, as of
// the last commit of the file system.
func quotaItems(root string, kind uint32, first, last uint64) ([]item, error) {
	var out []item
	for {
		args := searchArgs{
			tree: quotaTree, minOffset: first, maxOffset: last, maxTransid: ^uint64(0), minType: kind, maxType: kind, items: 100,
		}
		err := at(root, func(fd int) error { return ioctl(fd, treeSearch, unsafe.Pointer(&args), "search quota tree") })
		if errors.Is(err, unix.ENOENT) {
			return nil, nil // quotas are off
		}
		if err != nil {
			return nil, err
		}
		found, err := parseItems(args.buf[:], args.items)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return out, nil
		}
		for _, i := range found {
			if i.kind == kind && i.group >= first && i.group <= last {
				out = append(out, i)
			}
		}
		next := found[len(found)-1].group
		if next >= last {
			return out, nil
		}
		first = next + 1
	}
}

// parseItems reads count items, each behind a header: transid, object, offset
// (8 bytes each), type, length (4 bytes each).
func parseItems(buf []byte, count uint32) ([]item, error) {
	var out []item
	for range count {
		if len(buf) < itemHeader {
			return nil, fmt.Errorf("search result is cut off")
		}
		i := item{group: binary.NativeEndian.Uint64(buf[16:]), kind: binary.NativeEndian.Uint32(buf[24:])}
		size := int(binary.NativeEndian.Uint32(buf[28:]))
		buf = buf[itemHeader:]
		if size < 0 || size > len(buf) {
			return nil, fmt.Errorf("item of %d bytes in a search result", size)
		}
		i.data, buf = buf[:size], buf[size:]
		out = append(out, i)
	}
	return out, nil
}
