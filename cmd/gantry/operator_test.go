package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/engine/enginetest"
)

// binary builds the program once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gantry-bin")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "gantry")
	out, err := exec.Command("go", "build", "-o", name, ".").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return name, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if name, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(name))
	}
	os.Exit(code)
}

// operator types commands at a host whose engine runs.
type operator struct {
	t      *testing.T
	binary string
	store  string
	engine *exec.Cmd
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	name, err := binary()
	check(t, err)
	store, err := os.MkdirTemp("", "op") // a socket's path must be short
	check(t, err)
	o := &operator{t: t, binary: name, store: store}
	archive := filepath.Join(t.TempDir(), "busybox.tar")
	check(t, os.WriteFile(archive, enginetest.Busybox(t), 0o600))
	o.begin()
	t.Cleanup(o.end)
	if out := o.ok("image", "import", "--container-format", "bare", "--disk-format", "raw", archive, "busybox"); out != "busybox\n" {
		t.Errorf("import: %q", out)
	}
	return o
}

func (o *operator) group() string { return "gantry-test-" + filepath.Base(o.store) }

// begin starts the engine and waits for it.
func (o *operator) begin() {
	o.t.Helper()
	o.engine = exec.Command(o.binary, "engine", "--store-path", o.store, "--cgroup", o.group())
	var log bytes.Buffer
	o.engine.Stderr = &log
	check(o.t, o.engine.Start())
	c := api.NewClient(filepath.Join(o.store, api.SocketName))
	defer c.Close()
	await(o.t, "engine", func() bool { _, err := c.Info(o.t.Context()); return err == nil })
}

// kill ends the engine at once.
func (o *operator) kill() {
	_ = o.engine.Process.Kill()
	_ = o.engine.Wait()
}

// end removes the containers, the engine and its keeper.
func (o *operator) end() {
	var list []api.Container
	check(o.t, json.Unmarshal([]byte(o.ok("ps", "-a", "--json")), &list))
	for _, c := range list {
		o.ok("rm", "-k", c.ID)
	}
	check(o.t, o.engine.Process.Signal(syscall.SIGTERM))
	check(o.t, o.engine.Wait())
	if pid, err := os.ReadFile(filepath.Join(o.store, "keeper.pid")); err == nil {
		stopKeeper(o.t, string(pid))
	}
	check(o.t, os.RemoveAll(o.store))
	trees, err := filepath.Glob("/sys/fs/cgroup/*/" + o.group())
	check(o.t, err)
	for _, dir := range append(trees, "/sys/fs/cgroup/"+o.group()) {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			o.t.Errorf("groups are left: %v", err)
		}
	}
}

// run types a command and returns what it said and its status.
func (o *operator) run(args ...string) (out, errs string, code int) {
	o.t.Helper()
	cmd := o.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		o.t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func (o *operator) command(args ...string) *exec.Cmd {
	cmd := exec.Command(o.binary, args...)
	cmd.Env = append(os.Environ(), "GANTRY_STORE_PATH="+o.store)
	return cmd
}

func (o *operator) ok(args ...string) string {
	o.t.Helper()
	out, errs, code := o.run(args...)
	if code != 0 {
		o.t.Fatalf("gantry %s: %d %s", strings.Join(args, " "), code, errs)
	}
	return out
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 6000 {
		if ok() {
			return
		}
		<-tick.C
	}
	t.Fatalf("%s does not come", what)
}

func stopKeeper(t *testing.T, text string) {
	t.Helper()
	var pid int
	check(t, json.Unmarshal([]byte(strings.TrimSpace(text)), &pid))
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	check(t, err)
	defer unix.Close(fd)
	check(t, unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0))
	await(t, "end of the keeper", func() bool { return errors.Is(unix.PidfdSendSignal(fd, 0, nil, 0), unix.ESRCH) })
}

const obeys = "trap 'exit 7' TERM; echo ready; while :; do sleep 1000 & wait $!; done"

func (o *operator) ready(id string) {
	o.t.Helper()
	await(o.t, "container", func() bool { return strings.Contains(o.ok("logs", id), "ready") })
}

func TestOperator(t *testing.T) {
	o := newOperator(t)
	if out := o.ok("run", "--id", "c", "-e", "A=b", "--pids", "100", "-m", "64M", "-l", "x=y", "busybox", "/bin/sh", "-c", obeys); out != "c\n" {
		t.Errorf("run: %q", out)
	}
	o.ready("c")
	if out := o.ok("ps"); !strings.Contains(out, "c          busybox  running") {
		t.Errorf("ps:\n%s", out)
	}
	if out, errs, code := o.run("exec", "c", "/bin/sh", "-c", "echo $A; echo err >&2; exit 42"); out != "b\n" || errs != "err\n" || code != 42 {
		t.Errorf("exec: %q %q %d", out, errs, code)
	}
	cmd := o.command("exec", "-i", "c", "cat")
	cmd.Stdin = strings.NewReader("through")
	if out, err := cmd.Output(); err != nil || string(out) != "through" {
		t.Errorf("exec -i: %q %v", out, err)
	}
	if out, _, code := o.run("exec", "-t", "c", "/bin/sh", "-c", "[ -t 0 ] && echo terminal; exit 3"); out != "terminal\r\n" || code != 3 {
		t.Errorf("exec -t: %q %d", out, code)
	}
	file := filepath.Join(t.TempDir(), "f")
	check(t, os.WriteFile(file, []byte("content"), 0o640))
	o.ok("cp", file, "c:/tmp")
	o.ok("cp", file, "c:/tmp/renamed")
	if out := o.ok("exec", "c", "cat", "/tmp/f", "/tmp/renamed"); out != "contentcontent" {
		t.Errorf("cp in: %q", out)
	}
	back := filepath.Join(t.TempDir(), "back")
	o.ok("cp", "c:/tmp/renamed", back)
	if data, err := os.ReadFile(back); err != nil || string(data) != "content" {
		t.Errorf("cp out: %q %v", data, err)
	}
	if out := o.ok("top", "c"); !strings.Contains(out, "HOSTPID") || !strings.Contains(out, "trap") {
		t.Errorf("top: %s", out)
	}
	if out := o.ok("stats", "c"); !strings.Contains(out, "64.0MiB") {
		t.Errorf("stats: %s", out)
	}
	if out := o.ok("update", "--cpus", "0.5", "c"); !strings.Contains(out, `"cpu_quota_us": 50000`) || !strings.Contains(out, `"pids": 100`) {
		t.Errorf("update: %s", out)
	}
	o.ok("pause", "c")
	if out := o.ok("ps"); !strings.Contains(out, "paused") {
		t.Errorf("paused: %s", out)
	}
	o.ok("resume", "c")
	wait := o.command("wait", "c")
	check(t, wait.Start())
	o.ok("stop", "-t", "60s", "c")
	if err := wait.Wait(); wait.ProcessState.ExitCode() != 7 {
		t.Errorf("wait: %v", err)
	}
	if out := o.ok("ps", "-a"); !strings.Contains(out, "stopped (7)") {
		t.Errorf("stopped: %s", out)
	}
	o.ok("rm", "c")
	if out, _, code := o.run("run", "-f", "--rm", "busybox", "/bin/sh", "-c", "echo said; exit 6"); out != "said\n" || code != 6 {
		t.Errorf("run -f: %q %d", out, code)
	}
	if out := o.ok("ps", "-a", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("left: %s", out)
	}
	o.ok("image", "rm", "busybox")
}

// TestOperatorErrors: one line that says what is wrong, and status 1.
func TestOperatorErrors(t *testing.T) {
	o := newOperator(t)
	for _, tc := range []struct {
		args []string
		says string
	}{
		{[]string{"exec", "absent", "true"}, "absent: not found"},
		{[]string{"logs", "../../etc"}, "invalid"},
		{[]string{"run", "absent-image"}, "not found"},
		{[]string{"run", "--id", "a/b", "busybox"}, "invalid"},
		{[]string{"run", "--id", "x", "busybox", "/absent"}, "invalid"},
		{[]string{"run", "-m", "lots", "busybox"}, "no size"},
		{[]string{"kill", "-s", "NOPE", "c"}, "no signal"},
		{[]string{"update", "c"}, "no limit"},
		{[]string{"cp", "a", "b"}, "CONTAINER:PATH"},
		{[]string{"logs", "--since", "yesterday", "c"}, "neither a time"},
		{[]string{"rm", "absent", "absent2"}, "1 more failed"},
		{[]string{"image", "import", "/absent"}, "no such file"},
		{[]string{"ps", "--socket", "/absent/socket"}, "no engine answers"},
	} {
		out, errs, code := o.run(tc.args...)
		if code != 1 || out != "" || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "gantry: ") || !strings.Contains(errs, tc.says) {
			t.Errorf("gantry %s: %d %q %q, want %q", strings.Join(tc.args, " "), code, out, errs, tc.says)
		}
	}
}

// TestOperatorWithoutEngine: what runs is seen though no engine does.
func TestOperatorWithoutEngine(t *testing.T) {
	o := newOperator(t)
	o.ok("run", "--id", "c", "busybox", "/bin/sh", "-c", obeys)
	o.ready("c")
	o.kill()
	out, errs, code := o.run("ps")
	if code != 0 || !strings.Contains(out, "running") || !strings.Contains(errs, "no engine runs") {
		t.Errorf("ps: %d %q %q", code, out, errs)
	}
	if out, errs, code := o.run("logs", "-n", "1", "c"); code != 0 || out != "ready\n" || !strings.Contains(errs, "no engine answers") {
		t.Errorf("logs: %d %q %q", code, out, errs)
	}
	if _, errs, code := o.run("stop", "c"); code != 1 || !strings.Contains(errs, "no engine answers") {
		t.Errorf("stop: %d %q", code, errs)
	}
	o.begin()
	o.ok("stop", "-t", "0", "c")
}

// TestKilledClients: of a client that is killed in the middle nothing is left.
func TestKilledClients(t *testing.T) {
	o := newOperator(t)
	o.ok("run", "--id", "c", "busybox", "/bin/sh", "-c", obeys)
	o.ready("c")
	processes := func() int { return strings.Count(o.ok("top", "c"), "\n") }
	before := processes()
	files := func() int {
		entries, err := os.ReadDir("/proc/" + itoa(o.engine.Process.Pid) + "/fd")
		check(t, err)
		return len(entries)
	}
	// settled is their number when no connection of an earlier client is closing
	settled := func() int {
		n, same := files(), 0
		await(t, "rest", func() bool {
			if now := files(); now != n {
				n, same = now, 0
			}
			same++
			return same > 20
		})
		return n
	}
	idle := settled()
	for name, args := range map[string][]string{
		"exec": {"exec", "c", "/bin/sh", "-c", "sleep 1000 & " + obeys}, "exec -t": {"exec", "-t", "c", "/bin/sh", "-c", obeys},
		"attach": {"attach", "c"}, "logs": {"logs", "-f", "c"}, "events": {"events"}, "stats": {"stats", "-i", "100ms", "c"},
		"cp in": {"cp", "-", "c:/tmp"}, "wait": {"wait", "c"},
	} {
		quiet := settled()
		cmd := o.command(args...)
		// stays open until the end has come: a shell whose input ends would end by
		// itself, and what it has put into the background would rightly stay
		theirs, ours, err := os.Pipe()
		check(t, err)
		cmd.Stdin = theirs
		out, err := cmd.StdoutPipe()
		check(t, err)
		check(t, cmd.Start())
		check(t, theirs.Close())
		if strings.HasPrefix(name, "exec") || name == "logs" || name == "stats" {
			_, err := out.Read(make([]byte, 5))
			check(t, err)
		} else {
			await(t, name, func() bool { return files() > quiet })
		}
		check(t, cmd.Process.Kill())
		_ = cmd.Wait()
		await(t, "end of "+name, func() bool { return processes() == before })
		check(t, ours.Close())
	}
	await(t, "fewer files", func() bool { return files() <= idle+2 })
}

func itoa(n int) string {
	text, _ := json.Marshal(n)
	return string(text)
}

// TestImagesOfContainers: what the field calls commit, diff, export, history and
// import.
func TestImagesOfContainers(t *testing.T) {
	o := newOperator(t)
	dir := t.TempDir()
	o.ok("run", "--id", "c", "busybox", "/bin/sh", "-c", "echo 1 > /root/new; rm /etc/passwd; echo ready; exec sleep 1000")
	o.ready("c")
	if out := o.ok("diff", "c"); !strings.Contains(out, "A /root/new\n") || !strings.Contains(out, "D /etc/passwd\n") {
		t.Errorf("diff: %s", out)
	}
	if out := o.ok("commit", "c", "mine"); out != "mine\n" {
		t.Errorf("commit: %q", out)
	}
	if out := o.ok("history", "mine"); strings.Count(out, "\n") != 3 || !strings.Contains(strings.SplitAfter(out, "\n")[1], "gantry commit") {
		t.Errorf("history: %s", out)
	}
	whole, delta, root := filepath.Join(dir, "whole"), filepath.Join(dir, "delta"), filepath.Join(dir, "root")
	o.ok("image", "export", "mine", "-o", whole)
	o.ok("commit", "c", "--delta", "-o", delta)
	o.ok("export", "c", "-o", root)
	for name, file := range map[string]string{"copy": whole, "small": delta, "bare": root} {
		o.ok("import", file, name)
		if out := o.ok("run", "-f", "--rm", name, "/bin/cat", "/root/new"); !strings.Contains(out, "1") {
			t.Errorf("%s says %q", name, out)
		}
	}
	for _, args := range [][]string{
		{"commit", "c"},
		{"commit", "c", "x", "-o", whole},
		{"commit", "c", "x", "--delta"},
		{"commit", "none", "x"},
		{"diff", "none"},
		{"export", "none", "-o", filepath.Join(dir, "none")},
		{"history", "none"},
		{"image", "export", "none", "-o", filepath.Join(dir, "none")},
	} {
		if _, errs, code := o.run(args...); code == 0 || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: %d %q", args, code, errs)
		}
	}
	if out := o.ok("image", "prune", "--dry-run"); !strings.Contains(out, "4 images") {
		t.Errorf("dry run: %s", out)
	}
	o.ok("image", "prune")
	if out := o.ok("image", "list"); !strings.Contains(out, "busybox") || strings.Contains(out, "mine") {
		t.Errorf("left: %s", out)
	}
	if left, _ := os.ReadDir(dir); len(left) != 3 {
		t.Errorf("files: %v", left)
	}
	o.ok("rm", "-k", "c")
}
