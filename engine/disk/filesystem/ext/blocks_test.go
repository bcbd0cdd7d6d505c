package ext

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/layer"
)

// TestLargeBlocks reads what mke2fs fills, with blocks that not every kernel
// can mount.
func TestLargeBlocks(t *testing.T) {
	from := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	large := bytes.Repeat([]byte("some content\n"), 100_000)
	must(os.Mkdir(filepath.Join(from, "many"), 0o750))
	must(os.WriteFile(filepath.Join(from, "large"), large, 0o600))
	must(os.Symlink(strings.Repeat("long/", 100), filepath.Join(from, "link")))
	for i := range 3000 {
		must(os.WriteFile(filepath.Join(from, "many", fmt.Sprint("a file with a name ", i)), []byte(fmt.Sprint(i)), 0o644))
	}
	for _, size := range []string{"4096", "16384", "32768", "65536"} {
		t.Run(size, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			shell(t, from, "mkfs.ext4 -q -F -b "+size+" -O inline_data -d . "+image+" 256m 2>&1")
			f, err := os.Open(image)
			must(err)
			defer f.Close()
			fs, err := Open(f, 256<<20)
			must(err)
			stream, to := new(bytes.Buffer), t.TempDir()
			_, err = filesystem.WriteTar(t.Context(), fs, stream, filesystem.TarOptions{})
			must(err)
			d, err := os.Open(to)
			must(err)
			defer d.Close()
			_, err = layer.Apply(t.Context(), d, stream, layer.Options{})
			must(err)
			shell(t, to, "rmdir lost+found && diff -r --no-dereference . "+from)
		})
	}
}
