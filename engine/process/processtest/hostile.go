package processtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// testHostileWorkingDirectory: CVE-2024-21626.
func testHostileWorkingDirectory(t *testing.T, r real) {
	var cwds []string
	for n := range 20 {
		cwds = append(cwds, fmt.Sprintf("/proc/self/fd/%d", n), fmt.Sprintf("/proc/1/fd/%d", n))
	}
	must(t, os.Symlink("/proc/self/fd/7", filepath.Join(r.fixture.Rootfs, "link")))
	for _, cwd := range append(cwds, "/proc/self/root", "/proc/1/cwd", "/link", "/../../..") {
		spec := r.Spec(t, "readlink", "/proc/self/cwd")
		spec.Cwd = cwd
		if _, err := r.Runner.Start(bounded(t), "cwd", spec); err != nil {
			continue
		}
		wait(t, r.Harness, "cwd")
		out, err := conlog.Tail(spec.ConsoleLog, 0, 0)
		if err != nil || strings.Contains(string(out), "unreachable") || strings.Contains(string(out), r.fixture.Rootfs) || cwd != "/../../.." {
			t.Errorf("%s: started in %q, %v", cwd, out, err)
		}
		Reap(t, r.Runner, "cwd")
	}
}

// canary makes a directory of the host that must not change.
func canary(t *testing.T) (dir string, check func()) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "canary")
	must(t, os.Mkdir(dir, 0o777))
	must(t, os.Chmod(dir, 0o777)) // open to all: only confinement protects it
	must(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("host"), 0o666))
	return dir, func() {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("canary holds %v, %v", entries, err)
		}
		if data, err := os.ReadFile(filepath.Join(dir, "secret")); string(data) != "host" {
			t.Errorf("canary's secret is %q, %v", data, err)
		}
		var st unix.Stat_t
		if err := unix.Stat("/dev/null", &st); err != nil || st.Uid != 0 || st.Rdev != unix.Mkdev(1, 3) || st.Mode != unix.S_IFCHR|0o666 {
			t.Errorf("/dev/null of the host: %+v, %v", st, err)
		}
	}
}

// testHostileRoot: mount points that the image made into something else
// (CVE-2019-19921, CVE-2026-41579 and their kin).
func testHostileRoot(t *testing.T, r real) {
	dir, check := canary(t)
	up := strings.Repeat("../", 20)
	for _, name := range []string{"proc", "sys", "dev"} {
		place := filepath.Join(r.fixture.Rootfs, name)
		for kind, build := range map[string]func() error{
			"link to host":     func() error { return os.Symlink(dir, place) },
			"link upwards":     func() error { return os.Symlink(up+strings.TrimPrefix(dir, "/"), place) },
			"link inside":      func() error { return os.Symlink("/tmp", place) },
			"link to other":    func() error { return os.Symlink("/etc", place) },
			"dangling link":    func() error { return os.Symlink("/nowhere", place) },
			"link to itself":   func() error { return os.Symlink(name, place) },
			"file":             func() error { return os.WriteFile(place, nil, 0o666) },
			"fifo":             func() error { return unix.Mkfifo(place, 0o666) },
			"magic link":       func() error { return os.Symlink("/proc/self/cwd", place) },
			"link to the root": func() error { return os.Symlink("/", place) },
		} {
			must(t, os.RemoveAll(place))
			must(t, build())
			_, err := r.Runner.Start(bounded(t), "hostile", r.Spec(t, "true"))
			if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(errdefs.PublicText(err, ""), "/"+name) {
				t.Errorf("/%s as %s: %v (%q)", name, kind, err, errdefs.PublicText(err, ""))
				Reap(t, r.Runner, "hostile")
			}
			check()
		}
		must(t, os.RemoveAll(place))
	}
	// What lies below a mount point is hidden, not used.
	must(t, os.MkdirAll(filepath.Join(r.fixture.Rootfs, "dev"), 0o755))
	must(t, os.Symlink(dir, filepath.Join(r.fixture.Rootfs, "dev/pts")))
	must(t, os.Symlink("/proc/sysrq-trigger", filepath.Join(r.fixture.Rootfs, "dev/null")))
	must(t, os.Symlink(filepath.Join(dir, "secret"), filepath.Join(r.fixture.Rootfs, "dev/console")))
	r.expect(t, "stat -c %t:%T /dev/null", "1:3\n")
	check()
}

func testHostileFileParent(t *testing.T, r real) {
	dir, check := canary(t)
	must(t, os.Symlink(dir, filepath.Join(r.fixture.Rootfs, "abs")))
	must(t, os.Symlink(strings.Repeat("../", 20)+strings.TrimPrefix(dir, "/"), filepath.Join(r.fixture.Rootfs, "up")))
	must(t, os.WriteFile(filepath.Join(r.fixture.Rootfs, "plain"), nil, 0o666))
	for _, p := range []string{"/abs/secret", "/up/secret", "/abs/new", "/plain/x", "/etc"} {
		spec := r.Spec(t, "true")
		spec.Files = []process.File{{Path: p, Data: []byte("owned"), Mode: 0o666}}
		_, err := r.Runner.Start(bounded(t), "file", spec)
		if !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", p, err)
			Reap(t, r.Runner, "file")
		}
		check()
	}
	// The same places exist inside the root: there it works.
	must(t, os.MkdirAll(filepath.Join(r.fixture.Rootfs, dir), 0o755))
	must(t, chownAll(r.fixture.Rootfs))
	r.expect(t, "cat "+dir+"/secret", "inside", func(s *process.Spec) {
		s.Files = []process.File{{Path: "/up/secret", Data: []byte("inside"), Mode: 0o644}}
	})
	check()
}

func chownAll(root string) error {
	return filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.Lchown(path, HostID, HostID)
	})
}

func testCommandErrors(t *testing.T, r real) {
	root := r.fixture.Rootfs
	must(t, os.Symlink("/bin/loop", filepath.Join(root, "bin/loop")))
	must(t, os.WriteFile(filepath.Join(root, "bin/nointerp"), []byte("#!/no/such\n"), 0o755))
	for _, tt := range []struct{ command, text string }{
		{"notallowed", "may not be executed"},
		{"/bin/notallowed", "may not be executed"},
		{"/etc", "may not be executed"},
		{"badformat", "no executable format"},
		{"loop", "not found"},
		{"nointerp", "not found"},
		{"/etc/passwd/x", "not found"},
		{strings.Repeat("x", 300), "cannot be executed"},
	} {
		_, err := r.Runner.Start(bounded(t), "command", r.Spec(t, tt.command))
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(errdefs.PublicText(err, ""), tt.text) {
			t.Errorf("%s: %v, public %q", tt.command, err, errdefs.PublicText(err, ""))
			Reap(t, r.Runner, "command")
		}
	}
	spec := r.Spec(t, "true")
	spec.Env = []string{"PATH=relative::/nowhere:/bin"}
	start(t, r.Harness, "path", spec)
	spec = r.Spec(t, "true", strings.Repeat("x", 1<<18))
	if _, err := r.Runner.Start(bounded(t), "long", spec); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("long argument: %v", err)
	}
}

// testOwnBinary: CVE-2019-5736. A script whose interpreter is /proc/self/exe
// runs whatever set the instance up.
func testOwnBinary(t *testing.T, r real) {
	self, err := os.Executable()
	must(t, err)
	before, err := os.Stat(self)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(r.fixture.Rootfs, "bin/trick"), []byte("#!/proc/self/exe\n"), 0o755))
	spec := r.Spec(t, "trick")
	if _, err := r.Runner.Start(bounded(t), "trick", spec); err == nil {
		Reap(t, r.Runner, "trick")
	}
	after, err := os.Stat(self)
	must(t, err)
	if before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
		t.Error("the host's binary has changed")
	}
}

func testPower(t *testing.T, r real) {
	boot := func(s *process.Spec) { s.Capabilities = append(s.Capabilities, "CAP_SYS_BOOT") }
	if _, e := r.sh(t, "poweroff -f; sleep 1000", boot); e.Signal != 2 {
		t.Errorf("power off: %+v, want SIGINT", e)
	}
	if _, e := r.sh(t, "reboot -f; sleep 1000", boot); e.Signal != 1 {
		t.Errorf("reboot: %+v, want SIGHUP", e)
	}
}

func testConsoleIsComplete(t *testing.T, r real) {
	var want strings.Builder
	for i := 1; i <= 20000; i++ {
		fmt.Fprintln(&want, i)
	}
	out, _ := r.sh(t, "seq 20000")
	if out != want.String() {
		t.Errorf("%d bytes of %d, ends with %q", len(out), want.Len(), out[max(0, len(out)-20):])
	}
	r.expect(t, `printf 'a\rb\r\nc\r'`, "a\rb\r\nc\r")
	// A second start appends.
	log := filepath.Join(t.TempDir(), "log")
	share := func(s *process.Spec) { s.ConsoleLog = log }
	r.sh(t, "echo one", share)
	r.expect(t, "echo two", "one\ntwo\n", share)
}

func testConsoleIsBounded(t *testing.T, r real) {
	out, _ := r.sh(t, "seq 200000", func(s *process.Spec) { s.ConsoleLimit = 64 << 10 })
	if len(out) > 64<<10 || !strings.HasSuffix(out, "\n199999\n200000\n") {
		t.Errorf("%d bytes, ends with %q", len(out), out[max(0, len(out)-20):])
	}
}

// testConsoleReopened: a guest may close its console and open it again.
func testConsoleReopened(t *testing.T, r real) {
	r.expect(t, "echo a; exec 0<&- 1>&- 2>&-; busybox usleep 100000; exec 1>/dev/console; echo b", "a\nb\n")
}
