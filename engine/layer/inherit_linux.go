package layer

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Inherit gives directories that Apply had to make without an entry
// (Result.ImplicitDirs) the owner, mode, times and attributes of the same
// directory in the layers below, topmost first: in an overlay it is the upper
// directory that shows, and a layer that only adds /tmp/x must not close /tmp.
// Directories that no layer below has stay as they are.
func Inherit(dir *os.File, implicit []string, below []*os.File) error {
	defer runtime.KeepAlive(dir)
	defer runtime.KeepAlive(below)
	for _, path := range implicit {
		if err := inherit(int(dir.Fd()), path, below); err != nil {
			return fmt.Errorf("inherit directory %q: %w", path, err)
		}
	}
	return nil
}

func inherit(root int, path string, below []*os.File) error {
	const noLinks = resolve | unix.RESOLVE_NO_SYMLINKS
	for _, b := range below {
		from, err := openBelow(int(b.Fd()), path, unix.O_DIRECTORY, noLinks)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil // removed, or something else: the directory is new
		}
		if err != nil {
			return err
		}
		to, err := openBelow(root, path, unix.O_DIRECTORY, noLinks)
		if err == nil {
			err = errors.Join(copyAttributes(from, to), unix.Close(to))
		} else if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			err = nil // a later entry of the layer took its place
		}
		return errors.Join(err, unix.Close(from))
	}
	return nil
}

// copyAttributes makes the open directory to look like from.
func copyAttributes(from, to int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return wrap("stat", "", err)
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return wrap("change owner", "", err)
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return wrap("change mode", "", err)
	}
	names, err := listXattrs(from)
	if err != nil {
		return wrap("list attributes", "", err)
	}
	buf := make([]byte, 65536)
	for _, name := range names {
		if judgeXattr(name) != xattrKeep {
			continue
		}
		n, err := unix.Fgetxattr(from, name, buf)
		if err == nil {
			err = unix.Fsetxattr(to, name, buf[:n], 0)
		}
		if err != nil {
			return wrap("copy attribute", name, err)
		}
	}
	return setTime(to, time.Unix(st.Mtim.Unix()))
}
