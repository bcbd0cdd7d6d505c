package xfs

import (
	"io"
	"os"
	"testing"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
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

// TestReader compares with the kernel for each shape that mkfs.xfs can give a
// file system that this kernel mounts.
func TestReader(t *testing.T) {
	for name, options := range map[string][]string{
		"default":        nil,
		"small blocks":   {"-b", "size=1024", "-n", "size=4096"},
		"large inodes":   {"-i", "size=2048,nrext64=1", "-n", "size=65536"},
		"before bigtime": {"-m", "bigtime=0,inobtcount=0,reflink=0,finobt=0,rmapbt=0", "-i", "sparse=0"},
		"large sectors":  {"-s", "size=4096", "-m", "rmapbt=1", "-l", "su=32k"},
	} {
		t.Run(name, func(t *testing.T) {
			filesystemtest.Run(t, filesystemtest.Maker{
				Type: "xfs", Mkfs: append([]string{"mkfs.xfs", "-q", "--unsupported"}, options...),
				SmallSize: 64 << 20, Open: Open, Unchecked: unchecked,
			})
		})
	}
}
