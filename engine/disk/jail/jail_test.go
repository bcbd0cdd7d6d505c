package jail_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/disk/disktest"
	diskjail "github.com/gantry-project/gantry/engine/disk/jail"
	"github.com/gantry-project/gantry/engine/jail"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// probeMark tells the child to probe its walls.
const probeMark = "probe the walls"

// TestMain is the child too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == jail.Verb {
		work := diskjail.Work()
		if strings.Contains(strings.Join(os.Args, " "), probeMark) {
			work.Do = func(context.Context, json.RawMessage, *os.File) (any, error) {
				return nil, errors.New("probe: " + probe())
			}
		}
		os.Exit(jail.Main(context.Background(), os.Args[2:], work))
	}
	os.Exit(m.Run())
}

func convert(ctx context.Context, r io.ReaderAt, size int64, opts disk.Options, w io.Writer) (disk.Report, error) {
	return diskjail.New(jail.New(jail.Options{MemoryBytes: memory})).Convert(ctx, r, size, opts, w)
}

// file opens an image.
func file(t testing.TB, name string) (*os.File, int64) {
	t.Helper()
	f, err := os.Open(name)
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

func root(t testing.TB) string {
	t.Helper()
	return disktest.Make(t, "ext4", disktest.Tree(t, disktest.Root()), 16*disktest.MiB)
}

// probe runs in the child and says what it could do.
func probe() string {
	var done []string
	try := func(what string, err error) {
		if err == nil {
			done = append(done, what)
		}
	}
	for _, path := range []string{"/", "/etc/passwd", "/proc/self/status", "/dev/null", "/proc/self/fd/0"} {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		_ = unix.Close(fd)
		try("open "+path, err)
		try("stat "+path, unix.Stat(path, &unix.Stat_t{}))
	}
	_, err := unix.Pwrite(0, []byte("x"), 0)
	try("write to the image", err)
	_, err = unix.Write(0, []byte("x"))
	try("write to the image", err)
	try("cut the image off", unix.Ftruncate(0, 0))
	try("own the image", unix.Fchown(0, 0, 0))
	_, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	try("socket", err)
	for name, nr := range map[string]uintptr{
		"mount": unix.SYS_MOUNT, "unshare": unix.SYS_UNSHARE, "setns": unix.SYS_SETNS, "chroot": unix.SYS_CHROOT, "execve": unix.SYS_EXECVE,
		"execveat": unix.SYS_EXECVEAT, "openat": unix.SYS_OPENAT, "openat2": unix.SYS_OPENAT2, "ptrace": unix.SYS_PTRACE, "kill": unix.SYS_KILL,
		"bpf": unix.SYS_BPF, "keyctl": unix.SYS_KEYCTL, "ioctl": unix.SYS_IOCTL, "prctl": unix.SYS_PRCTL, "io_uring_setup": unix.SYS_IO_URING_SETUP,
		"memfd_create": unix.SYS_MEMFD_CREATE, "mkdirat": unix.SYS_MKDIRAT, "unlinkat": unix.SYS_UNLINKAT, "fork": unix.SYS_CLONE, "clone3": unix.SYS_CLONE3,
		"open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "process_vm_readv": unix.SYS_PROCESS_VM_READV, "dup": unix.SYS_DUP, "recvmsg": unix.SYS_RECVMSG,
	} {
		if _, _, errno := unix.Syscall6(nr, 0, 0, 0, 0, 0, 0); errno != unix.EPERM && errno != unix.ENOSYS {
			done = append(done, name) // it got past the filter
		}
	}
	for fd := range 64 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && fd > 2 && fd != 4 && st.Mode&unix.S_IFMT != 0 { // 4: the result
			done = append(done, fmt.Sprintf("descriptor %d of type %o", fd, st.Mode&unix.S_IFMT))
		}
	}
	return strings.Join(done, ", ")
}

// TestWalls: nothing of what probe tries can be done.
func TestWalls(t *testing.T) {
	f, size := file(t, root(t))
	before, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	_, err = convert(t.Context(), f, size, disk.Options{Arch: probeMark}, io.Discard)
	if err == nil || err.Error() != "probe: " {
		t.Errorf("the child could: %v", err)
	}
	if after, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the image has changed, %v", err)
	}
}

func TestSameAsWithoutJail(t *testing.T) {
	for name, image := range map[string]string{"raw": root(t), "qcow2": disktest.QCOW2(t, root(t), "-c")} {
		f, size := file(t, image)
		var got, want bytes.Buffer
		rep, err := convert(t.Context(), f, size, disk.Options{Format: name}, &got)
		if err != nil {
			t.Fatal(err)
		}
		free, err := disk.Convert(t.Context(), f, size, disk.Options{Format: name}, &want)
		if err != nil {
			t.Fatal(err)
		}
		into, err := os.Create(filepath.Join(t.TempDir(), "tar"))
		if err != nil {
			t.Fatal(err)
		}
		itself, err := convert(t.Context(), f, size, disk.Options{Format: name}, into)
		if err = errors.Join(err, into.Close()); err != nil {
			t.Fatal(err)
		}
		written, err := os.ReadFile(into.Name())
		if err != nil || itself != free || !bytes.Equal(written, want.Bytes()) {
			t.Errorf("%s into a file: %+v with %d bytes, want %+v with %d, %v", name, itself, len(written), free, want.Len(), err)
		}
		if rep != free || rep.FileSystem != "ext4" || !bytes.Equal(got.Bytes(), want.Bytes()) || got.Len() == 0 {
			t.Errorf("%s: %+v with %d bytes, want %+v with %d", name, rep, got.Len(), free, want.Len())
		}
	}
}

func TestErrors(t *testing.T) {
	f, size := file(t, root(t))
	broken := errors.New("the pipe is full")
	for name, c := range map[string]struct {
		r      io.ReaderAt
		size   int64
		opts   disk.Options
		w      io.Writer
		class  error
		public bool
	}{
		"not what was declared": {f, size, disk.Options{Format: "qcow2"}, io.Discard, errdefs.ErrInvalid, true},
		"cut off":               {f, size / 2, disk.Options{}, io.Discard, errdefs.ErrCorrupt, true},
		"empty":                 {f, 0, disk.Options{}, io.Discard, errdefs.ErrInvalid, true},
		"nobody takes it":       {f, size, disk.Options{}, failing{broken}, broken, false},
		"no file":               {bytes.NewReader(make([]byte, 100)), 100, disk.Options{}, io.Discard, jail.ErrImpossible, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := convert(t.Context(), c.r, c.size, c.opts, c.w)
			if !errors.Is(err, c.class) || (errdefs.PublicText(err, "") != "") != c.public {
				t.Errorf("got %v, for tenants %q", err, errdefs.PublicText(err, ""))
			}
		})
	}
	_, err := diskjail.New(jail.New(jail.Options{Program: "/nonexistent"})).Convert(t.Context(), f, size, disk.Options{}, io.Discard)
	if !errors.Is(err, jail.ErrImpossible) || !errors.Is(err, errdefs.ErrUnsupported) {
		t.Error(err)
	}
}

type failing struct{ err error }

// Write implements io.Writer.
func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestCancelled(t *testing.T) {
	f, size := file(t, root(t))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := convert(ctx, f, size, disk.Options{}, cancelling{cancel})
	if !errors.Is(err, errdefs.ErrAborted) {
		t.Error(err)
	}
}

// cancelling ends the work at the first bytes and takes no more.
type cancelling struct{ cancel context.CancelFunc }

// Write implements io.Writer.
func (c cancelling) Write([]byte) (int, error) {
	c.cancel()
	return 0, context.Canceled
}
