package processtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// source makes a directory of the host with one file, for the ids of a
// fixture.
func source(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "source")
	must(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("data\n"), 0o644))
	must(t, chownAll(dir))
	return dir
}

// tmpfs mounts one on the host for the time of the test.
func tmpfs(t *testing.T, dir string) {
	t.Helper()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size=1m"))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// with adds mounts to those of a spec.
func with(mounts ...process.Mount) func(*process.Spec) {
	return func(s *process.Spec) { s.Mounts = append(slices.Clone(s.Mounts), mounts...) }
}

func bind(from, to string, options ...string) process.Mount {
	return process.Mount{Destination: to, Type: "bind", Source: from, Options: options}
}

// line is a script that prints options and propagation of a mount.
func line(place string) string {
	return "while read a b c d at rest; do test $at = " + place + " && echo ${rest%% - *}; done </proc/self/mountinfo; :"
}

func testRootReadonly(t *testing.T, r real) {
	r.expect(t, "touch /x 2>/dev/null || echo ro; touch /dev/shm/x && pwd", "ro\n/made\n", func(s *process.Spec) {
		s.RootReadonly, s.Cwd = true, "/made"
	})
}

func testRootPropagation(t *testing.T, r real) {
	for word, want := range map[string]string{"": "", "private": "", "shared": "shared:", "unbindable": "unbindable"} {
		out, _ := r.sh(t, line("/"), func(s *process.Spec) { s.RootPropagation = word })
		_, got, _ := strings.Cut(strings.TrimSpace(out), " ")
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q: %q", word, out)
		}
	}
	r.refuse(t, "unknown", errdefs.ErrInvalid, "propagation", func(s *process.Spec) { s.RootPropagation = "x" })
}

// testRootReceives: what the host mounts below the root later is seen where
// that was asked for, and nothing of the container reaches the host.
func testRootReceives(t *testing.T, r real) {
	root := r.fixture.Rootfs
	must(t, unix.Mount(root, root, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
	must(t, unix.Mount("", root, "", unix.MS_SHARED, ""))
	for _, name := range []string{"late", "inside"} {
		must(t, os.Mkdir(filepath.Join(root, name), 0o777))
	}
	const script = "mount -t tmpfs x /inside; read go; grep -q ' /late ' /proc/self/mountinfo && exit 7; exit 8"
	for word, want := range map[string]int{"": 8, "private": 8, "unbindable": 8, "slave": 7, "shared": 7} {
		in, out, err := os.Pipe()
		must(t, err)
		spec := r.Spec(t, "sh", "-c", script)
		spec.Terminal, spec.ConsoleLog, spec.Stdio[0] = false, "", in
		spec.Capabilities = append(spec.Capabilities, "CAP_SYS_ADMIN")
		spec.RootPropagation = word
		id := "root " + word
		start(t, r.Harness, id, spec)
		late := filepath.Join(root, "late")
		must(t, unix.Mount("tmpfs", late, "tmpfs", 0, "size=4k"))
		_, err = out.WriteString("go\n")
		must(t, err)
		if e := wait(t, r.Harness, id); e.Code != want {
			t.Errorf("%q: %+v, want %d", word, e, want)
		}
		must(t, errors.Join(in.Close(), out.Close(), unix.Unmount(late, 0)))
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), root+"/inside ") {
			t.Errorf("%q: the container mounted on the host: %v", word, err)
		}
	}
}

func testBindMounts(t *testing.T, r real) {
	dir := source(t)
	r.expect(t, "cat /data/file /srv/a/b/file /dev/shm/in/file /etc/one; echo new >/data/new; cat /data/new; touch /etc/one && echo w", "data\ndata\ndata\ndata\nnew\nw\n",
		with(bind(dir, "/data", "rbind"), bind(dir, "/srv/a/b"), bind(dir, "/dev/shm/in"), bind(filepath.Join(dir, "file"), "/etc/one")))
	// Nothing of it is left on the host, and what was made for it is root's.
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(r.fixture.Rootfs, "srv/a/b"), &st))
	if st.Uid != HostID || st.Mode&0o777 != 0o755 {
		t.Errorf("mount point: %d %o", st.Uid, st.Mode)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), r.fixture.Rootfs) {
		t.Errorf("mounts on the host: %v, %s", err, mounts)
	}
	// One below another, and one over another.
	r.expect(t, "cat /data/sub/file; ls /over", "data\nfile\nsub\n",
		with(bind(dir, "/data"), bind(dir, "/data/sub"), bind("/dev/shm", "/over"), bind(dir, "/over")),
		func(s *process.Spec) { s.Args[2] = strings.Replace(s.Args[2], "ls", "rm -f /data/new; ls -1", 1) })
}

func testBindOptions(t *testing.T, r real) {
	dir := source(t)
	for options, want := range map[string]string{
		"":                           "rw,relatime",
		"ro":                         "ro,relatime",
		"ro,rw":                      "rw,relatime",
		"nosuid,nodev,noexec":        "rw,nosuid,nodev,noexec,relatime",
		"noatime,nodiratime":         "rw,noatime,nodiratime",
		"strictatime,nosymfollow":    "rw,nosymfollow",
		"rbind,rro,rnosuid,rnoatime": "ro,nosuid,noatime",
		"rbind,rro,rw":               "rw,relatime",
		"nosuid,suid,nodev,dev,noatime,relatime,defaults": "rw,relatime",
	} {
		out, _ := r.sh(t, line("/data"), with(bind(dir, "/data", strings.FieldsFunc(options, func(r rune) bool { return r == ',' })...)))
		if strings.TrimSpace(out) != want {
			t.Errorf("%s: %q, want %q", options, out, want)
		}
	}
	r.expect(t, "touch /data/x 2>/dev/null || echo ro", "ro\n", with(bind(dir, "/data", "ro")))
}

func testRecursiveOptions(t *testing.T, r real) {
	dir := source(t)
	tmpfs(t, filepath.Join(dir, "sub"))
	for options, want := range map[string]string{
		"bind": "", "rbind": "rw", "rbind,ro": "rw", "rbind,rro": "ro",
	} {
		out, _ := r.sh(t, line("/data/sub"), with(bind(dir, "/data", strings.Split(options, ",")...)))
		if got, _, _ := strings.Cut(strings.TrimSpace(out), ","); got != want {
			t.Errorf("%s: %q, want %q", options, out, want)
		}
	}
}

// testPropagation: what the host mounts later is seen where it was asked for,
// and nothing of the container reaches the host.
func testPropagation(t *testing.T, r real) {
	dir := source(t)
	tmpfs(t, dir)
	must(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
	must(t, os.Mkdir(filepath.Join(dir, "late"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "inside"), 0o777))
	must(t, os.Chmod(filepath.Join(dir, "inside"), 0o777))
	words := []string{"private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable"}
	const script = "mount -t tmpfs x /data/inside; read go; " +
		"grep -q '/data/late ' /proc/self/mountinfo && exit 7; exit 8"
	for _, word := range words {
		in, out, err := os.Pipe()
		must(t, err)
		spec := r.Spec(t, "sh", "-c", script)
		spec.Terminal, spec.ConsoleLog, spec.Stdio[0] = false, "", in
		spec.Capabilities = append(spec.Capabilities, "CAP_SYS_ADMIN")
		with(bind(dir, "/data", "rbind", word))(&spec)
		start(t, r.Harness, word, spec)
		late := filepath.Join(dir, "late")
		must(t, unix.Mount("tmpfs", late, "tmpfs", 0, "size=4k"))
		_, err = out.WriteString("go\n")
		must(t, err)
		want := 8
		if strings.Contains(word, "slave") || strings.Contains(word, "shared") {
			want = 7
		}
		if e := wait(t, r.Harness, word); e.Code != want {
			t.Errorf("%s: %+v, want %d", word, e, want)
		}
		must(t, errors.Join(in.Close(), out.Close(), unix.Unmount(late, 0)))
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), "/source/inside ") {
			t.Errorf("%s: the container mounted on the host: %v", word, err)
		}
	}
}

func testIDMappedMounts(t *testing.T, r real) {
	dir := filepath.Join(t.TempDir(), "ids")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "zero"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "five"), nil, 0o600))
	must(t, os.Chown(filepath.Join(dir, "five"), 5, 5))
	const script = "stat -c '%u:%g' /data/zero /data/five"
	r.expect(t, script, "65534:65534\n65534:65534\n", with(bind(dir, "/data")))
	r.expect(t, script, "0:0\n5:5\n", with(bind(dir, "/data", "idmap")))
	r.expect(t, script, "0:0\n5:5\n", with(bind(dir, "/data", "rbind", "ridmap")))
	own := bind(dir, "/data", "idmap")
	own.UIDMap = []process.IDMap{{ContainerID: 0, HostID: HostID + 7, Size: 1}, {ContainerID: 5, HostID: HostID + 8, Size: 1}}
	own.GIDMap = []process.IDMap{{ContainerID: 0, HostID: HostID, Size: 10}}
	r.expect(t, script, "7:0\n8:5\n", with(own))
	r.refuse(t, "of proc", errdefs.ErrInvalid, "set options of /data", with(bind("/proc", "/data", "idmap")))
	r.refuse(t, "of tmpfs", errdefs.ErrInvalid, "only a bind mount", with(process.Mount{Destination: "/data", Type: "tmpfs", Options: []string{"idmap"}}))
}

func testNewFileSystems(t *testing.T, r real) {
	r.expect(t, line("/run")+"; "+line("/run/lock")+"; stat -c %a /run /run/lock; touch /run/x 2>/dev/null || echo ro; touch /run/lock/x && echo w",
		"ro,nosuid,noatime\nrw,nosuid,nodev,noexec,relatime\n700\n1777\nro\nw\n", with(
			process.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "nosuid", "noatime", "mode=700", "size=1m"}},
			process.Mount{Destination: "/run/lock", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=1777"}}))
	r.expect(t, line("/mnt/proc"), "ro,relatime\n", with(process.Mount{Destination: "/mnt/proc", Type: "proc", Source: "proc", Options: []string{"ro"}}),
		func(s *process.Spec) { s.MaskedPaths = nil })
}

func testCopyUp(t *testing.T, r real) {
	root := r.fixture.Rootfs
	must(t, os.MkdirAll(filepath.Join(root, "var/data/deep"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "var/data/deep/file"), []byte("image\n"), 0o644))
	must(t, chownAll(root))
	must(t, os.Lchown(filepath.Join(root, "var/data"), HostID+3, HostID+4))
	must(t, unix.Chmod(filepath.Join(root, "var/data"), 0o1750))
	r.expect(t, "cd /var/data; stat -c '%a %u:%g' .; cat deep/file; echo more >>deep/file; cat deep/file; rm deep/file; ls deep; touch new; ("+line("/var/data")+") | busybox tail -n 1",
		"1750 3:4\nimage\nimage\nmore\nrw,nosuid,relatime\n", with(process.Mount{
			Destination: "/var/data", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "nosuid", "size=1m"},
		}), func(s *process.Spec) {
			s.Args[2] = strings.Replace(s.Args[2], "rm", "busybox rm", 1) + " | busybox tail -n 1"
		})
	data, err := os.ReadFile(filepath.Join(root, "var/data/deep/file"))
	if err != nil || string(data) != "image\n" {
		t.Errorf("the image has changed: %q, %v", data, err)
	}
}

func testMountErrors(t *testing.T, r real) {
	dir := source(t)
	must(t, os.WriteFile(filepath.Join(r.fixture.Rootfs, "file"), nil, 0o644))
	m := func(to, kind, from string, options ...string) process.Mount {
		return process.Mount{Destination: to, Type: kind, Source: from, Options: options}
	}
	for name, tt := range map[string]struct {
		mount process.Mount
		text  string
	}{
		"absent source":         {bind("/no/such", "/data"), "open source of /data"},
		"directory on a file":   {bind(dir, "/file"), "mount file"},
		"file on a directory":   {bind(filepath.Join(dir, "file"), "/etc"), "mount etc"},
		"below a file":          {bind(dir, "/file/x"), "make mount point /file/x"},
		"unknown file system":   {m("/data", "nosuchfs", ""), "nosuchfs"},
		"unknown option":        {m("/data", "tmpfs", "", "nonsense=1"), "nonsense=1"},
		"bad value":             {m("/data", "tmpfs", "", "mode=x"), "mode=x"},
		"option of a bind":      {bind(dir, "/data", "size=1m"), "size=1m"},
		"remount":               {bind(dir, "/data", "remount"), "remount"},
		"relative source":       {bind("data", "/data"), "absolute"},
		"relative target":       {bind(dir, "data"), "data"},
		"dots":                  {bind(dir, "/a/../../data"), "a/../.."},
		"over the root":         {bind(dir, "/"), "\"/\""},
		"no type":               {m("/data", "", "tmpfs"), "type"},
		"tmpfs on attr":         {m("/proc/self/attr", "tmpfs", "tmpfs"), "/proc/self/attr"},
		"bind on sysrq":         {bind(dir, "/proc/sysrq-trigger"), "/proc/sysrq-trigger"},
		"tmpfs on proc":         {m("/proc", "tmpfs", "tmpfs"), "/proc"},
		"tmpfs on sys":          {m("/sys/", "tmpfs", "tmpfs"), "/sys"},
		"proc by another name":  {m("//proc/./self", "tmpfs", "tmpfs"), "/proc/self"},
		"absent place in sysfs": {bind(dir, "/sys/nosuch"), "sys/nosuch"},
	} {
		r.refuse(t, name, errdefs.ErrInvalid, tt.text, with(tt.mount))
	}
	r.expect(t, "cat /proc/meminfo", "data\n", with(bind(filepath.Join(dir, "file"), "/proc/meminfo")))
	// Files that a mount would hide.
	r.refuse(t, "hidden file", errdefs.ErrInvalid, "hidden", with(m("/run", "tmpfs", "")), func(s *process.Spec) {
		s.Files = []process.File{{Path: "/run/x"}}
	})
}

// testMountsInLinks: mount points that links of the image lead to are found
// inside the root, and never in a file system of the kernel.
func testMountsInLinks(t *testing.T, r real) {
	root, dir := r.fixture.Rootfs, source(t)
	host, check := canary(t)
	must(t, os.Mkdir(filepath.Join(root, "real"), 0o755))
	for name, target := range map[string]string{
		"abs": "/real", "up": strings.Repeat("../", 20) + "real", "attr": "/proc/self/attr", "sysrq": "/proc/sysrq-trigger",
		"fd": "/proc/self/fd/3", "out": host, "loop": "loop", "sysfs": "/sys/kernel", "root": "/",
	} {
		must(t, os.Symlink(target, filepath.Join(root, name)))
	}
	must(t, chownAll(root))
	r.expect(t, "cat /real/file", "data\n", with(bind(dir, "/abs")))
	r.expect(t, "cat /real/file", "data\n", with(bind(dir, "/up")))
	r.expect(t, "cat /real/in/file", "data\n", with(bind(dir, "/abs/in")))
	for _, name := range []string{"attr", "sysrq", "fd", "out", "loop", "sysfs", "root/proc/self"} {
		spec := r.Spec(t, "sh", "-c", "test -f /proc/self/status && test ! -e /proc/self/file && test ! -e /proc/self/attr/file && "+
			"test ! -e /sys/kernel/file && ! grep data /proc/sysrq-trigger && echo kernel")
		with(bind(dir, "/"+name))(&spec)
		_, err := r.Runner.Start(bounded(t), "link", spec)
		check()
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		wait(t, r.Harness, "link")
		if out := tail(t, spec.ConsoleLog); !strings.HasSuffix(out, "kernel\n") {
			t.Errorf("%s: mounted on the kernel's: %q", name, out)
		}
		Reap(t, r.Runner, "link")
	}
}

func testMadeDevices(t *testing.T, r real) {
	host := func(s *process.Spec) {
		asHostRoot()(s)
		s.Hostname = ""
	}
	r.expect(t, "cd /dev; stat -c '%n %a %t:%T' null zero full random urandom tty; echo x >null && echo ok",
		"null 666 1:3\nzero 666 1:5\nfull 666 1:7\nrandom 666 1:8\nurandom 666 1:9\ntty 666 5:0\nok\n", host)
	r.expect(t, "stat -c '%n %F %a %u:%g %t:%T' /dev/a /dev/dir/b /dev/p /dev/null", strings.Join([]string{
		"/dev/a character special file 640 3:4 a:2e", "/dev/dir/b block special file 600 0:0 8:29a", "/dev/p fifo 644 0:0 0:0",
		"/dev/null character special file 600 0:0 1:3", "",
	}, "\n"), host, func(s *process.Spec) {
		s.Devices = []process.Device{
			{Path: "/dev/a", Type: 'c', Major: 10, Minor: 46, Mode: 0o640, UID: 3, GID: 4},
			{Path: "/dev/dir/b", Type: 'b', Major: 8, Minor: 666, Mode: 0o600},
			{Path: "/dev/p", Type: 'p', Mode: 0o644},
			{Path: "/dev/null", Type: 'c', Major: 1, Minor: 3, Mode: 0o600},
		}
	})
}

func testBoundDevices(t *testing.T, r real) {
	dev := func(d process.Device) func(*process.Spec) {
		return func(s *process.Spec) { s.Devices = append(s.Devices, d) }
	}
	r.expect(t, "stat -c '%n %t:%T' /dev/kmsg /dev/null; stat -c '%F %a' /dev/p", "/dev/kmsg 1:b\n/dev/null 1:3\nfifo 622\n",
		dev(process.Device{Path: "/dev/kmsg", Type: 'c', Major: 1, Minor: 11}),
		dev(process.Device{Path: "/dev/null", Type: 'c', Major: 1, Minor: 3}),
		dev(process.Device{Path: "/dev/p", Type: 'p', Mode: 0o622}))
	for name, d := range map[string]process.Device{
		"absent":        {Path: "/dev/no-such", Type: 'c', Major: 10, Minor: 237},
		"other number":  {Path: "/dev/null", Type: 'c', Major: 1, Minor: 5},
		"other type":    {Path: "/dev/null", Type: 'b', Major: 1, Minor: 3},
		"unknown type":  {Path: "/dev/x", Type: 'x'},
		"in proc":       {Path: "/proc/x", Type: 'c', Major: 1, Minor: 3},
		"huge number":   {Path: "/dev/x", Type: 'c', Major: 1 << 33},
		"negative":      {Path: "/dev/x", Type: 'c', Major: -1},
		"relative":      {Path: "dev/x", Type: 'c', Major: 1, Minor: 3},
		"path upwards":  {Path: "/dev/../x", Type: 'c', Major: 1, Minor: 3},
		"on a mount":    {Path: "/dev/pts", Type: 'c', Major: 1, Minor: 3},
		"host's memory": {Path: "/dev/mem0", Type: 'c', Major: 1, Minor: 1},
	} {
		r.refuse(t, name, errdefs.ErrInvalid, "device", dev(d))
	}
}

func testMaskedOfImage(t *testing.T, r real) {
	root := r.fixture.Rootfs
	must(t, os.MkdirAll(filepath.Join(root, "secret/dir"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "secret/dir/a"), []byte("a"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "secret/file"), []byte("b"), 0o644))
	must(t, os.Symlink("/secret/file", filepath.Join(root, "link")))
	must(t, chownAll(root))
	r.expect(t, "ls /secret/dir; cat /secret/file /link; touch /bin/x 2>/dev/null || echo ro", "ro\n", func(s *process.Spec) {
		s.MaskedPaths = append(s.MaskedPaths, "/secret/dir", "/link")
		s.ReadonlyPaths = append(s.ReadonlyPaths, "/bin")
	})
	r.refuse(t, "link of the kernel", errdefs.ErrInvalid, "mask /proc/mounts", func(s *process.Spec) { s.MaskedPaths = []string{"/proc/mounts"} })
}

func testSysctlsOfNamespaces(t *testing.T, r real) {
	set := func(key, val string) func(*process.Spec) {
		return func(s *process.Spec) { s.Sysctls = map[string]string{key: val} }
	}
	for key, val := range map[string]string{
		"kernel.shmmax": "1048576", "kernel.msgmax": "4096", "fs.mqueue.msg_max": "20", "kernel.domainname": "d",
		"net.ipv4.conf.lo.forwarding": "1", "net/ipv4/conf/lo/forwarding": "1", "kernel.sem": "100\t200\t30\t40",
	} {
		file := key
		if !strings.Contains(key, "/") {
			file = strings.ReplaceAll(key, ".", "/")
		}
		r.expect(t, "cat /proc/sys/"+file, val+"\n", set(key, val))
	}
	// Without a /proc of its own it is set all the same.
	r.expect(t, "exit $(cat /data/sys/net/ipv4/ip_unprivileged_port_start)", "", set("net.ipv4.ip_unprivileged_port_start", "0"), func(s *process.Spec) {
		s.Mounts = append(slices.Clone(s.Mounts[1:5]), process.Mount{Destination: "/data", Type: "proc"})
		s.MaskedPaths, s.ReadonlyPaths = nil, nil
	})
	for _, key := range []string{"kernel.hostname", "kernel.panic", "vm.swappiness", "kernel.shm_made_up", "user.max_user_namespaces"} {
		r.refuse(t, key, errdefs.ErrInvalid, "sysctl", set(key, "1"))
	}
	drop := func(kind process.NamespaceKind) func(*process.Spec) {
		return func(s *process.Spec) {
			s.Namespaces = slices.DeleteFunc(slices.Clone(s.Namespaces), func(n process.Namespace) bool { return n.Kind == kind })
		}
	}
	r.refuse(t, "ipc", errdefs.ErrInvalid, "ipc", set("kernel.shmmax", "1"), drop(process.IPCNamespace))
	r.refuse(t, "net", errdefs.ErrInvalid, "network", set("net.ipv4.ip_forward", "1"), drop(process.NetworkNamespace))
	r.refuse(t, "host's net by its path", errdefs.ErrInvalid, "network", set("net.ipv4.ip_forward", "1"),
		func(s *process.Spec) { s.Namespaces[1].Path = fmt.Sprintf("/proc/%d/ns/net", os.Getpid()) })
}
