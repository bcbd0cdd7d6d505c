package filesystem_test

import (
	"os"
	"testing"

	"github.com/gantry-project/gantry/engine/disk/filesystem/btrfs"
	"github.com/gantry-project/gantry/engine/disk/filesystem/ext"
	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
	"github.com/gantry-project/gantry/engine/disk/filesystem/xfs"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
)

func TestMain(m *testing.M) { os.Exit(snapshottest.InMountNamespace(m)) }

// TestUnpack: what real file systems hold survives the way to a directory.
func TestUnpack(t *testing.T) {
	for name, m := range map[string]filesystemtest.Maker{
		"ext4":  {Type: "ext4", Mkfs: []string{"mkfs.ext4", "-q", "-F"}, Open: ext.Open},
		"xfs":   {Type: "xfs", Mkfs: []string{"mkfs.xfs", "-q"}, Open: xfs.Open},
		"btrfs": {Type: "btrfs", Mkfs: []string{"mkfs.btrfs", "-q"}, Open: btrfs.Open, Options: "compress=zstd"},
	} {
		m.SmallSize = 512 << 20
		t.Run(name, func(t *testing.T) { filesystemtest.RunArchive(t, m) })
	}
}
