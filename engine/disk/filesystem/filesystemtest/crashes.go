package filesystemtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
)

// RunCrashes stops one file system several times in the midst of work, so that
// its journal goes round, and compares what the reader makes of the journal
// with what the kernel's recovery makes of it. replayed says whether the
// reader had anything to do. For file systems with the ioctl GOINGDOWN: ext4
// and XFS.
func RunCrashes(t *testing.T, m Maker, rounds int, replayed func(filesystem.FileSystem) bool) {
	image := m.image(t)
	w := &workload{t: t, random: rand.New(rand.NewPCG(1, 2))}
	for round := range rounds {
		m.mounted(t, image, "", func(dir string) {
			w.dir = dir
			w.work(600 + 300*round)
			w.stop(1 + round%2)
		})
		recovered := image + ".recovered"
		command(t, "cp", "--sparse=always", image, recovered)
		m.mounted(t, recovered, "", func(string) {})
		r, size := open(t, image)
		fs, err := m.Open(r, size)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if fs.Info().Dirty || !replayed(fs) {
			t.Errorf("round %d: %+v, replayed %v", round, fs.Info(), replayed(fs))
		}
		m.mounted(t, recovered, "ro", func(dir string) { Compare(t, fs, dir) })
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
	for step := range steps {
		if err := w.step(step); err != nil && !expected(err) {
			w.t.Fatal(err)
		}
		if w.random.IntN(300) == 0 {
			w.sync()
		}
	}
}

// step makes one change.
func (w *workload) step(step int) error {
	switch p := w.path(); w.random.IntN(12) {
	case 0, 1, 2:
		return w.write(p)
	case 3:
		return os.Remove(p)
	case 4:
		return os.Rename(p, w.path())
	case 5:
		return os.Link(p, w.path())
	case 6:
		return os.Symlink(fmt.Sprintf("%0*d", 1+w.random.IntN(1000), step), p)
	case 7:
		return unix.Lsetxattr(p, fmt.Sprint("trusted.", w.random.IntN(30)), make([]byte, w.random.IntN(3000)), 0)
	case 8:
		return os.Truncate(p, int64(w.random.IntN(1<<20)))
	case 9:
		return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(uint32(w.random.IntN(300)), uint32(step))))
	case 10:
		return os.RemoveAll(filepath.Join(w.dir, fmt.Sprint("d", w.random.IntN(8)), "sub"))
	default:
		sub := filepath.Join(filepath.Dir(p), "sub")
		_ = os.Mkdir(sub, 0o700)
		return unix.Mkfifo(filepath.Join(sub, fmt.Sprint(step)), 0o600)
	}
}

// write writes in places far from one another, which makes extents. Some of it
// looks like a block of a journal.
func (w *workload) write(p string) error {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for range w.random.IntN(30) {
		at := int64(w.random.IntN(1 << 22))
		if w.random.IntN(3) == 0 {
			at -= at % pageSize
		}
		if _, err := f.WriteAt([]byte("\xc0\x3b\x39\x98 is the magic number of jbd2"), at); err != nil {
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

// stop ends the file system as a loss of power does; how 1 writes the journal
// out before that, 2 does not.
func (w *workload) stop(how int) {
	const goingDown = 0x8004587d // XFS_IOC_GOINGDOWN, EXT4_IOC_SHUTDOWN
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
	for _, e := range []unix.Errno{
		unix.ENOENT, unix.EEXIST, unix.ENOTEMPTY, unix.EISDIR, unix.ENOTDIR, unix.ELOOP, unix.ENXIO, unix.EPERM, unix.ENOSPC,
		unix.EINVAL, unix.EMLINK, unix.ENAMETOOLONG, unix.EACCES,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
