package filesystemtest

import (
	"bytes"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
)

// Rewriter writes a file system to a file of zeros that takes the place of the
// one in old and has the files of a tar stream.
type Rewriter func(t testing.TB, old io.ReaderAt, size int64, tree io.Reader, to *os.File) (length int64)

// Rewrite makes a file system, fills it, has it written anew by write, and
// compares what the kernel shows of both. The new one has to pass fsck.
func Rewrite(t *testing.T, m Maker, large bool, write Rewriter) {
	if m.SmallSize > 0 {
		m.Size = m.SmallSize
	}
	old := m.image(t)
	var want map[string]entry
	m.mounted(t, old, "", func(dir string) { populate(t, dir, large) })
	m.mounted(t, old, "ro", func(dir string) { want = kernelView(t, dir) })
	r, size := open(t, old)
	fs, err := m.Open(r, size)
	if err != nil {
		t.Fatal(err)
	}
	stream, w := io.Pipe()
	go func() {
		_, err := filesystem.WriteTar(t.Context(), fs, w, filesystem.TarOptions{})
		_ = w.CloseWithError(err) // never fails
	}()
	image := filepath.Join(snapshottest.Tmpfs(t), "image")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	length := write(t, r, size, stream, f)
	if err := f.Truncate(max(length, size)); err != nil {
		t.Fatal(err)
	}
	checked(t, image)
	m.mounted(t, image, "", func(dir string) {
		compareTrees(t, want, kernelView(t, dir))
		if err := os.WriteFile(filepath.Join(dir, "new"), bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
			t.Errorf("write to the new file system: %v", err)
		}
	})
	checked(t, image)
}

// checked runs e2fsck, which changes nothing and has nothing to say.
func checked(t *testing.T, image string) {
	t.Helper()
	out, err := exec.Command("e2fsck", "-fn", image).CombinedOutput()
	if err != nil {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
}

// nothing is the digest of a file of zeros.
const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// compareTrees leaves out what a tar stream does not tell.
func compareTrees(t *testing.T, want, got map[string]entry) {
	t.Helper()
	all := maps.Clone(want)
	maps.Copy(all, got)
	bad := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		w, before := want[name]
		g, after := got[name]
		kind := w.Mode & unix.S_IFMT
		if name == "lost+found" || strings.HasPrefix(filepath.Base(name), ".wh.") || before && (kind == unix.S_IFCHR || kind == unix.S_IFBLK || kind == unix.S_IFSOCK) {
			continue
		}
		for _, e := range []*entry{&w, &g} {
			e.Atime, e.Ctime, e.Segments = "", "", nil
			maps.DeleteFunc(e.Xattrs, func(attr, _ string) bool { return strings.HasPrefix(attr, "trusted.") })
			if len(e.Xattrs) == 0 {
				e.Xattrs = nil
			}
			if e.Digest == nothing {
				e.Digest = "" // blocks of zeros are a hole, or not
			}
			if kind == unix.S_IFDIR {
				e.Size = 0
			}
		}
		if d := cmp.Diff(w, g); before != after || d != "" {
			t.Errorf("%q, there before %v, after %v (-before +after):\n%s", name, before, after, d)
			if bad++; bad == 20 {
				t.Fatal("and so on")
			}
		}
	}
}
