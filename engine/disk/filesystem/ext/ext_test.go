package ext

import (
	"io"
	"os"
	"testing"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
)

func TestMain(m *testing.M) { os.Exit(snapshottest.InMountNamespace(m)) }

// unchecked is Open without checksums.
func unchecked(r io.ReaderAt, size int64) (filesystem.FileSystem, error) {
	return open(r, size, false)
}

// mkfs returns the command that makes a file system with room for the suite.
func mkfs(kind string, args ...string) []string {
	return append([]string{"mkfs." + kind, "-q", "-F", "-N", "60000"}, args...)
}

func TestContract(t *testing.T) {
	for name, m := range map[string]filesystemtest.Maker{
		"ext2":                      {Type: "ext2", Mkfs: mkfs("ext2"), Lossy: true},
		"ext2, 1 KiB":               {Type: "ext2", Mkfs: mkfs("ext2", "-b", "1024", "-I", "128"), Lossy: true},
		"ext2, revision 0":          {Type: "ext2", Mkfs: mkfs("ext2", "-r", "0", "-b", "1024"), Lossy: true},
		"ext3":                      {Type: "ext3", Mkfs: mkfs("ext3")},
		"ext4":                      {Type: "ext4", Mkfs: mkfs("ext4")},
		"ext4, 1 KiB":               {Type: "ext4", Mkfs: mkfs("ext4", "-b", "1024", "-I", "1024")},
		"ext4, 2 KiB, bare":         {Type: "ext4", Mkfs: mkfs("ext4", "-b", "2048", "-O", "^64bit,^flex_bg,^metadata_csum,^dir_index,^huge_file,^extra_isize", "-I", "128")},
		"ext4, inline data":         {Type: "ext4", Mkfs: mkfs("ext4", "-O", "inline_data", "-I", "512")},
		"ext4, bigalloc":            {Type: "ext4", Mkfs: mkfs("ext4", "-O", "bigalloc", "-C", "16384"), SmallSize: 1 << 30},
		"ext4, meta_bg":             {Type: "ext4", Mkfs: mkfs("ext4", "-O", "meta_bg,^resize_inode,^flex_bg", "-b", "1024")},
		"ext4, large attributes":    {Type: "ext4", Mkfs: mkfs("ext4", "-O", "ea_inode,large_dir,sparse_super2")},
		"ext4, no journal":          {Type: "ext4", Mkfs: mkfs("ext4", "-O", "^has_journal,^extent,^64bit"), Lossy: true},
		"ext4, fast commits":        {Type: "ext4", Mkfs: mkfs("ext4", "-O", "fast_commit,orphan_file,metadata_csum_seed"), Lossy: true},
		"ext4, data in the journal": {Type: "ext4", Mkfs: mkfs("ext4", "-O", "^metadata_csum"), Options: "data=journal"},
	} {
		m.Open, m.Unchecked = Open, unchecked
		if m.SmallSize == 0 {
			m.SmallSize = 128 << 20
		}
		t.Run(name, func(t *testing.T) { filesystemtest.Run(t, m) })
	}
}
