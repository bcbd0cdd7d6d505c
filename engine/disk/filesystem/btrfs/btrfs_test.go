package btrfs

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
	s, err := open(device{r, size}, false)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// TestReader compares with the kernel for each shape that mkfs.btrfs can give
// a file system on one device, and each compression.
func TestReader(t *testing.T) {
	for name, maker := range map[string]filesystemtest.Maker{
		"default": {},
		"zlib":    {Mkfs: []string{"--csum", "xxhash"}, Options: "compress-force=zlib"},
		"lzo":     {Mkfs: []string{"--csum", "sha256", "-n", "65536"}, Options: "compress-force=lzo"},
		"zstd":    {Mkfs: []string{"--csum", "blake2", "-n", "32768"}, Options: "compress-force=zstd:15"},
		"old":     {Mkfs: []string{"-n", "4096", "-O", "^no-holes,^skinny-metadata,^extref", "-R", "^free-space-tree", "-m", "single"}, Options: "max_inline=0"},
		"mixed":   {Mkfs: []string{"--mixed", "-d", "dup", "-m", "dup"}, Options: "compress=zstd"},
	} {
		t.Run(name, func(t *testing.T) {
			maker.Type, maker.Mkfs = "btrfs", append([]string{"mkfs.btrfs", "-q"}, maker.Mkfs...)
			maker.SmallSize, maker.Open, maker.Unchecked, maker.Lossy = 256<<20, Open, unchecked, true
			filesystemtest.Run(t, maker)
		})
	}
}
