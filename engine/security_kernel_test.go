package engine_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/linux"
)

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(r)
	check(t, err)
	return string(data)
}

// refused is what probe's calls must end with (RT-7, RT-13, RT-14).
var refused = map[string]string{
	"clone3": "ENOSYS", "future": "ENOSYS", "getpid": "ok",
	"core-pattern": "EROFS", "sysrq": "EROFS ENOENT",
	// one of several reasons, which differ with the layout of control groups
	"release-agent": "EROFS ENOENT EACCES", "group-of-its-own": "EROFS ENOENT EACCES",
}

// TestSecurityCalls: RT-7, RT-13 and RT-14. What crosses from a container into
// the kernel is refused by an error, never by a signal, and at an exec as at a
// start.
func TestSecurityCalls(t *testing.T) {
	hostCanary(t)
	_, e, done := hostile(t)
	defer done()
	script(t, e, "/bin/probe calls; echo ended $?; "+forever, limits)
	first, _, ok := strings.Cut(console(t, e, "c", "ended"), "ended")
	session, exit := execOutput(t, e, engine.ExecRequest{Args: []string{"/bin/probe", "calls"}})
	if !ok || exit.Code != 0 || exit.Signal != 0 || first != session {
		t.Errorf("the session ended %+v with\n%s\nthe first process with\n%s", exit, session, first)
	}
	n := 0
	for line := range strings.Lines(session) {
		name, word, _ := strings.Cut(strings.TrimSpace(line), " ")
		want := refused[name]
		if want == "" {
			want = "EPERM"
		}
		if n++; !slices.Contains(strings.Fields(want), word) {
			t.Errorf("%s: %s, want %s", name, word, want)
		}
	}
	if n < 40 {
		t.Errorf("only %d calls:\n%s", n, session)
	}
}

// TestSecurityControlGroups: RT-7. The groups are the container's own part of
// the tree, and read-only.
func TestSecurityControlGroups(t *testing.T) {
	hostCanary(t)
	_, e, done := hostile(t)
	defer done()
	script(t, e, forever, limits)
	out, _ := execOutput(t, e, engine.ExecRequest{Args: sh(`readlink /proc/self/ns/cgroup; cat /proc/self/cgroup | grep -v ':/$'; echo -
		for f in $(find /sys/fs/cgroup -type f); do (echo 0 >$f) 2>/dev/null && echo wrote $f; done`), Env: []string{"PATH=/bin"}})
	own, rest, _ := strings.Cut(out, "\n")
	host, err := os.Readlink("/proc/self/ns/cgroup")
	check(t, err)
	if own == host || own == "" || rest != "-\n" {
		t.Errorf("inside %s, on the host %s; outside the own part, or writable:\n%s", own, host, rest)
	}
}

// TestSecurityDevices: RT-14. The list of /dev is exact, and whoever is in the
// container's control group may not open a device of the host, whatever its
// rights.
func TestSecurityDevices(t *testing.T) {
	hostCanary(t)
	h, e, done := hostile(t)
	defer done()
	script(t, e, forever, limits)
	out, _ := execOutput(t, e, engine.ExecRequest{Args: []string{"/bin/ls", "/dev"}})
	want := sorted("null zero full random urandom tty console ptmx pts shm mqueue fd stdin stdout stderr")
	if !slices.Equal(sorted(out), want) {
		t.Errorf("/dev has %v", sorted(out))
	}
	group, err := h.Cgroups.Open(t.Context(), "c")
	check(t, err)
	files, err := group.JoinFiles()
	check(t, err)
	defer linux.CloseAll(files)
	child := exec.Command("/bin/busybox", "sh", "-c",
		`read line; for d in null zero kmsg mem; do dd if=/dev/$d of=/dev/null bs=1 count=0 2>/dev/null && echo $d; done; true`)
	in, err := child.StdinPipe()
	check(t, err)
	var said strings.Builder
	child.Stdout = &said
	check(t, child.Start())
	for _, f := range files {
		_, err := fmt.Fprint(f, child.Process.Pid)
		check(t, err)
	}
	_, err = io.WriteString(in, "\n")
	check(t, errors.Join(err, in.Close(), child.Wait()))
	if said.String() != "null\nzero\n" {
		t.Errorf("the group may open %q", said.String())
	}
}

// TestSecuritySockets: RT-8. Nothing listens at an abstract name, which network
// namespaces share with nobody but also protect from nobody inside of them.
func TestSecuritySockets(t *testing.T) {
	h, e, done := hostile(t)
	defer done()
	script(t, e, forever, limits)
	out, _ := execOutput(t, e, engine.ExecRequest{Args: []string{"/bin/cat", "/proc/net/unix"}})
	if strings.Count(out, "\n") != 1 { // the heading
		t.Errorf("inside:\n%s", out)
	}
	data, err := os.ReadFile("/proc/net/unix")
	check(t, err)
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, "@") && (strings.Contains(line, "gantry") || strings.Contains(line, h.Root)) {
			t.Errorf("on the host: %s", line)
		}
	}
}

// fileCapabilities is the value of security.capability, revision 2 (linux/capability.h).
func fileCapabilities(permitted, inheritable uint32, effective bool) string {
	revision := byte(0)
	if effective {
		revision = 1
	}
	value := []byte{revision, 0, 0, 2}
	for _, word := range []uint32{permitted, inheritable, 0, 0} {
		value = append(value, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
	}
	return string(value)
}

// TestSecurityCapabilities: RT-9, CVE-2022-24769. A file's inheritable
// capabilities give nothing, and its permitted ones no more than the bounding
// set.
func TestSecurityCapabilities(t *testing.T) {
	hostCanary(t)
	box, err := os.ReadFile("/bin/busybox")
	check(t, err)
	with := func(name, value string) entry {
		f := file(name, string(box))
		f.PAXRecords, f.Format = map[string]string{"SCHILY.xattr.security.capability": value}, tar.FormatPAX
		return f
	}
	_, e, done := hostile(t, with("bin/busybox.i", fileCapabilities(0, 1<<unix.CAP_NET_RAW, true)),
		with("bin/busybox.p", fileCapabilities(1<<unix.CAP_NET_RAW, 0, true)))
	defer done()
	script(t, e, forever, limits)
	caps := func(user string, args ...string) string {
		out, exit := execOutput(t, e, engine.ExecRequest{User: user, Args: append(args, "grep", "^Cap[IPEA]", "/proc/self/status")})
		if exit.Code != 0 {
			t.Errorf("%v: %+v %s", args, exit, out)
		}
		return strings.Join(strings.Fields(out), " ")
	}
	const none = "0000000000000000"
	say := func(inh, prm string) string {
		return fmt.Sprintf("CapInh: %s CapPrm: %s CapEff: %s CapAmb: %s", inh, prm, prm, none)
	}
	if got := caps("1000:1000", "/bin/busybox"); got != say(none, none) {
		t.Errorf("a user has %s", got)
	}
	if got := caps("1000:1000", "/bin/busybox.i"); got != say(none, none) {
		t.Errorf("inheritable capabilities of a file gave %s", got)
	}
	if got := caps("1000:1000", "/bin/busybox.p"); got != say(none, "0000000000002000") {
		t.Errorf("permitted capabilities of a file gave %s", got)
	}
	if got := caps("0", "/bin/busybox"); !strings.HasPrefix(got, "CapInh: "+none) || !strings.HasSuffix(got, "CapAmb: "+none) {
		t.Errorf("root has %s", got)
	}
}

// TestSecurityHostUsers: ST-1, CVE-2021-41091 and its kin. A user of the host
// gets nowhere into what the engine keeps.
func TestSecurityHostUsers(t *testing.T) {
	h, e, done := hostile(t)
	defer done()
	script(t, e, forever, limits)
	canary := hostCanary(t)
	for dir := filepath.Dir(h.Root); strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		check(t, os.Chmod(dir, 0o711))
	}
	asNobody := func(name string, args ...string) error {
		cmd := exec.Command(name, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return cmd.Run()
	}
	const box = "/bin/busybox"
	if err := asNobody(box, "cat", filepath.Join(canary, "secret")); err != nil {
		t.Fatalf("the control: %v", err)
	}
	names, err := filepath.Glob(filepath.Join(h.Root, "*"))
	check(t, err)
	for _, name := range append(names, h.Root, filepath.Join(h.Root, "snapshots/active/c"), filepath.Join(h.Root, "snapshots/layers")) {
		info, err := os.Stat(name)
		check(t, err)
		verb := "cat"
		if info.IsDir() {
			verb = "ls"
		}
		if err := asNobody(box, verb, name); err == nil {
			t.Errorf("a user of the host reads %s", name)
		}
	}
	// nor by what shows the mount of a container that runs
	for _, name := range []string{"root", "cwd"} {
		name = filepath.Join("/proc", strconv.Itoa(stateOf(t, e, "c").Process.Pid), name, "bin/busybox")
		if _, err := os.Stat(name); err != nil {
			t.Fatalf("the control: %v", err)
		}
		if err := asNobody(name, "true"); err == nil {
			t.Errorf("a user of the host runs %s of the container", name)
		}
	}
}
