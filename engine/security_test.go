package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/engine/snapshot"
)

// These tests attack a whole engine from an image and from inside a container.
// docs/security.md lists the recipes and which test is for which.

// probe is engine/enginetest/probe, built statically.
var probe = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "gantry-probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "probe")
	build := exec.Command("go", "build", "-o", name, "./enginetest/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(name)
})

// entry is one of a tar; data is its content.
type entry struct {
	tar.Header
	data string
}

func dir(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

func file(name, data string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755}, data}
}

func link(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}, ""}
}

func hard(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}, ""}
}

func tarball(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.Typeflag == tar.TypeReg {
			e.Size = int64(len(e.data))
		}
		check(t, w.WriteHeader(&e.Header))
		_, err := w.Write([]byte(e.data))
		check(t, err)
	}
	check(t, w.Close())
	return b.Bytes()
}

// hostileBase is a root file system with busybox and probe, and with nothing
// where the engine mounts.
func hostileBase(t testing.TB, more ...entry) []byte {
	t.Helper()
	box, err := os.ReadFile("/bin/busybox")
	check(t, err)
	own, err := probe()
	check(t, err)
	all := []entry{dir("bin"), dir("etc"), dir("root"), dir("tmp"), file("bin/busybox", string(box)), file("bin/probe", string(own))}
	for _, name := range []string{"sh", "cat", "echo", "sleep", "ls", "id", "grep", "readlink", "stat", "true", "touch", "rm", "ln", "mkfifo", "head", "mkdir", "find", "chmod"} {
		all = append(all, link("bin/"+name, "busybox"))
	}
	all = append(all, file("etc/passwd", "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n"))
	return tarball(t, append(all, more...)...)
}

// hostile is an engine with an image "busybox" made of hostileBase. done deletes
// what is left.
func hostile(t *testing.T, more ...entry) (*enginetest.Host, *engine.Engine, func()) {
	t.Helper()
	return hostileOn(t, nil, more...)
}

// hostileOn is hostile with disks of the test's choice.
func hostileOn(t *testing.T, disks func(context.Context, string) (snapshot.Snapshotter, error), more ...entry) (*enginetest.Host, *engine.Engine, func()) {
	t.Helper()
	h := enginetest.NewHost(t)
	h.Snapshots = disks
	e, done := h.Engine(t)
	_, err := e.Import(t.Context(), engine.ImportRequest{Ref: "busybox", Content: bytes.NewReader(hostileBase(t, more...)), ContainerFormat: "bare", DiskFormat: "raw"})
	check(t, err)
	return h, e, func() {
		all, err := e.List(context.WithoutCancel(t.Context()))
		for _, s := range all {
			err = errors.Join(err, e.Delete(context.WithoutCancel(t.Context()), s.ID))
		}
		if err != nil {
			t.Error(err)
		}
		done()
	}
}

// hostCanary is a directory of the host that is open to all, so that only
// confinement protects it. It, the null and zero devices and the settings of
// the kernel that escapes go for must be the same at the end of the test.
func hostCanary(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	check(t, os.Chmod(filepath.Dir(dir), 0o711))
	dir = filepath.Join(dir, "canary")
	check(t, errors.Join(os.MkdirAll(filepath.Join(dir, "tree/below"), 0o777), os.WriteFile(filepath.Join(dir, "secret"), []byte(rand.Text()), 0o666),
		os.WriteFile(filepath.Join(dir, "tree/below/file"), []byte(rand.Text()), 0o666), os.Symlink("secret", filepath.Join(dir, "tree/link"))))
	check(t, errors.Join(os.Chmod(dir, 0o777), os.Chmod(filepath.Join(dir, "secret"), 0o666)))
	before := hostState(t, dir)
	t.Cleanup(func() {
		if after := hostState(t, dir); after != before {
			t.Errorf("the host has changed; before:\n%s\nafter:\n%s", before, after)
		}
	})
	return dir
}

// hostState describes what hostCanary looks after.
func hostState(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	check(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d %d", name, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim.Nano())
		if d.Type().IsRegular() {
			data, err := os.ReadFile(name)
			fmt.Fprintf(&b, " %x", sha256.Sum256(data))
			if err != nil {
				return err
			}
		}
		b.WriteByte('\n')
		return nil
	}))
	for _, name := range []string{"/dev/null", "/dev/zero"} {
		var st unix.Stat_t
		check(t, unix.Stat(name, &st))
		fmt.Fprintf(&b, "%s %o %d:%d %d\n", name, st.Mode, st.Uid, st.Gid, st.Rdev)
	}
	for _, name := range []string{"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/panic"} {
		data, err := os.ReadFile(name)
		check(t, err)
		fmt.Fprintf(&b, "%s %s", name, data)
	}
	return b.String()
}

// sumOf is a checksum of a file of the host.
func sumOf(t *testing.T, name string) [sha256.Size]byte {
	t.Helper()
	data, err := os.ReadFile(name)
	check(t, err)
	return sha256.Sum256(data)
}

// TestSecurityOwnBinary: RT-1, CVE-2019-5736. The shell of the image is a script
// for /proc/self/exe, and a process waits to write to whatever runs it.
func TestSecurityOwnBinary(t *testing.T) {
	hostCanary(t)
	self, err := os.Executable()
	check(t, err)
	before := sumOf(t, self)
	_, e, done := hostile(t, file("bin/trick", "#!/proc/self/exe\n"), file("bin/trick1", "#!/proc/1/exe\n"))
	defer done()
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	check(t, e.Start(t.Context(), "c", engine.StartRequest{Args: []string{"/bin/probe", "overwrite", "/tmp/stop"}, ConsoleBytes: 1 << 16}))
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "boot", Image: "busybox", Limits: limits}))
	for range 25 {
		for _, name := range []string{"/bin/trick", "/bin/trick1"} {
			if s, err := e.Exec(t.Context(), "c", engine.ExecRequest{Args: []string{name}}); err == nil {
				_, err = e.ExecWait(t.Context(), "c", s.ID)
				check(t, err)
			}
		}
		if err := e.Start(t.Context(), "boot", engine.StartRequest{Args: []string{"/bin/trick"}, ConsoleBytes: 1 << 16}); err == nil {
			check(t, e.Stop(t.Context(), "boot", engine.StopRequest{}))
		}
	}
	_, exit := execOutput(t, e, engine.ExecRequest{Args: []string{"/bin/busybox", "touch", "/tmp/stop"}})
	if exit.Code != 0 {
		t.Errorf("touch: %+v", exit)
	}
	if out := console(t, e, "c", "done\n"); strings.Contains(out, "wrote") || strings.Contains(out, self) {
		t.Errorf("the container got hold of\n%s", out)
	}
	if sumOf(t, self) != before {
		t.Error("the host's binary has changed")
	}
}

// TestSecurityTracer: RT-2 by ptrace(2), CVE-2016-9962. A process of the
// container with CAP_SYS_PTRACE seizes whatever appears while sessions are set
// up, and one that a gate holds at its last moment before the command.
func TestSecurityTracer(t *testing.T) {
	hostCanary(t)
	h, e, done := hostile(t)
	defer done()
	script(t, e, forever, limits)
	said, w, err := os.Pipe()
	check(t, err)
	defer said.Close()
	tracer := process.Spec{
		Join: "c", Args: []string{"/bin/probe", "spy", "/tmp/stop"}, Stdio: [3]*os.File{nil, w, w},
		Capabilities: []string{"CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"},
	}
	_, err = h.Runner.Start(t.Context(), "c.tracer", tracer)
	w.Close()
	check(t, err)
	path := filepath.Join(t.TempDir(), "gate")
	gate, err := process.OpenGate(path)
	check(t, err)
	held := process.Spec{Join: "c", Args: []string{"/bin/sleep", "1000"}, Gate: gate}
	held.Capabilities = tracer.Capabilities
	_, err = h.Runner.Start(t.Context(), "c.held", held)
	gate.Close()
	check(t, err)
	for range 100 {
		if _, exit := execOutput(t, e, engine.ExecRequest{Args: []string{"/bin/true"}}); exit.Code != 0 {
			t.Fatalf("exec: %+v", exit)
		}
	}
	// without a file of its own, which the tracer may see
	execOutput(t, e, engine.ExecRequest{Args: []string{"/bin/mkdir", "/tmp/stop"}})
	out := readAll(t, said)
	var seized, refused int
	if n, err := fmt.Sscanf(out, "seized %d refused %d\n", &seized, &refused); n != 2 || err != nil || refused == 0 {
		t.Errorf("the tracer saw\n%s", out)
	}
	check(t, process.ReleaseGate(t.Context(), path))
	check(t, e.Delete(t.Context(), "c"))
	for _, id := range []string{"c.tracer", "c.held"} {
		_, err := h.Runner.Wait(t.Context(), id)
		check(t, errors.Join(err, h.Runner.Forget(t.Context(), id)))
	}
}

// TestSecurityTracedSession: a container that traces its own session, and takes
// no note of its end, keeps nobody from seeing the ends of others, and itself
// neither from being stopped nor from being deleted.
func TestSecurityTracedSession(t *testing.T) {
	hostCanary(t)
	_, e, done := hostile(t)
	defer done()
	script(t, e, "/bin/probe hold /tmp/held /tmp/stop & "+forever, limits)
	s, err := e.Exec(t.Context(), "c", engine.ExecRequest{Args: []string{"/bin/sleep", "1000"}})
	check(t, err)
	if _, exit := execOutput(t, e, engine.ExecRequest{Args: sh("while [ ! -e /tmp/held ]; do :; done")}); exit.Code != 0 {
		t.Fatalf("%+v", exit)
	}
	check(t, e.ExecSignal(t.Context(), "c", s.ID, int(unix.SIGKILL)))
	for range 10 {
		if _, exit := execOutput(t, e, engine.ExecRequest{Args: sh("exit 7")}); exit.Code != 7 {
			t.Errorf("another session: %+v", exit)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	check(t, e.Stop(ctx, "c", engine.StopRequest{}))
	if exit, err := e.ExecWait(ctx, "c", s.ID); err != nil || exit.Signal != int(unix.SIGKILL) {
		t.Errorf("the traced session: %+v %v", exit, err)
	}
	check(t, e.Delete(ctx, "c"))
}

// TestSecurityWorkingDirectories: RT-2, CVE-2024-21626. The image names a
// descriptor of the set-up as its directory, at a start and at an exec.
func TestSecurityWorkingDirectories(t *testing.T) {
	hostCanary(t)
	_, e, done := hostile(t, link("fd7", "/proc/self/fd/7"), link("up", "/proc/1/root/../.."))
	defer done()
	cwds := []string{"/fd7", "/proc/self/cwd", "/proc/self/root"}
	for n := 3; n <= 64; n++ {
		cwds = append(cwds, fmt.Sprintf("/proc/self/fd/%d", n))
	}
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	start := func(cwd string) error {
		return e.Start(t.Context(), "c", engine.StartRequest{Args: sh("/bin/readlink /proc/self/cwd; " + forever), Cwd: cwd, ConsoleBytes: 1 << 16})
	}
	for _, cwd := range cwds {
		if err := start(cwd); err == nil {
			t.Errorf("started in %s", cwd)
			check(t, e.Stop(t.Context(), "c", engine.StopRequest{}))
		}
	}
	check(t, start("/up/../etc"))
	console(t, e, "c", "/etc\n")
	for n := 3; n <= 64; n++ {
		cwds = append(cwds, fmt.Sprintf("/proc/1/fd/%d", n))
	}
	for _, cwd := range cwds {
		if _, err := e.Exec(t.Context(), "c", engine.ExecRequest{Args: sh("true"), Cwd: cwd}); err == nil {
			t.Errorf("exec in %s", cwd)
		}
	}
}

// sorted splits words and sorts them.
func sorted(s string) []string {
	words := strings.Fields(s)
	slices.Sort(words)
	return words
}
