package filesystemtest

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/snapshot/snapshottest"
)

// image makes an empty file system in a file, in memory as many things are
// written through to it.
func (m Maker) image(t testing.TB) string {
	t.Helper()
	image := filepath.Join(snapshottest.Tmpfs(t), "image")
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(m.size()), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	command(t, slices.Concat(m.Mkfs, []string{image})...)
	return image
}

// mounted calls do with the place where the kernel shows the image. What it
// shows was read back from the image: nothing is cached from an earlier mount.
func (m Maker) mounted(t testing.TB, image, options string, do func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	all := slices.DeleteFunc([]string{"loop", "noatime", "nodev", m.Options, options}, func(s string) bool { return s == "" })
	command(t, "mount", "-t", m.Type, "-o", strings.Join(all, ","), image, dir)
	defer func() {
		if err := unmount(dir); err != nil {
			t.Errorf("umount %s: %v", dir, err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	}()
	do(dir)
}

// unmount waits for what the kernel still holds behind everybody's back.
func unmount(dir string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := syscall.Unmount(dir, 0)
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
		<-tick.C
	}
}

func command(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", args[0], err, out)
	}
}

// open opens an image until the end of the test.
func open(t testing.TB, image string) (io.ReaderAt, int64) {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, st.Size()
}
