package filesystemtest

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
	"github.com/gantry-project/gantry/engine/layer"
	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
)

// RunArchive writes a file system as a tar stream, has it unpacked by
// layer.Apply and by GNU tar, and compares the directories with what the kernel
// shows of the image.
func RunArchive(t *testing.T, m Maker) {
	image := m.smallImage(t)
	r, size := open(t, image)
	fs, err := m.Open(r, size)
	if err != nil {
		t.Fatal(err)
	}
	stream := new(bytes.Buffer)
	res, err := filesystem.WriteTar(t.Context(), fs, stream, filesystem.TarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	again := new(bytes.Buffer)
	if _, err := filesystem.WriteTar(t.Context(), fs, again, filesystem.TarOptions{}); err != nil || !bytes.Equal(stream.Bytes(), again.Bytes()) {
		t.Errorf("another time another stream, %v", err)
	}
	if stream.Len() > 30<<20 {
		t.Errorf("%d bytes for %d bytes of data", stream.Len(), res.Data)
	}
	var want map[string]entry
	m.mounted(t, image, "ro", func(dir string) { want = kernelView(t, dir) })
	devices := int64(0)
	for _, e := range want {
		if kind := e.Mode & unix.S_IFMT; kind == unix.S_IFCHR || kind == unix.S_IFBLK {
			devices++
		}
	}
	if res.Devices != devices || res.Sockets != 1 || res.Bytes < 6<<30 {
		t.Errorf("%+v, %d devices", res, devices)
	}
	want = portable(want)
	for name, unpack := range map[string]func(dir *os.File, r io.Reader) error{
		"layer.Apply": func(dir *os.File, r io.Reader) error {
			got, err := layer.Apply(t.Context(), dir, r, layer.Options{Limits: layer.Limits{MaxID: 1 << 32}})
			if got.Entries != res.Entries || got.Bytes != res.Bytes || len(got.ImplicitDirs) != 0 {
				t.Errorf("unpacked %+v of %+v", got, res)
			}
			return err
		},
		"GNU tar": func(dir *os.File, r io.Reader) error {
			cmd := exec.Command("tar", "-x", "--sparse", "--numeric-owner", "-p", "--xattrs", "--xattrs-include=*", "-C", dir.Name())
			cmd.Stdin = r
			out, err := cmd.CombinedOutput()
			if err != nil {
				return errors.New(string(out))
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.Open(snapshottest.Tmpfs(t))
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			if err := unpack(dir, bytes.NewReader(stream.Bytes())); err != nil {
				t.Fatal(err)
			}
			got := portable(kernelView(t, dir.Name()))
			if d := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); d != "" {
				t.Fatal(d)
			}
			for name, w := range want {
				g := got[name]
				if g.stored() > 2*w.stored()+64<<10 { // tmpfs may take more at a time
					t.Errorf("%q: %d bytes on the disk, of %d", name, g.stored(), w.stored())
				}
				w.Segments, g.Segments = nil, nil // another file system has other blocks
				if d := cmp.Diff(w, g); d != "" {
					t.Errorf("%q: %s", name, d)
				}
			}
		})
	}
}

// stored is how much of a file is no hole.
func (e *entry) stored() (n int64) {
	for _, s := range e.Segments {
		n += s.End - s.Offset
	}
	return n
}

// portable leaves of a view what a tar stream can carry.
func portable(view map[string]entry) map[string]entry {
	out := map[string]entry{}
	for name, e := range view {
		kind := e.Mode & unix.S_IFMT
		if kind == unix.S_IFCHR || kind == unix.S_IFBLK || kind == unix.S_IFSOCK || strings.HasPrefix(path.Base(name), ".wh.") {
			continue
		}
		e.Atime, e.Ctime = "", ""
		if kind == unix.S_IFDIR {
			e.Size, e.Links = 0, 0
		}
		if path.Dir(name) == "times" && strings.Contains("t1 t2 t6 t7 t8", path.Base(name)) {
			e.Mtime = "" // before 1970, or later than every kernel can store
		}
		for key := range e.Xattrs {
			if !strings.HasPrefix(key, "user.") && !strings.HasPrefix(key, "security.") {
				delete(e.Xattrs, key)
			}
		}
		if len(e.Xattrs) == 0 {
			e.Xattrs = nil
		}
		if kind == unix.S_IFLNK {
			e.Links, e.Same = 0, "" // layer.Apply makes two of one with two names
		}
		out[name] = e
	}
	return out
}
