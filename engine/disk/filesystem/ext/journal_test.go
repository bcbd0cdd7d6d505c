package ext

import (
	"testing"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
)

func TestCrashes(t *testing.T) {
	for name, m := range map[string]filesystemtest.Maker{
		"ext3":                   {Type: "ext3", Mkfs: mkfs("ext3", "-b", "1024", "-J", "size=4")},
		"ext4":                   {Type: "ext4", Mkfs: mkfs("ext4", "-J", "size=4")},
		"ext4, no checksums":     {Type: "ext4", Mkfs: mkfs("ext4", "-O", "^metadata_csum,64bit")},
		"ext4, 32 bit":           {Type: "ext4", Mkfs: mkfs("ext4", "-O", "^64bit", "-b", "2048")},
		"ext4, early commits":    {Type: "ext4", Mkfs: mkfs("ext4"), Options: "data=writeback,journal_async_commit"},
		"ext4, data and all":     {Type: "ext4", Mkfs: mkfs("ext4", "-J", "size=64"), Options: "data=journal"},
		"ext4, data, 1 KiB":      {Type: "ext4", Mkfs: mkfs("ext4", "-b", "1024", "-J", "size=16", "-O", "^metadata_csum"), Options: "data=journal"},
		"ext4, inline, bigalloc": {Type: "ext4", Mkfs: []string{"mkfs.ext4", "-q", "-F", "-O", "inline_data,bigalloc,ea_inode"}, Size: 1 << 30},
	} {
		if m.Open = Open; m.Size == 0 {
			m.Size = 256 << 20
		}
		if m.Type == "ext4" {
			m.Mkfs = append(m.Mkfs, "-E", "lazy_itable_init=0")
		}
		t.Run(name, func(t *testing.T) {
			filesystemtest.RunCrashes(t, m, 3, func(fs filesystem.FileSystem) bool {
				o, ok := fs.(*fileSystem).disk.r.(*overlay)
				if ok {
					t.Logf("%d blocks of the journal", len(o.at))
				}
				return ok && len(o.at) > 0
			})
		})
	}
}
