package ext

import (
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
)

var update = flag.Bool("update", false, "make the images of testdata again")

// packs are small images with a little of everything. They are kept as files
// so that fuzz targets have the same input everywhere.
var packs = map[string][]string{
	"extents": {"ext4", "-b", "1024", "-g", "1024", "-I", "256", "-O", "^has_journal,^resize_inode,ea_inode", "4m"},
	"inline":  {"ext4", "-b", "1024", "-I", "512", "-O", "^has_journal,^resize_inode,inline_data", "2m"},
	"map":     {"ext2", "-b", "1024", "-g", "1024", "2m"},
	"journal": {"ext4", "-b", "1024", "-I", "128", "-J", "size=1", "-O", "^resize_inode", "4m"},
}

// TestPack makes the images when -update is given, and checks that they can be
// read.
func TestPack(t *testing.T) {
	for name, mkfs := range packs {
		packed := filepath.Join("testdata", name+".gz")
		if *update {
			pack(t, name, mkfs, packed)
		}
		image, err := filesystemtest.ReadPacked(packed)
		if err != nil {
			t.Fatal(err)
		}
		fs, err := Open(image, image.Size())
		if err != nil {
			t.Fatal(name, err)
		}
		_, replayed := fs.(*fileSystem).disk.r.(*overlay)
		if fs.Info().Dirty || replayed != (name == "journal") {
			t.Errorf("%s: %+v, replayed %v", name, fs.Info(), replayed)
		}
		if res, err := filesystem.WriteTar(t.Context(), fs, io.Discard, filesystem.TarOptions{}); err != nil || res.Entries != 16 {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
}

// pack makes an image.
func pack(t *testing.T, name string, mkfs []string, packed string) {
	image := filepath.Join(t.TempDir(), name)
	size := mkfs[len(mkfs)-1]
	args := append([]string{"-q", "-F", "-E", "lazy_itable_init=0"}, mkfs[1:len(mkfs)-1]...)
	shell(t, t.TempDir(), "truncate -s "+size+" "+image+" && mkfs."+mkfs[0]+" "+strings.Join(args, " ")+" "+image)
	filesystemtest.Maker{Type: mkfs[0]}.Mounted(t, image, "", func(dir string) {
		shell(t, dir, `
			mkdir -p dir/sub; echo short > dir/file; ln dir/file dir/again; ln -s ../file dir/link; mkfifo pipe; mknod null c 1 3
			ln -s "$(printf 'long/%.0s' $(seq 60))" long; truncate -s 1M pieces; sync
			for i in $(seq 40); do printf x | dd of=pieces bs=1 seek=$((i * 15000)) conv=notrunc status=none; done
			setfattr -n user.a -v b dir/file; setfattr -n user.large -v "$(printf 'v%.0s' $(seq 600))" pieces
			[ `+name+` != extents ] || setfattr -n user.own -v "$(printf 'v%.0s' $(seq 3000))" dir/file
			for i in 1 2 3 4 5; do echo $i > "dir/sub/a file with a long name, number $i"; done; echo x > last`)
		if name == "journal" {
			d, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			const shutdown, flushLog = 0x8004587d, 1 // EXT4_IOC_SHUTDOWN
			if err := unix.IoctlSetPointerInt(int(d.Fd()), shutdown, flushLog); err != nil {
				t.Fatal(err)
			}
		}
	})
	filesystemtest.Pack(t, image, packed)
}

func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("/bin/bash", "-ec", script)
	cmd.Dir, cmd.Env = dir, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// FuzzReader changes images; checksums are not looked at.
func FuzzReader(f *testing.F) {
	filesystemtest.Fuzz(f, unchecked, "testdata/extents.gz", "testdata/inline.gz", "testdata/map.gz", "testdata/journal.gz")
}
