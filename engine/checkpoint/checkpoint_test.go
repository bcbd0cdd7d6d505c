package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/checkpoint/checkpointtest"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func TestMain(m *testing.M) {
	checkpointtest.Main()
	// as the keeper's guard does
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestProbe(t *testing.T) {
	install := func(version, check string) string {
		return checkpointtest.Install(t, checkpointtest.Criu{Version: version, Check: check})
	}
	for name, tt := range map[string]struct {
		path, want string
	}{
		"absent":        {"/nowhere/criu", "not installed"},
		"Debian's":      {install("3.17.1", ""), "3.17.1 is too old"},
		"just too old":  {install("4.1", ""), "too old"},
		"no version":    {install("many", ""), "no version"},
		"kernel is old": {install("4.2", "echo no pidfd >&2; exit 1"), "no pidfd"},
	} {
		if _, err := Probe(t.Context(), tt.path); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, version := range []string{"4.2", "4.2.1", "4.10", "5.0"} {
		tool, err := Probe(t.Context(), install(version, ""))
		if err != nil || tool.Version != version {
			t.Errorf("%s: %+v, %v", version, tool, err)
		}
	}
}

// victim is a process whose mount namespace shows of the host what the directory
// of its root shows.
func victim(t *testing.T, root string) int {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "busybox"), program, 0o755)
	}
	if err != nil {
		t.Fatalf("%v (package busybox-static)", err)
	}
	cmd := exec.Command("/busybox", "sleep", "1000")
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: root}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

func bind(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(to, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func requestOf(t *testing.T, path string) (req checkpointtest.Request) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &req)
	}
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestDump(t *testing.T) {
	root, asked := t.TempDir(), filepath.Join(t.TempDir(), "request")
	bind(t, "/dev/null", root+"/dev/null")
	bind(t, "/dev/null", root+"/proc/keys")
	tool := &Tool{Path: checkpointtest.Install(t, checkpointtest.Criu{Request: asked}), Version: "4.2"}
	dir := filepath.Join(t.TempDir(), "checkpoint")
	req := DumpRequest{Pid: victim(t, root), Dir: dir, LeaveRunning: true, Caller: json.RawMessage(`{"id":"c"}`)}
	if err := tool.Dump(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	got := requestOf(t, asked)
	if want := []string{"mnt[/dev/null]:/dev/null", "mnt[/proc/keys]:/proc/keys"}; !slices.Equal(got.Texts[optExternal], want) {
		t.Errorf("mounts %q, want %q", got.Texts[optExternal], want)
	}
	for opt, want := range map[int]uint64{optPid: uint64(req.Pid), optLeaveRunning: 1, optEmptyNS: unix.CLONE_NEWNET, optOrphanPTY: 1, optCgroups: cgroupsIgnore} {
		if got.Numbers[opt] != want {
			t.Errorf("option %d is %d, want %d", opt, got.Numbers[opt], want)
		}
	}
	m, err := Read(dir)
	if err != nil || string(m.Caller) != "{\n\t\t\"id\": \"c\"\n\t}" || len(m.Mounts) != 2 || m.Mounts[1].Path != "/proc/keys" || m.Mounts[1].Device != "null" {
		t.Errorf("manifest %+v, %v", m, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of a checkpoint: %v, %v", info, err)
	}
	if err := tool.Dump(t.Context(), req); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("over another: %v", err)
	}
}

// A failed dump leaves nothing, and says why.
func TestDumpFails(t *testing.T) {
	dir, good := filepath.Join(t.TempDir(), "checkpoint"), victim(t, t.TempDir())
	root := t.TempDir()
	bind(t, "/etc/passwd", root+"/etc/passwd")
	for name, tt := range map[string]struct {
		criu checkpointtest.Criu
		req  DumpRequest
		is   error
		want string
	}{
		"criu refuses": {criu: checkpointtest.Criu{Says: "socket is connected", Fails: true}, want: `criu failed: "socket is connected"`},
		"criu dies":    {criu: checkpointtest.Criu{Dies: true}, want: "without an answer"},
		"init":         {req: DumpRequest{Pid: 1, Dir: dir}, is: errdefs.ErrInvalid},
		"relative":     {req: DumpRequest{Pid: good, Dir: "x"}, is: errdefs.ErrInvalid},
		"nobody":       {req: DumpRequest{Pid: 1<<22 + 1, Dir: dir}, is: errdefs.ErrNotFound},
		"host's file":  {req: DumpRequest{Pid: victim(t, root), Dir: dir}, is: errdefs.ErrUnsupported, want: "mount /etc/passwd"},
		"bad document": {req: DumpRequest{Pid: good, Dir: dir, Caller: json.RawMessage("{")}, is: errdefs.ErrInvalid},
	} {
		tool := &Tool{Path: checkpointtest.Install(t, tt.criu), Version: "4.2"}
		if tt.req.Pid == 0 {
			tt.req = DumpRequest{Pid: good, Dir: dir}
		}
		err := tool.Dump(t.Context(), tt.req)
		if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: something is left: %v", name, err)
		}
	}
}

// checkpointIn writes a checkpoint without any mount.
func checkpointIn(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "checkpoint")
	tool := &Tool{Path: checkpointtest.Install(t, checkpointtest.Criu{}), Version: "4.2"}
	if err := tool.Dump(t.Context(), DumpRequest{Pid: victim(t, t.TempDir()), Dir: dir}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRestore(t *testing.T) {
	dir, asked := checkpointIn(t), filepath.Join(t.TempDir(), "request")
	program := checkpointtest.Install(t, checkpointtest.Criu{Request: asked, Command: []string{"/bin/sh", "-c", "echo here; exit 3"}})
	made, err := Restore(t.Context(), &process.Spec{Rootfs: t.TempDir(), Restore: &process.Restore{Program: program, Images: dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = made.Pidfd.Close() }()
	out, _ := io.ReadAll(made.Console) // EIO is its end
	if string(out) != "here\r\n" {
		t.Errorf("console %q", out)
	}
	if err := made.Console.Close(); err != nil {
		t.Error(err)
	}
	var status unix.WaitStatus
	if pid, err := unix.Wait4(made.Pid, &status, 0, nil); pid != made.Pid || status.ExitStatus() != 3 {
		t.Errorf("process %d: %v, %v", made.Pid, status, err)
	}
	if got := requestOf(t, asked); got.Type != typeRestore || got.Texts[optRoot][0] != stageRoot {
		t.Errorf("request %+v", got)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), " "+stageRoot+" ") {
		t.Errorf("the stage is left: %v", err)
	}
}

// A failed restore leaves no process and the checkpoint.
func TestRestoreFails(t *testing.T) {
	good := checkpointIn(t)
	broken := func(data string) string {
		dir := t.TempDir()
		err := os.WriteFile(filepath.Join(dir, manifestName), []byte(data), 0o600)
		if err := errors.Join(err, os.Mkdir(filepath.Join(dir, imagesName), 0o711)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	run := []string{"/bin/sh", "-c", "sleep 1000"}
	for name, tt := range map[string]struct {
		criu      checkpointtest.Criu
		dir, root string
		is        error
		want      string
	}{
		"criu refuses":       {criu: checkpointtest.Criu{Says: "file has bad size", Fails: true}, want: `"file has bad size"`},
		"criu dies":          {criu: checkpointtest.Criu{Dies: true}, want: "without an answer"},
		"no checkpoint":      {dir: t.TempDir(), is: errdefs.ErrNotFound},
		"no JSON":            {dir: broken("{"), is: errdefs.ErrCorrupt},
		"no root":            {root: "/nowhere", want: "/nowhere"},
		"a host's file":      {dir: broken(manifest(`{"path":"/etc/x","options":"ro","cgroup":"/etc"}`)), is: errdefs.ErrCorrupt, want: "no control group"},
		"a path as an entry": {dir: broken(manifest(`{"path":"/sys/x","options":"ro","entries":{"../x":""}}`)), is: errdefs.ErrCorrupt},
		"a link outwards":    {dir: broken(manifest(`{"path":"/sys/x","options":"ro","entries":{"x":"/etc"}}`)), is: errdefs.ErrCorrupt},
		"no such group":      {dir: broken(manifest(`{"path":"/sys/x","options":"ro","cgroup":"/sys/fs/cgroup/nowhere"}`)), is: errdefs.ErrConflict},
	} {
		if tt.dir == "" {
			tt.dir = good
		}
		if tt.root == "" {
			tt.root = t.TempDir()
		}
		tt.criu.Command = run
		spec := &process.Spec{Rootfs: tt.root, Restore: &process.Restore{Program: checkpointtest.Install(t, tt.criu), Images: tt.dir}}
		_, err := Restore(t.Context(), spec)
		if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err == nil && pid > 0 {
			t.Errorf("%s: process %d was left", name, pid)
		}
	}
	if _, err := Read(good); err != nil {
		t.Errorf("the checkpoint afterwards: %v", err)
	}
}

func manifest(mount string) string {
	return fmt.Sprintf(`{"version":1,"arch":%q,"mounts":[%s]}`, runtime.GOARCH, mount)
}

func FuzzParseVersion(f *testing.F) {
	f.Add([]byte("Version: 4.2\n"))
	f.Add([]byte("Version: 3.17.1\nGitID: x\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		v, err := parseVersion(out)
		if err == nil && v == "" || err != nil && !errors.Is(err, errdefs.ErrUnsupported) {
			t.Errorf("%q: %q, %v", out, v, err)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	notice := message{}.number(respType, typeNotify).number(respSuccess, 1).
		text(respNotify, string(message{}.text(notifyScript, scriptPostRestore).number(notifyPid, 42)))
	f.Add([]byte(notice))
	f.Add([]byte(message{}.number(respType, typeRestore).number(respSuccess, 1).text(respRestore, string(message{}.number(restorePid, 7)))))
	f.Add([]byte{0x7d, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseAnswer(data)
		if err != nil && !errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("%x: %v", data, err)
		}
		if string(data) == string(notice) && (a.script != scriptPostRestore || a.pid != 42 || !a.success || a.typ != typeNotify) {
			t.Errorf("%+v", a)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(manifest(`{"path":"/dev/null","options":"ro,nosuid","device":"null"}`)))
	f.Add([]byte(manifest(`{"path":"/sys/fs/cgroup","options":"ro","entries":{"cpu,cpuacct":"","cpu":"cpu,cpuacct"}}`)))
	f.Add([]byte(manifest(`{"path":"/a]b","options":"rw","empty":true}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil && !errors.Is(err, errdefs.ErrCorrupt) && !errors.Is(err, errdefs.ErrUnsupported) {
			t.Errorf("%q: %v", data, err)
		}
		for _, mount := range m.Mounts {
			if mount.check() != nil {
				t.Errorf("%q: mount %+v", data, mount)
			}
		}
	})
}
