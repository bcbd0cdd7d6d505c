package processtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/conlog"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// Isolation checks what a real process can see and do. newRunner is called
// once for each test and cleans up through t.
func Isolation(t *testing.T, newRunner func(t *testing.T) process.Runner) {
	IsolationBut(t, nil, newRunner)
}

// IsolationBut is Isolation without the tests of the given names, for a runner
// that promises less: process.Spec.Runtime. A name that no test has fails.
func IsolationBut(t *testing.T, but []string, newRunner func(t *testing.T) process.Runner) {
	left := slices.Clone(but)
	defer func() {
		if len(left) > 0 {
			t.Errorf("no such tests: %v", left)
		}
	}()
	for _, tt := range []struct {
		name string
		run  func(*testing.T, real)
	}{
		{"Identity", testIdentity},
		{"NamespacesAreNew", testNamespacesAreNew},
		{"Capabilities", testCapabilities},
		{"User", testUser},
		{"UnmappedUser", testUnmappedUser},
		{"NoNewPrivs", testNoNewPrivs},
		{"OnlyStandardFiles", testOnlyStandardFiles},
		{"Devices", testDevices},
		{"Terminal", testTerminal},
		{"Mounts", testMounts},
		{"MaskedPaths", testMaskedPaths},
		{"ReadonlyPaths", testReadonlyPaths},
		{"Files", testFiles},
		{"Sysctls", testSysctls},
		{"Limits", testLimits},
		{"WorkingDirectory", testWorkingDirectory},
		{"HostileWorkingDirectory", testHostileWorkingDirectory},
		{"HostileRoot", testHostileRoot},
		{"HostileFileParent", testHostileFileParent},
		{"CommandErrors", testCommandErrors},
		{"OwnBinaryIsOutOfReach", testOwnBinary},
		{"Power", testPower},
		{"ConsoleIsComplete", testConsoleIsComplete},
		{"ConsoleIsBounded", testConsoleIsBounded},
		{"ConsoleReopened", testConsoleReopened},
		{"Exec", testExec},
		{"ExecForkAway", testExecForkAway},
		{"ExecHostileCwd", testExecHostileCwd},
		{"ExecHostileContainer", testExecHostileContainer},
		{"ExecUntraceable", testExecUntraceable},
		{"ExecOwnBinary", testExecOwnBinary},
		{"ForeignCommands", testForeignCommands},
		{"Attributes", testAttributes},
		{"Scheduling", testScheduling},
		{"Stdio", testStdio},
		{"PreserveFailure", testPreserveFailure},
		{"ConsoleSocket", testConsoleSocket},
		{"Hooks", testHooks},
		{"HookFailures", testHookFailures},
		{"Gate", testGate},
		{"GateHooks", testGateHooks},
	} {
		if slices.Contains(but, tt.name) {
			left = slices.DeleteFunc(left, func(name string) bool { return name == tt.name })
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			f := NewFixture(t)
			spec := func(t *testing.T, args ...string) process.Spec { return f.Spec(t, args...) }
			tt.run(t, real{Harness{newRunner(t), spec}, f})
		})
	}
}

type real struct {
	Harness
	fixture Fixture
}

// sh runs a script to its end and returns what it printed and how it ended.
func (r real) sh(t *testing.T, script string, changes ...func(*process.Spec)) (string, process.Exit) {
	t.Helper()
	spec := r.Spec(t, "sh", "-c", script)
	for _, change := range changes {
		change(&spec)
	}
	start(t, r.Harness, "sh", spec)
	e := wait(t, r.Harness, "sh")
	if err := r.Runner.Forget(bounded(t), "sh"); err != nil {
		t.Error(err)
	}
	out, err := conlog.Tail(spec.ConsoleLog, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), e
}

// expect runs a script that must succeed and print want.
func (r real) expect(t *testing.T, script, want string, changes ...func(*process.Spec)) {
	t.Helper()
	if got, e := r.sh(t, script, changes...); got != want || e.Code != 0 {
		t.Errorf("%s: code %d, output %q, want %q", script, e.Code, got, want)
	}
}

func testIdentity(t *testing.T, r real) {
	r.expect(t, "echo $$", "1\n")
	r.expect(t, "hostname", "fixture\n")
	r.expect(t, "id -u; id -g; id -G", "0\n0\n0\n")
	out, _ := r.sh(t, "cat /proc/self/uid_map /proc/self/gid_map")
	if got := strings.Fields(out); !slices.Equal(got, strings.Fields(fmt.Sprintf("0 %d 65536 0 %d 65536", HostID, HostID))) {
		t.Errorf("id maps %q", out)
	}
	out, _ = r.sh(t, "for p in /proc/[0-9]*; do echo $p; done")
	if out != "/proc/1\n" {
		t.Errorf("processes seen: %q", out)
	}
	r.expect(t, "env", "PATH=/bin\nA=b c\n", func(s *process.Spec) {
		s.Args, s.Env = []string{"env"}, []string{"PATH=/bin", "A=b c"}
	})
	r.expect(t, "cat /proc/self/oom_score_adj", "0\n")
}

func testNamespacesAreNew(t *testing.T, r real) {
	names := []string{"user", "net", "pid", "mnt", "uts", "ipc", "cgroup"}
	out, _ := r.sh(t, "cd /proc/self/ns; for n in "+strings.Join(names, " ")+"; do readlink $n; done")
	got := strings.Fields(out)
	if len(got) != len(names) {
		t.Fatalf("output %q", out)
	}
	for i, n := range names {
		host, err := os.Readlink("/proc/self/ns/" + n)
		if err != nil || host == got[i] {
			t.Errorf("%s: %s inside, %s outside, %v", n, got[i], host, err)
		}
	}
}

func testCapabilities(t *testing.T, r real) {
	for _, tt := range []struct {
		names []string
		want  string
	}{
		{[]string{"CAP_CHOWN", "CAP_KILL", "CAP_SYS_CHROOT"}, "0000000000040021"},
		{nil, "0000000000000000"},
	} {
		want := fmt.Sprintf("CapInh:\t0000000000000000\nCapPrm:\t%[1]s\nCapEff:\t%[1]s\nCapBnd:\t%[1]s\nCapAmb:\t0000000000000000\n", tt.want)
		r.expect(t, "grep ^Cap /proc/self/status", want, func(s *process.Spec) { s.Capabilities = tt.names })
	}
}

func testUser(t *testing.T, r real) {
	r.expect(t, "id -u; id -g; id -G; grep CapEff /proc/self/status; touch /etc/x 2>/dev/null; echo $?; echo >/dev/console && echo tty",
		"1000\n1000\n1000 1001\nCapEff:\t0000000000000000\n1\n\ntty\n",
		func(s *process.Spec) { s.UID, s.GID, s.Groups = 1000, 1000, []uint32{1001} })
}

func testUnmappedUser(t *testing.T, r real) {
	for _, change := range []func(*process.Spec){
		func(s *process.Spec) { s.UID = 70000 },
		func(s *process.Spec) { s.GID = 70000 },
		func(s *process.Spec) { s.Groups = []uint32{70000} },
	} {
		spec := r.Spec(t, "true")
		change(&spec)
		if _, err := r.Runner.Start(bounded(t), "unmapped", spec); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%d %d %v: %v", spec.UID, spec.GID, spec.Groups, err)
			Reap(t, r.Runner, "unmapped")
		}
	}
}

func testNoNewPrivs(t *testing.T, r real) {
	r.expect(t, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t0\n")
	r.expect(t, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n", func(s *process.Spec) { s.NoNewPrivs = true })
	// One instruction: allow (linux/filter.h, linux/seccomp.h).
	allow := []process.SockFilter{{Code: 0x06, K: 0x7fff0000}}
	for _, nnp := range []bool{false, true} {
		r.expect(t, "grep ^Seccomp: /proc/self/status", "Seccomp:\t2\n", func(s *process.Spec) { s.Seccomp, s.NoNewPrivs = allow, nnp })
	}
}

func testOnlyStandardFiles(t *testing.T, r real) {
	// 10 may be the shell's own.
	out, _ := r.sh(t, "cd /proc/1/fd; for f in *; do echo $f $(readlink /proc/1/fd/$f); done")
	for line := range strings.Lines(out) {
		fd, target, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case slices.Contains([]string{"0", "1", "2"}, fd) && target == "/dev/pts/0":
		case target == "" || strings.HasPrefix(target, "/proc/1/fd"): // the shell's own
		case strings.HasPrefix(target, "pipe:"): // of $( )
		default:
			t.Errorf("open file %q", line)
		}
	}
	r.expect(t, "ls", "0\n1\n2\n3\n", func(s *process.Spec) { s.Args = []string{"ls", "-1", "/proc/self/fd"} })
}

func testDevices(t *testing.T, r real) {
	r.expect(t, "ls -1 /dev", strings.Join(strings.Fields(
		"console fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"), "\n")+"\n")
	r.expect(t, "cd /dev; stat -c '%n %t:%T' null zero full random urandom tty console",
		"null 1:3\nzero 1:5\nfull 1:7\nrandom 1:8\nurandom 1:9\ntty 5:0\nconsole 88:0\n")
	r.expect(t, "echo x >/dev/null && head -c 2 /dev/zero | wc -c", "2\n",
		func(s *process.Spec) { s.Args[2] = strings.Replace(s.Args[2], "wc", "busybox wc", 1) })
	r.expect(t, "mknod /tmp/disk b 254 0 2>/dev/null; echo $?", "1\n", func(s *process.Spec) {
		s.Capabilities = append(s.Capabilities, "CAP_MKNOD")
	})
}

func testTerminal(t *testing.T, r real) {
	r.expect(t, "tty; test -t 0 && test -t 1 && test -t 2 && echo tty; echo hello >/dev/tty; stty size",
		"/dev/pts/0\ntty\nhello\n24 80\n")
	r.expect(t, "set -- $(cat /proc/self/stat); test $6 -gt 0 && test $7 -ne 0 && echo session", "session\n")
}

func testMounts(t *testing.T, r real) {
	out, _ := r.sh(t, "cat /proc/self/mountinfo")
	want := map[string]string{
		"/proc": "nosuid,nodev,noexec", "/sys": "ro,nosuid,nodev,noexec", "/dev": "nosuid,noexec", "/dev/pts": "nosuid,noexec",
		"/dev/shm": "nosuid,nodev,noexec", "/dev/mqueue": "nosuid,nodev,noexec", "/proc/sys": "ro,nosuid,nodev,noexec",
	}
	if linux.UnifiedCgroups() {
		want["/sys/fs/cgroup"] = "ro,nosuid,nodev,noexec"
	}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 7 {
			t.Fatalf("mount line %q", line)
		}
		if f[6] != "-" {
			t.Errorf("propagation: %q", line)
		}
		if flags, ok := want[f[4]]; ok {
			delete(want, f[4])
			if !strings.HasPrefix(strings.TrimPrefix(f[5], "rw,"), flags) {
				t.Errorf("%s: flags %s, want %s", f[4], f[5], flags)
			}
		}
		if strings.Contains(line, r.fixture.Rootfs) && f[4] != "/" {
			t.Errorf("host path is shown: %q", line)
		}
	}
	if len(want) > 0 {
		t.Errorf("not mounted: %v, in %s", want, out)
	}
	// With all rights in its user namespace it still cannot get at the host.
	r.expect(t, "mount -o remount,bind,rw /proc/sys 2>/dev/null; (echo 1 >/proc/sys/kernel/panic_on_oops) 2>/dev/null; echo $?; ls -a / | grep -c .",
		"1\n9\n", func(s *process.Spec) { s.Capabilities = append(s.Capabilities, "CAP_SYS_ADMIN") })
}

func testMaskedPaths(t *testing.T, r real) {
	r.expect(t, "for f in /proc/kcore /proc/keys /proc/timer_list; do test -e $f && cat $f; done; for d in /proc/acpi /sys/firmware; do test -d $d && ls $d; done; echo end", "end\n")
	out, _ := r.sh(t, "stat -c '%n %t:%T' /proc/kcore /proc/keys; touch /sys/firmware/x 2>&1")
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "/proc") && !strings.HasSuffix(line, " 1:3\n") {
			t.Errorf("mask is not the null device: %q", line)
		}
	}
	if !strings.Contains(out, "Read-only file system") && !strings.Contains(out, "No such file") {
		t.Errorf("masked directory is writable: %q", out)
	}
}

func testReadonlyPaths(t *testing.T, r real) {
	r.expect(t, "for f in /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname; do echo 1 2>/dev/null >$f; echo $?; done; mkdir /sys/x 2>/dev/null || echo ro",
		"1\n1\nro\n")
}

func testFiles(t *testing.T, r real) {
	root := r.fixture.Rootfs
	must(t, os.Symlink("/etc", filepath.Join(root, "conf")))
	must(t, os.Symlink("/host-canary", filepath.Join(root, "etc/resolv.conf")))
	must(t, os.WriteFile(filepath.Join(root, "etc/old"), []byte("a much longer old content"), 0o777))
	r.expect(t, "cat /etc/hosts /etc/old /etc/resolv.conf /var/lib/cloud/seed/data; stat -c '%a %u:%g' /etc/hosts /etc/old /var/lib/cloud/seed /var/lib/cloud/seed/data; test -L /etc/resolv.conf || echo replaced",
		"hosts\nnew\ndns\nseed\n644 0:0\n600 5:6\n755 0:0\n4755 0:0\nreplaced\n", func(s *process.Spec) {
			s.Files = []process.File{
				{Path: "/conf/hosts", Data: []byte("hosts\n"), Mode: 0o644},
				{Path: "/etc/old", Data: []byte("new\n"), Mode: 0o600, UID: 5, GID: 6},
				{Path: "/etc/resolv.conf", Data: []byte("dns\n"), Mode: 0o644},
				{Path: "/var/lib/cloud/seed/data", Data: []byte("seed\n"), Mode: 0o4755},
				{Path: "/empty", Mode: 0o644},
			}
		})
	big := strings.Repeat("0123456789abcdef", 1<<14) // 256 KiB
	r.expect(t, "busybox wc -c </big", "262144\n", func(s *process.Spec) {
		s.Files = []process.File{{Path: "/big", Data: []byte(big), Mode: 0o600}}
	})
}

func testSysctls(t *testing.T, r real) {
	r.expect(t, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range", "0\n0\t65535\n", func(s *process.Spec) {
		s.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net/ipv4/ping_group_range": "0 65535"}
	})
	spec := r.Spec(t, "true")
	spec.Sysctls = map[string]string{"net.no_such": "1"}
	if _, err := r.Runner.Start(bounded(t), "sysctl", spec); err == nil || !strings.Contains(err.Error(), "set sysctl net.no_such") {
		t.Errorf("unknown sysctl: %v", err)
	}
}

func testLimits(t *testing.T, r real) {
	r.expect(t, "ulimit -n; ulimit -Hn; ulimit -c", "100\n200\n0\n", func(s *process.Spec) {
		s.Rlimits = []process.Rlimit{{Name: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Name: "RLIMIT_CORE"}}
	})
	// Above what the host's root may set: as much as it may.
	r.expect(t, "test $(ulimit -n) -ge 1024 && echo ok", "ok\n", func(s *process.Spec) {
		s.Rlimits = []process.Rlimit{{Name: "RLIMIT_NOFILE", Soft: 1 << 20, Hard: 1 << 20}}
	})
}

func testWorkingDirectory(t *testing.T, r real) {
	for cwd, want := range map[string]string{"": "/\n", "/": "/\n", "/home": "/home\n", "/srv/made/here": "/srv/made/here\n"} {
		r.expect(t, "pwd", want, func(s *process.Spec) { s.Cwd = cwd })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
