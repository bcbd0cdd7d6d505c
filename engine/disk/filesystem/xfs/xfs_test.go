package xfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestMain(m *testing.M) { os.Exit(snapshottest.InMountNamespace(m)) }

// unchecked takes each checksum as right.
func unchecked(r io.ReaderAt, size int64) (filesystem.FileSystem, error) {
	fs, err := open(r, size, false)
	if err != nil {
		return nil, err
	}
	return fs, nil
}

// maker makes file systems with options of mkfs.xfs. Without --unsupported it
// makes none below 300 MiB.
func maker(options ...string) filesystemtest.Maker {
	return filesystemtest.Maker{
		Type: "xfs", Mkfs: append([]string{"mkfs.xfs", "-q", "--unsupported"}, options...), SmallSize: 64 << 20, Open: Open, Unchecked: unchecked,
	}
}

// TestReader compares with the kernel for each shape that mkfs.xfs can give a
// file system that this kernel mounts.
func TestReader(t *testing.T) {
	for name, m := range map[string]filesystemtest.Maker{
		"default":        maker(),
		"small blocks":   maker("-b", "size=1024", "-n", "size=4096"),
		"large inodes":   maker("-i", "size=2048,nrext64=1", "-n", "size=65536"),
		"before bigtime": maker("-m", "bigtime=0,inobtcount=0,reflink=0,finobt=0,rmapbt=0", "-i", "sparse=0"),
		"large sectors":  maker("-s", "size=4096", "-m", "rmapbt=1", "-l", "su=32k"),
	} {
		t.Run(name, func(t *testing.T) { filesystemtest.Run(t, m) })
	}
}

// TestCrashes has logs of several shapes, small enough to go round.
func TestCrashes(t *testing.T) {
	for name, m := range map[string]filesystemtest.Maker{
		"default":      maker(),
		"small blocks": maker("-b", "size=1024", "-n", "size=8192", "-m", "rmapbt=1", "-i", "nrext64=1"),
		"striped log":  maker("-l", "su=64k", "-i", "size=1024", "-m", "bigtime=0,reflink=0"),
	} {
		m.Size, m.Options = 160<<20, "logbsize=256k"
		t.Run(name, func(t *testing.T) {
			filesystemtest.RunCrashes(t, m, 3, func(fs filesystem.FileSystem) bool { return fs.(*FS).dev.replayed != nil })
		})
	}
}

// TestTooManyAttributes: XFS stores more names than listxattr(2) can return.
func TestTooManyAttributes(t *testing.T) {
	m := maker()
	m.Size = m.SmallSize
	image := m.Image(t)
	m.Mounted(t, image, "", func(dir string) {
		for i := range 300 {
			if err := unix.Lsetxattr(dir, fmt.Sprintf("user.%0240d", i), []byte("x"), 0); err != nil {
				t.Fatal(err)
			}
		}
	})
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fs, err := Open(f, m.Size)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := fs.Xattrs(fs.Root()); !errors.Is(err, errdefs.ErrUnsupported) || got != nil {
		t.Errorf("%d attributes, %v", len(got), err)
	}
}
