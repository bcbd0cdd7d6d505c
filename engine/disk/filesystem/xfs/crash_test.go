package xfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
)

// TestCrash stops file systems in the midst of work, several times each so that
// the log goes round, and compares what the reader makes of the log with what
// the kernel's recovery makes of it.
func TestCrash(t *testing.T) {
	for name, options := range map[string][]string{
		"default":      nil,
		"small blocks": {"-b", "size=1024", "-n", "size=8192", "-m", "rmapbt=1", "-i", "nrext64=1"},
		"striped log":  {"-l", "su=64k", "-i", "size=1024", "-m", "bigtime=0,reflink=0"},
	} {
		t.Run(name, func(t *testing.T) { crashes(t, options, 4) })
	}
}

// crashes goes on with one file system for a number of crashes.
func crashes(t *testing.T, options []string, rounds int) {
	image := filepath.Join(t.TempDir(), "image")
	run(t, "truncate", "-s", "160m", image)
	run(t, append(append([]string{"mkfs.xfs", "-q", "--unsupported"}, options...), image)...)
	w := &workload{t: t, random: rand.New(rand.NewPCG(1, 2))}
	for round := range rounds {
		mounted(t, image, "logbsize=256k", func(dir string) {
			w.dir = dir
			w.work(600 + 300*round)
			w.stop(1 + round%2)
		})
		recovered := image + ".recovered"
		run(t, "cp", "--sparse=always", image, recovered)
		mounted(t, recovered, "", func(string) {})
		r, size := openImage(t, image)
		fs, err := Open(r, size)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if fs.Info().Dirty || fs.(*FS).dev.replayed == nil {
			t.Errorf("round %d: dirty %v, nothing replayed %v", round, fs.Info().Dirty, fs.(*FS).dev.replayed == nil)
		}
		mounted(t, recovered, "ro", func(dir string) { filesystemtest.Compare(t, fs, dir) })
		if t.Failed() {
			return
		}
	}
}

// workload changes a tree at random.
type workload struct {
	t      *testing.T
	dir    string
	random *rand.Rand
}

func (w *workload) path() string {
	return filepath.Join(w.dir, fmt.Sprint("d", w.random.IntN(8)), fmt.Sprint("entry with a name ", w.random.IntN(400)))
}

func (w *workload) work(steps int) {
	for i := range 8 {
		_ = os.Mkdir(filepath.Join(w.dir, fmt.Sprint("d", i)), 0o755)
	}
	value := make([]byte, 3000)
	for step := range steps {
		var err error
		switch p := w.path(); w.random.IntN(12) {
		case 0, 1, 2:
			err = w.write(p)
		case 3:
			err = os.Remove(p)
		case 4:
			err = os.Rename(p, w.path())
		case 5:
			err = os.Link(p, w.path())
		case 6:
			err = os.Symlink(fmt.Sprintf("%0*d", 1+w.random.IntN(1000), step), p)
		case 7:
			err = unix.Lsetxattr(p, fmt.Sprint("trusted.", w.random.IntN(30)), value[:w.random.IntN(len(value))], 0)
		case 8:
			err = os.Truncate(p, int64(w.random.IntN(1<<20)))
		case 9:
			err = unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(uint32(w.random.IntN(300)), uint32(step))))
		case 10:
			err = os.RemoveAll(filepath.Join(w.dir, fmt.Sprint("d", w.random.IntN(8)), "sub"))
		default:
			sub := filepath.Join(filepath.Dir(p), "sub")
			_ = os.Mkdir(sub, 0o700)
			err = unix.Mkfifo(filepath.Join(sub, fmt.Sprint(step)), 0o600)
		}
		if err != nil && !expected(err) {
			w.t.Fatal(err)
		}
		if w.random.IntN(300) == 0 {
			w.sync()
		}
	}
}

// write writes in places far from one another, which makes extents.
func (w *workload) write(p string) error {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for range w.random.IntN(30) {
		if _, err := f.WriteAt([]byte("some content"), int64(w.random.IntN(1<<22))); err != nil {
			return err
		}
	}
	if w.random.IntN(4) == 0 {
		return f.Sync()
	}
	return nil
}

func (w *workload) sync() {
	d, err := os.Open(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		w.t.Fatal(err)
	}
}

// stop ends the file system as a loss of power does; how 1 writes the log out
// before that, 2 does not.
func (w *workload) stop(how int) {
	const goingDown = 0x8004587d // XFS_IOC_GOINGDOWN
	d, err := os.Open(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	defer d.Close()
	if err := unix.IoctlSetPointerInt(int(d.Fd()), goingDown, how); err != nil {
		w.t.Fatal(err)
	}
}

func expected(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.ENOENT, syscall.EEXIST, syscall.ENOTEMPTY, syscall.EISDIR, syscall.ENOTDIR, syscall.ELOOP, syscall.ENXIO, syscall.EPERM, syscall.ENOSPC,
		syscall.EINVAL, syscall.EMLINK, syscall.ENAMETOOLONG, syscall.EACCES,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func mounted(t *testing.T, image, options string, do func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	if options != "" {
		options = "," + options
	}
	run(t, "mount", "-t", "xfs", "-o", "loop,noatime,nodev"+options, image, dir)
	defer run(t, "umount", dir)
	do(dir)
}

func run(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

func openImage(t *testing.T, image string) (*os.File, int64) {
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
