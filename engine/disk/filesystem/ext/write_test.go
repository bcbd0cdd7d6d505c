package ext

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
)

// rewrite is a filesystemtest.Rewriter.
func rewrite(t testing.TB, old io.ReaderAt, size int64, tree io.Reader, to *os.File) int64 {
	t.Helper()
	s, err := ShapeOf(old, size)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var again Shape
	if err := json.Unmarshal(doc, &again); err != nil {
		t.Fatal(err)
	}
	done, err := Write(t.Context(), again, tree, to)
	if err != nil {
		t.Fatal(err)
	}
	if done.Entries < 10 || done.Blocks < 10 {
		t.Errorf("written: %+v", done)
	}
	return again.Bytes()
}

// TestWrite: a file system that is written anew has the files of the old one,
// as the kernel shows them, and e2fsck has nothing to say.
func TestWrite(t *testing.T) {
	for name, options := range map[string]string{
		"default":          "",
		"1 KiB":            "-b 1024 -I 1024",
		"2 KiB, bare":      "-b 2048 -O ^64bit,^flex_bg,^metadata_csum,^dir_index,^huge_file,^extra_isize -I 128",
		"no checksums":     "-O ^metadata_csum,uninit_bg,64bit",
		"no checksums, 32": "-O ^metadata_csum,uninit_bg,^64bit",
		"no journal":       "-O ^has_journal",
		"no resize inode":  "-O ^resize_inode",
		"all of today":     "-O fast_commit,orphan_file,metadata_csum_seed,inline_data,large_dir",
		"without sparse":   "-O ^sparse_super,^resize_inode -b 1024",
		"flex of 64":       "-G 64 -b 1024",
		"odd size":         "-b 4096 -J size=8",
	} {
		m := filesystemtest.Maker{Type: "ext4", Mkfs: mkfs("ext4", strings.Fields(options)...), Open: Open, Size: 256 << 20}
		t.Run(name, func(t *testing.T) { filesystemtest.Rewrite(t, m, name == "default", rewrite) })
	}
}
