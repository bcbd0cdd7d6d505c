package processtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// Places checks namespaces, mounts, devices and paths of real processes.
// newRunner is called once for each test and cleans up through t.
func Places(t *testing.T, newRunner func(t *testing.T) process.Runner) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, real)
	}{
		{"HostNamespaces", testHostNamespaces},
		{"MadeUserNamespace", testMadeUserNamespace},
		{"JoinedNamespaces", testJoinedNamespaces},
		{"JoinedMountNamespace", testJoinedMountNamespace},
		{"NoMountNamespace", testNoMountNamespace},
		{"TimeNamespace", testTimeNamespace},
		{"BadNamespaces", testBadNamespaces},
		{"Names", testNames},
		{"RootReadonly", testRootReadonly},
		{"RootPropagation", testRootPropagation},
		{"RootReceives", testRootReceives},
		{"DetachedRoot", testDetachedRoot},
		{"BindMounts", testBindMounts},
		{"BindOptions", testBindOptions},
		{"RecursiveOptions", testRecursiveOptions},
		{"Propagation", testPropagation},
		{"IDMappedMounts", testIDMappedMounts},
		{"NewFileSystems", testNewFileSystems},
		{"CopyUp", testCopyUp},
		{"ControlGroupMounts", testControlGroupMounts},
		{"MountErrors", testMountErrors},
		{"MountsInLinks", testMountsInLinks},
		{"MadeDevices", testMadeDevices},
		{"BoundDevices", testBoundDevices},
		{"MaskedAndReadonlyOfTheImage", testMaskedOfImage},
		{"SysctlsOfNamespaces", testSysctlsOfNamespaces},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := NewFixture(t)
			spec := func(t *testing.T, args ...string) process.Spec { return f.Spec(t, args...) }
			tt.run(t, real{Harness{newRunner(t), spec}, f})
		})
	}
}

// refuse expects a start to fail with a class and a text.
func (r real) refuse(t *testing.T, what string, class error, text string, changes ...func(*process.Spec)) {
	t.Helper()
	spec := r.Spec(t, "true")
	for _, change := range changes {
		change(&spec)
	}
	_, err := r.Runner.Start(bounded(t), "refused", spec)
	if err == nil {
		Reap(t, r.Runner, "refused")
	}
	if !errors.Is(err, class) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v; want %v with %q", what, err, class, text)
	}
}

// namespaces replaces those of a spec by new ones of the given kinds.
func namespaces(kinds ...process.NamespaceKind) func(*process.Spec) {
	return func(s *process.Spec) {
		s.Namespaces = nil
		for _, k := range kinds {
			s.Namespaces = append(s.Namespaces, process.Namespace{Kind: k})
		}
	}
}

// asHostRoot is the kind of container that has the host's users: the files of
// its root belong to another, so it needs the rights of a root.
func asHostRoot(kinds ...process.NamespaceKind) func(*process.Spec) {
	return func(s *process.Spec) {
		namespaces(append(kinds, process.MountNamespace, process.PIDNamespace)...)(s)
		s.Mounts = append([]process.Mount{}, s.Mounts[:5]...)
	}
}

func testHostNamespaces(t *testing.T, r real) {
	names := map[string]bool{"user": false, "net": false, "uts": false, "ipc": false, "cgroup": false, "time": false, "pid": true, "mnt": true}
	for name, isNew := range names {
		host, err := os.Readlink("/proc/self/ns/" + name)
		must(t, err)
		out, _ := r.sh(t, "readlink /proc/self/ns/"+name, asHostRoot(), func(s *process.Spec) { s.Hostname = "" })
		if (strings.TrimSpace(out) != host) != isNew {
			t.Errorf("%s: %q inside, %q outside", name, out, host)
		}
	}
}

func testMadeUserNamespace(t *testing.T, r real) {
	ids := []process.IDMap{{ContainerID: 0, HostID: HostID, Size: 1000}, {ContainerID: 1000, HostID: HostID + 5000, Size: 1}}
	made := func(s *process.Spec) {
		s.Namespaces[0].Path, s.Namespaces[1].Path = "", ""
		s.UIDMap, s.GIDMap = ids, ids[:1]
	}
	out, e := r.sh(t, "cat /proc/self/uid_map /proc/self/gid_map; echo $$; mount -t tmpfs x /tmp && echo mounted", made,
		func(s *process.Spec) { s.Capabilities = append(s.Capabilities, "CAP_SYS_ADMIN") })
	want := fmt.Sprintf("0 %d 1000 1000 %d 1 0 %d 1000 1 mounted", HostID, HostID+5000, HostID)
	if strings.Join(strings.Fields(out), " ") != want || e.Code != 0 {
		t.Errorf("maps %q, %+v", out, e)
	}
	r.refuse(t, "no map", errdefs.ErrInvalid, "map", made, func(s *process.Spec) { s.GIDMap = nil })
	r.refuse(t, "overlapping map", errdefs.ErrInvalid, "user namespace", made, func(s *process.Spec) {
		s.UIDMap = []process.IDMap{{ContainerID: 0, HostID: HostID, Size: 10}, {ContainerID: 5, HostID: HostID + 100, Size: 10}}
	})
	r.refuse(t, "no root", errdefs.ErrInvalid, "become root", made, func(s *process.Spec) {
		s.UIDMap = []process.IDMap{{ContainerID: 10, HostID: HostID, Size: 10}}
	})
}

// testDetachedRoot: nothing of a container has to have a path on the host.
func testDetachedRoot(t *testing.T, r real) {
	detached := func() *os.File {
		fd, err := unix.OpenTree(unix.AT_FDCWD, r.fixture.Rootfs, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		must(t, err)
		must(t, unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}))
		f := os.NewFile(uintptr(fd), "root")
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	root := detached()
	without := func(s *process.Spec) {
		s.Rootfs, s.Root = "", root
		for i := range s.Namespaces {
			n := &s.Namespaces[i]
			if n.Path == "" {
				continue
			}
			f, err := os.Open(n.Path)
			must(t, err)
			t.Cleanup(func() { _ = f.Close() })
			n.Path, n.File = "", f
		}
	}
	netns := func() string {
		var st unix.Stat_t
		must(t, unix.Stat(r.fixture.NetNS, &st))
		return fmt.Sprintf("net:[%d]", st.Ino)
	}
	out, e := r.sh(t, line("/")+"; readlink /proc/self/ns/net; touch /made && pwd", without)
	if want := "rw,nodev,relatime\n" + netns() + "\n/\n"; out != want || e.Code != 0 {
		t.Errorf("%q, want %q, %+v", out, want, e)
	}
	if _, err := os.Lstat(filepath.Join(r.fixture.Rootfs, "made")); err != nil {
		t.Error(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), r.fixture.Rootfs) {
		t.Errorf("mounts on the host: %v, %s", err, mounts)
	}
	// It has moved, and is gone with the container.
	spec := r.Spec(t, "true")
	without(&spec)
	if _, err := r.Runner.Start(bounded(t), "again", spec); err == nil || !strings.Contains(err.Error(), "mount root") {
		t.Errorf("a second start: %v", err)
		Reap(t, r.Runner, "again")
	}
	root = detached()
	both := func(s *process.Spec) { s.Rootfs = r.fixture.Rootfs }
	r.refuse(t, "two roots", errdefs.ErrInvalid, "root", without, both)
	r.refuse(t, "no new mount namespace", errdefs.ErrInvalid, "root", without, namespaces(process.PIDNamespace, process.UTSNamespace))
	r.refuse(t, "no such command", errdefs.ErrInvalid, "no-such", without, func(s *process.Spec) { s.Args = []string{"no-such"} })
}

func testJoinedNamespaces(t *testing.T, r real) {
	start(t, r.Harness, "first", r.Spec(t, "sleep", "1000"))
	st, err := r.Runner.Status(bounded(t), "first")
	must(t, err)
	files := map[process.NamespaceKind]string{
		process.PIDNamespace: "pid", process.UTSNamespace: "uts", process.IPCNamespace: "ipc",
		process.CgroupNamespace: "cgroup", process.TimeNamespace: "time",
	}
	for kind, file := range files {
		place := fmt.Sprintf("/proc/%d/ns/%s", st.Process.Pid, file)
		want, err := os.Readlink(place)
		must(t, err)
		r.expect(t, "readlink /proc/self/ns/"+file, want+"\n", func(s *process.Spec) {
			for i := range s.Namespaces {
				if s.Namespaces[i].Kind == kind {
					s.Namespaces[i].Path = place
				}
			}
		})
	}
	// In the first one's pid namespace it is not the first process.
	out, _ := r.sh(t, "echo $$; cat /proc/1/comm", func(s *process.Spec) {
		s.Namespaces[2].Path = fmt.Sprintf("/proc/%d/ns/pid", st.Process.Pid)
	})
	if f := strings.Fields(out); len(f) != 2 || f[0] == "1" || f[1] != "sleep" {
		t.Errorf("joined pid namespace: %q", out)
	}
	if st, err := r.Runner.Status(bounded(t), "first"); err != nil || !st.Running {
		t.Errorf("the first one: %+v, %v", st, err)
	}
}

func testJoinedMountNamespace(t *testing.T, r real) {
	spec := r.Spec(t, "sleep", "1000")
	spec.Namespaces = spec.Namespaces[:0:0]
	asHostRoot()(&spec)
	spec.Hostname = ""
	start(t, r.Harness, "first", spec)
	st, err := r.Runner.Status(bounded(t), "first")
	must(t, err)
	place := fmt.Sprintf("/proc/%d/ns/mnt", st.Process.Pid)
	want, err := os.Readlink(place)
	must(t, err)
	join := func(s *process.Spec) {
		asHostRoot()(s)
		s.Hostname, s.Namespaces[0].Path = "", place
		s.MaskedPaths = []string{"/proc/uptime", "/sys/firmware"}
	}
	r.expect(t, "readlink /proc/self/ns/mnt; stat -c %t:%T /dev/null /proc/uptime; ls -d /sys/firmware/*; cat /etc/passwd | head -n 1",
		want+"\n1:3\n1:3\nls: /sys/firmware/*: No such file or directory\nroot:x:0:0::/:/bin/sh\n", join)
}

func testNoMountNamespace(t *testing.T, r real) {
	bare := func(s *process.Spec) {
		namespaces(process.PIDNamespace)(s)
		s.Mounts, s.MaskedPaths, s.ReadonlyPaths, s.Hostname, s.Terminal, s.ConsoleLog = nil, nil, nil, "", false, ""
	}
	spec := r.Spec(t, "sh", "-c", "echo $$ >/tmp/pid; readlink /proc/self/root >>/tmp/pid; ls -a / | grep -c . >>/tmp/pid")
	bare(&spec)
	start(t, r.Harness, "bare", spec)
	if e := wait(t, r.Harness, "bare"); e.Code != 0 {
		t.Errorf("%+v", e)
	}
	data, err := os.ReadFile(filepath.Join(r.fixture.Rootfs, "tmp/pid"))
	if err != nil || string(data) != "1\n6\n" {
		t.Errorf("%q, %v", data, err)
	}
	r.refuse(t, "mounts", errdefs.ErrInvalid, "mount namespace", bare, func(s *process.Spec) { s.Mounts = process.DefaultMounts() })
	r.refuse(t, "read-only root", errdefs.ErrInvalid, "mount namespace", bare, func(s *process.Spec) { s.RootReadonly = true })
}

func testTimeNamespace(t *testing.T, r real) {
	var host unix.Timespec
	must(t, unix.ClockGettime(unix.CLOCK_BOOTTIME, &host))
	out, _ := r.sh(t, "cat /proc/uptime; cat /proc/self/timens_offsets", func(s *process.Spec) {
		s.TimeOffsets = map[string]time.Duration{"boottime": 1000 * time.Hour, "monotonic": -1500 * time.Millisecond}
	})
	f := strings.Fields(out)
	var up float64
	if _, err := fmt.Sscan(out, &up); err != nil || up < float64(host.Sec+3_600_000) || up > float64(host.Sec+3_600_600) {
		t.Errorf("uptime %q, %v", out, err)
	}
	if got := strings.Join(f[2:], " "); got != "monotonic -2 500000000 boottime 3600000 0" {
		t.Errorf("offsets %q", got)
	}
	r.refuse(t, "too far back", errdefs.ErrInvalid, "time offsets", func(s *process.Spec) {
		s.TimeOffsets = map[string]time.Duration{"boottime": -100 * 365 * 24 * time.Hour}
	})
}

func testBadNamespaces(t *testing.T, r real) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for name, place := range map[string]string{
		"absent": "/no/such", "file": file, "other kind": "/proc/self/ns/uts", "directory": "/proc/self/ns",
	} {
		r.refuse(t, name, errdefs.ErrInvalid, "network namespace", func(s *process.Spec) { s.Namespaces[1].Path = place })
	}
}

func testNames(t *testing.T, r real) {
	r.expect(t, "hostname; cat /proc/sys/kernel/domainname", "fixture\nexample.org\n", func(s *process.Spec) { s.Domainname = "example.org" })
	r.refuse(t, "no namespace", errdefs.ErrInvalid, "uts", asHostRoot())
}
