package jail_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/jail"
	"github.com/gantry-project/gantry/engine/layer"
	layerjail "github.com/gantry-project/gantry/engine/layer/jail"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// TestMain is the child too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == jail.Verb {
		work := layerjail.Work()
		if strings.Contains(strings.Join(os.Args, " "), probeMark) {
			work.Do = func(_ context.Context, _ json.RawMessage, dir *os.File) (any, error) {
				return nil, errors.New("probe: " + probe(dir))
			}
		}
		os.Exit(jail.Main(context.Background(), os.Args[2:], work))
	}
	os.Exit(m.Run())
}

// probeDepth is a limit that tells the child to probe its walls.
const probeDepth = 4242

var probeMark = fmt.Sprintf(`"Depth":%d`, probeDepth)

// probe runs in the child and says what it could do.
func probe(target *os.File) string {
	var done []string
	try := func(what string, err error) {
		if err == nil {
			done = append(done, what)
		}
	}
	open := func(path string) error {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		_ = unix.Close(fd)
		return err
	}
	call := func(nr uintptr, args ...uintptr) error {
		args = append(args, 0, 0, 0, 0, 0, 0)
		_, _, errno := unix.Syscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
		if errno == unix.EPERM || errno == unix.ENOSYS {
			return errno
		}
		return nil // it got past the filter
	}
	dir := int(target.Fd())
	for _, path := range []string{"/etc/passwd", "/proc/self/status", "/dev/null", "../../../etc/passwd", "/usr/bin/env", "/lib/os-release"} {
		try("open "+path, open(path))
	}
	_, err := unix.Openat(dir, "../etc/passwd", unix.O_RDONLY, 0)
	try("openat ..", err)
	try("block device", unix.Mknodat(dir, "b", unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))))
	try("character device", unix.Mknodat(dir, "c", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	try("trusted attribute", unix.Fsetxattr(dir, "trusted.overlay.opaque", []byte("y"), 0))
	try("owner beyond its ids", unix.Fchown(dir, 70000, 0))
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	try("socket", err)
	// the memory that the stream comes in
	_, err = unix.Pwrite(0, []byte("x"), 0)
	try("write memory", err)
	try("shorten memory", unix.Ftruncate(0, 0))
	_, err = unix.Mmap(0, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	try("map memory to write", err)
	for name, nr := range map[string]uintptr{
		"mount": unix.SYS_MOUNT, "unshare": unix.SYS_UNSHARE, "setns": unix.SYS_SETNS, "chroot": unix.SYS_CHROOT, "pivot_root": unix.SYS_PIVOT_ROOT,
		"execve": unix.SYS_EXECVE, "execveat": unix.SYS_EXECVEAT, "ptrace": unix.SYS_PTRACE, "kill": unix.SYS_KILL, "bpf": unix.SYS_BPF,
		"keyctl": unix.SYS_KEYCTL, "open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "ioctl": unix.SYS_IOCTL, "prctl": unix.SYS_PRCTL,
		"io_uring_setup": unix.SYS_IO_URING_SETUP, "fsopen": unix.SYS_FSOPEN, "process_vm_readv": unix.SYS_PROCESS_VM_READV,
		"clone3": unix.SYS_CLONE3, "memfd_create": unix.SYS_MEMFD_CREATE, "userfaultfd": unix.SYS_USERFAULTFD, "vmsplice": unix.SYS_VMSPLICE, "setuid": unix.SYS_SETUID,
		"fork": unix.SYS_CLONE,
	} {
		try(name, call(nr))
	}
	for fd := range 64 { // 0 to 2, the result, the target; the runtime's epoll and eventfd
		var st unix.Stat_t
		if fd == 4 || fd == 5 || fd < 3 || unix.Fstat(fd, &st) != nil {
			continue
		}
		if st.Mode&unix.S_IFMT != 0 {
			done = append(done, fmt.Sprintf("descriptor %d of type %o", fd, st.Mode&unix.S_IFMT))
		}
	}
	return strings.Join(done, ", ")
}

// TestWalls: nothing of what probe tries can be done. It fails without the
// filter, and without root and Landlock, which stand for one another.
func TestWalls(t *testing.T) {
	dir := target(t)
	_, err := newJail().Apply(t.Context(), dir, bytes.NewReader(nil), layer.Options{Limits: layer.Limits{Depth: probeDepth}})
	if err == nil || err.Error() != "probe: " {
		t.Errorf("the child could: %v", err)
	}
	if entries, err := os.ReadDir(dir.Name()); err != nil || len(entries) != 0 {
		t.Error(entries, err)
	}
}

func newJail() *layerjail.Unpacker { return layerjail.New(jail.New(jail.Options{MemoryBytes: memory})) }

func makeTar(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		data := h.Uname // the content travels here
		h.Uname = ""
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func target(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// sample has everything that a layer can bring.
func sample(t testing.TB) []byte {
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	return makeTar(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 7, Gid: 8},
		tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Uid: 0, Gid: 42},
		tar.Header{Name: "etc/f", Uname: "content", Uid: 1000, Gid: 1001, Mode: 0o640},
		tar.Header{Name: "su", Uname: "x", Mode: 0o4755, Uid: 65535},
		tar.Header{Name: "cap", Uname: "x", PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.x": "y"}},
		tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
		tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "etc/f"},
		tar.Header{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o622},
		tar.Header{Name: ".wh.gone"},
		tar.Header{Name: "l/.wh..wh..opq"},
		tar.Header{Name: "implied/x", Uname: "y"},
		tar.Header{Name: "was/.wh..wh..opq"},
		tar.Header{Name: "was", Typeflag: tar.TypeSymlink, Linkname: "etc"},
	)
}

// describe lists a tree with all that a layer is.
func describe(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d %d", strings.TrimPrefix(p, dir), st.Mode, st.Uid, st.Gid, st.Rdev, st.Nlink)
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			data, _ := os.ReadFile(p)
			fmt.Fprintf(&b, " %q", data)
		}
		for _, x := range []string{"user.x", "trusted.overlay.opaque", "user.gantry.opaque"} {
			var v [100]byte
			if n, err := unix.Lgetxattr(p, x, v[:]); err == nil {
				fmt.Fprintf(&b, " %s=%q", x, v[:n])
			}
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSameAsWithoutJail(t *testing.T) {
	data := sample(t)
	free, jailed := target(t), target(t)
	want, err := layer.Apply(t.Context(), free, bytes.NewReader(data), layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := newJail().Apply(t.Context(), jailed, bytes.NewReader(data), layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || got.DiffID != digest.FromBytes(data) {
		t.Errorf("result %+v\nwant %+v", got, want)
	}
	if a, b := describe(t, jailed.Name()), describe(t, free.Name()); a != b {
		t.Errorf("got\n%s\nwant\n%s", a, b)
	}
	var diffs [2]bytes.Buffer
	for i, f := range []*os.File{free, jailed} {
		if _, err := layer.Diff(t.Context(), f, &diffs[i]); err != nil {
			t.Fatal(err)
		}
	}
	// times of directories that have no entry of their own differ
	if a, b := capabilityOf(t, diffs[0].Bytes()), capabilityOf(t, diffs[1].Bytes()); a != b || a == "" {
		t.Errorf("file capabilities %q and %q", a, b)
	}
}

func capabilityOf(t *testing.T, data []byte) string {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "cap" {
			return h.PAXRecords["SCHILY.xattr.security.capability"]
		}
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("the digest differs")
	good := makeTar(t, tar.Header{Name: "a", Uname: strings.Repeat("x", 100_000)})
	for name, c := range map[string]struct {
		r      io.Reader
		opts   layer.Options
		class  error
		public bool
	}{
		"refused entry":       {bytes.NewReader(makeTar(t, tar.Header{Name: "../x"})), layer.Options{}, errdefs.ErrInvalid, true},
		"forged mark":         {bytes.NewReader(makeTar(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir, PAXRecords: map[string]string{"SCHILY.xattr.user.gantry.opaque": "y"}})), layer.Options{}, errdefs.ErrInvalid, true},
		"no tar":              {strings.NewReader(strings.Repeat("junk", 1000)), layer.Options{}, errdefs.ErrCorrupt, true},
		"cut off":             {bytes.NewReader(good[:50_000]), layer.Options{}, errdefs.ErrCorrupt, true},
		"too many bytes":      {bytes.NewReader(good), layer.Options{Limits: layer.Limits{Bytes: 1000}}, errdefs.ErrInvalid, true},
		"reader fails":        {io.MultiReader(bytes.NewReader(good[:50_000]), failing{broken}), layer.Options{}, broken, false},
		"reader fails behind": {io.MultiReader(bytes.NewReader(good), failing{broken}), layer.Options{}, broken, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newJail().Apply(t.Context(), target(t), c.r, c.opts)
			if !errors.Is(err, c.class) || (errdefs.PublicText(err, "") != "") != c.public {
				t.Errorf("got %v, for tenants %q", err, errdefs.PublicText(err, ""))
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(makeTar(t, tar.Header{Name: "a", Uname: strings.Repeat("x", 100_000)})[:50_000])
		cancel()
		_ = w.CloseWithError(context.Canceled)
	}()
	if _, err := newJail().Apply(ctx, target(t), r, layer.Options{}); !errors.Is(err, errdefs.ErrAborted) {
		t.Error(err)
	}
}

func TestMainRefusesOthers(t *testing.T) {
	for _, args := range [][]string{nil, {"x"}, {"{}"}, {`{"Work":"layer"}`}, {"locked", "x"}, {"locked", "{}"}, {"a", "b", "c"}} {
		if code := jail.Main(t.Context(), args, layerjail.Work()); code == 0 {
			t.Errorf("%v was accepted", args)
		}
	}
}

func TestNothingWithoutMappedMounts(t *testing.T) {
	dirs := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "on"} {
		if err := os.Mkdir(filepath.Join(dirs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	err = errors.Join(unix.FsconfigSetString(fs, "lowerdir", dirs+"/lower"), unix.FsconfigSetString(fs, "upperdir", dirs+"/upper"),
		unix.FsconfigSetString(fs, "workdir", dirs+"/work"), unix.FsconfigCreate(fs))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "overlay")
	defer f.Close()
	_, err = newJail().Apply(t.Context(), f, bytes.NewReader(sample(t)), layer.Options{})
	if !errors.Is(err, errdefs.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
}

func BenchmarkApply(b *testing.B) {
	var headers []tar.Header
	for i := range 2000 {
		headers = append(headers, tar.Header{Name: fmt.Sprintf("d%d/f%d", i%50, i), Uname: strings.Repeat("x", 4000)})
	}
	for name, data := range map[string][]byte{"one file": makeTar(b, headers[0]), "2000 files": makeTar(b, headers...)} {
		for how, apply := range map[string]func(context.Context, *os.File, io.Reader, layer.Options) (layer.Result, error){"free": layer.Apply, "jailed": newJail().Apply} {
			b.Run(name+" "+how, func(b *testing.B) {
				for b.Loop() {
					if _, err := apply(b.Context(), target(b), bytes.NewReader(data), layer.Options{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
