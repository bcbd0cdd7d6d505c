package shelf

import (
	"os"

	"golang.org/x/sys/unix"
)

// topDir is the attribute T of chattr(1), FS_TOPDIR_FL of linux/fs.h: ext4 puts
// each directory that is made below into another part of the disk.
const topDir = 0x00020000

// spread keeps the disks of a store apart on ext4, which else puts all of them,
// and what was removed of others, in one group of inodes. One without a journal
// looks there, for each new inode, at all that were freed in the last minutes
// (fs/ext4/ialloc.c, recently_deleted): more than half of the processor time of
// a create after a few hundred removals. Other file systems know no such
// attribute, and it is no error not to have it.
func spread(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if st.Type != unix.EXT4_SUPER_MAGIC {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&topDir == 0 {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|topDir)
	}
	_ = err // it goes without
	return f.Close()
}
