package process

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-project/gantry/internal/errdefs"
	"golang.org/x/sys/unix"
)

// placesSpec uses everything that concerns the place of a process.
func placesSpec() *Spec {
	s := goldenSpec()
	s.Namespaces = []Namespace{
		{Kind: UserNamespace},
		{Kind: MountNamespace},
		{Kind: PIDNamespace, Path: "/ns/pid"},
		{Kind: IPCNamespace},
		{Kind: NetworkNamespace},
		{Kind: UTSNamespace},
		{Kind: TimeNamespace},
		{Kind: CgroupNamespace},
	}
	s.UIDMap = []IDMap{{0, 1000000, 65536}}
	s.GIDMap = []IDMap{{0, 1000000, 65536}}
	s.TimeOffsets = map[string]time.Duration{"boottime": time.Hour, "monotonic": -time.Millisecond}
	s.Domainname, s.RootPropagation, s.RootReadonly = "example.org", "shared", true
	s.Mounts = append(DefaultMounts()[:6:6],
		Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Options: []string{"ro"}},
		Mount{Destination: "/data", Type: "bind", Source: "/srv/data", Options: []string{"rbind", "ro", "rnosuid", "rslave"}},
		Mount{
			Destination: "/data/own", Type: "bind", Source: "/srv/own", Options: []string{"idmap"},
			UIDMap: []IDMap{{0, 5, 1}}, GIDMap: []IDMap{{0, 5, 1}},
		},
		Mount{Destination: "/dev/shm/in", Type: "bind", Source: "/srv/in", Options: []string{"shared", "noatime"}},
		Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "nosuid", "mode=700"}},
		Mount{Destination: "/var", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	s.Devices = []Device{
		{Path: "/dev/fuse", Type: 'c', Major: 10, Minor: 229},
		{Path: "/dev/pipe", Type: 'p', Mode: 0o640, UID: 3, GID: 4},
	}
	s.Sysctls = map[string]string{"kernel.shmmax": "1", "net.ipv4.ip_forward": "1", "kernel.domainname": "d"}
	s.ReadonlyPaths = append(s.ReadonlyPaths, "/etc")
	return s
}

// hybridFacts are those of a host with v1 and v2.
func hybridFacts() facts {
	return facts{cgroups: []hierarchy{
		{name: "cpu,cpuacct", options: []string{"cpu", "cpuacct"}}, {name: "systemd", options: []string{"none", "name=systemd"}}, {name: "unified"},
	}}
}

// hostSpec has none of the default namespaces but that of mounts.
func hostSpec() *Spec {
	s := goldenSpec()
	s.Namespaces = []Namespace{{Kind: MountNamespace, Path: "/ns/mnt"}}
	s.Mounts, s.Sysctls, s.Hostname = DefaultMounts(), nil, ""
	s.Devices = []Device{{Path: "/dev/sda", Type: 'b', Major: 8, Mode: 0o600, GID: 6}}
	return s
}

func TestBadPlaces(t *testing.T) {
	mount := func(m Mount) func(*Spec) { return func(s *Spec) { s.Mounts = append(s.Mounts, m) } }
	for name, change := range map[string]func(*Spec){
		"namespace twice":          func(s *Spec) { s.Namespaces = append(s.Namespaces, Namespace{Kind: UserNamespace}) },
		"no kind":                  func(s *Spec) { s.Namespaces = append(s.Namespaces, Namespace{}) },
		"relative namespace":       func(s *Spec) { s.Namespaces[2].Path = "ns" },
		"NUL in a namespace":       func(s *Spec) { s.Namespaces[2].Path = "/ns\x00" },
		"map without namespace":    func(s *Spec) { s.Namespaces[0].Path = "/ns/user" },
		"no uid map":               func(s *Spec) { s.UIDMap = nil },
		"empty range":              func(s *Spec) { s.UIDMap[0].Size = 0 },
		"range beyond the end":     func(s *Spec) { s.GIDMap[0].HostID = 1<<32 - 5 },
		"too many ranges":          func(s *Spec) { s.UIDMap = slices.Repeat(s.UIDMap, 341) },
		"clock":                    func(s *Spec) { s.TimeOffsets["realtime"] = 1 },
		"centuries":                func(s *Spec) { s.TimeOffsets["boottime"] = 250 * 365 * 24 * time.Hour },
		"least duration":           func(s *Spec) { s.TimeOffsets["boottime"] = -1 << 63 },
		"offset of a joined":       func(s *Spec) { s.Namespaces[6].Path = "/ns/time" },
		"offset without namespace": func(s *Spec) { s.Namespaces = slices.Delete(s.Namespaces, 6, 7) },
		"no mount namespace":       func(s *Spec) { s.Namespaces = slices.Delete(s.Namespaces, 1, 2) },
		"domain name":              func(s *Spec) { s.Domainname = "a b" },
		"long domain name":         func(s *Spec) { s.Domainname = strings.Repeat("x", 65) },
		"host name without uts":    func(s *Spec) { s.Namespaces = slices.Delete(s.Namespaces, 5, 6) },
		"root propagation":         func(s *Spec) { s.RootPropagation = "rshared" },
		"many mounts":              func(s *Spec) { s.Mounts = slices.Repeat(s.Mounts[:1], 1025) },
		"NUL in a target":          mount(Mount{Destination: "/a\x00", Type: "tmpfs"}),
		"NUL in a type":            mount(Mount{Destination: "/a", Type: "tmp\x00fs"}),
		"NUL in an option":         mount(Mount{Destination: "/a", Type: "tmpfs", Options: []string{"mode=\x00"}}),
		"NUL in a source":          mount(Mount{Destination: "/a", Type: "bind", Source: "/\x00"}),
		"long target":              mount(Mount{Destination: "/" + strings.Repeat("x", 4096), Type: "tmpfs"}),
		"slash in a type":          mount(Mount{Destination: "/a", Type: "tmp/fs"}),
		"empty option":             mount(Mount{Destination: "/a", Type: "tmpfs", Options: []string{""}}),
		"one map":                  mount(Mount{Destination: "/a", Type: "bind", Source: "/a", UIDMap: []IDMap{{0, 1, 1}}}),
		"copy up of proc":          mount(Mount{Destination: "/a", Type: "proc", Options: []string{"tmpcopyup"}}),
		"maps of a tmpfs":          mount(Mount{Destination: "/a", Type: "tmpfs", UIDMap: []IDMap{{0, 1, 1}}, GIDMap: []IDMap{{0, 1, 1}}}),
		"over proc/self":           mount(Mount{Destination: "/proc/self", Type: "bind", Source: "/a"}),
		"sysfs on proc":            mount(Mount{Destination: "/proc", Type: "sysfs"}),
		"proc on sys":              mount(Mount{Destination: "/sys", Type: "proc"}),
		"device twice":             func(s *Spec) { s.Devices = append(s.Devices, s.Devices[0]) },
		"device mode":              func(s *Spec) { s.Devices[0].Mode = 1 << 20 },
		"device owner":             func(s *Spec) { s.Devices[0].UID = 1 << 31 },
		"device with slash":        func(s *Spec) { s.Devices[0].Path = "/dev/fuse/" },
		"file below a mount":       func(s *Spec) { s.Files = []File{{Path: "/data/x"}} },
		"files of a disk":          func(s *Spec) { s.Mounts = []Mount{{Destination: "/d", Type: "ext4", Files: []File{{Path: "x"}}}} },
		"a file's way out":         func(s *Spec) { s.Mounts = []Mount{{Destination: "/d", Type: "tmpfs", Files: []File{{Path: "../x"}}}} },
		"an absolute file":         func(s *Spec) { s.Mounts = []Mount{{Destination: "/d", Type: "tmpfs", Files: []File{{Path: "/x"}}}} },
		"a link without a target": func(s *Spec) {
			s.Mounts = []Mount{{Destination: "/d", Type: "tmpfs", Links: map[string]string{"x": ""}}}
		},
		"mask of all":   func(s *Spec) { s.MaskedPaths = []string{"/."} },
		"sysctl of ipc": func(s *Spec) { s.Namespaces = slices.Delete(s.Namespaces, 3, 4) },
	} {
		spec := placesSpec()
		change(spec)
		if err := Validate(spec); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, spec := range []*Spec{placesSpec(), hostSpec()} {
		if err := Validate(spec); err != nil {
			t.Error(err)
		}
	}
}

func TestMountOptions(t *testing.T) {
	for text, want := range map[string]mountOptions{
		"":                         {},
		"ro,nosuid":                {set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID},
		"ro,rw":                    {clear: unix.MOUNT_ATTR_RDONLY},
		"rw,ro":                    {set: unix.MOUNT_ATTR_RDONLY},
		"noatime":                  {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
		"noatime,strictatime":      {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
		"noatime,relatime":         {clear: unix.MOUNT_ATTR__ATIME},
		"rro,rdev":                 {setAll: unix.MOUNT_ATTR_RDONLY, clearAll: unix.MOUNT_ATTR_NODEV},
		"shared,rslave":            {propagation: unix.MS_SLAVE, propagateAll: true},
		"rbind,private":            {bind: true, all: true, propagation: unix.MS_PRIVATE},
		"sync,defaults,size=1,ugo": {flags: []string{"sync"}, data: []string{"size=1", "ugo"}},
	} {
		m := Mount{Destination: "/a", Type: "tmpfs", Options: strings.FieldsFunc(text, func(r rune) bool { return r == ',' })}
		got, err := m.options()
		if err != nil || !slices.Equal(got.flags, want.flags) || !slices.Equal(got.data, want.data) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		got.flags, got.data, want.flags, want.data = nil, nil, nil, nil
		if gotText, wantText := asJSON(t, got), asJSON(t, want); gotText != wantText || !sameNumbers(got, want) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sameNumbers(a, b mountOptions) bool {
	return a.set == b.set && a.clear == b.clear && a.setAll == b.setAll && a.clearAll == b.clearAll &&
		a.propagation == b.propagation && a.propagateAll == b.propagateAll && a.bind == b.bind && a.all == b.all
}

func TestParseHierarchies(t *testing.T) {
	const mountinfo = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:4 - cgroup cgroup rw,xattr,cpu,cpuacct,clone_children
33 31 0:30 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/a,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
50 31 0:30 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls
42 31 0:38 / /mnt/cgroup rw - cgroup2 cgroup2 rw
short line
`
	got := parseHierarchies(mountinfo)
	want := []hierarchy{
		{name: "cpu,cpuacct", options: []string{"cpu", "cpuacct"}},
		{name: "net_cls", options: []string{"net_cls"}},
		{name: "systemd", options: []string{"none", "name=systemd"}},
		{name: "unified"},
	}
	if !slices.EqualFunc(got, want, func(a, b hierarchy) bool { return a.name == b.name && slices.Equal(a.options, b.options) }) {
		t.Errorf("%+v", got)
	}
	v2 := parseHierarchies("29 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n")
	if len(v2) != 1 || !v2[0].v2() || v2[0].name != "" {
		t.Errorf("%+v", v2)
	}
}

// FuzzMountOptions: whatever is understood is consistent.
func FuzzMountOptions(f *testing.F) {
	for _, seed := range []string{"ro,nosuid", "rbind,rro,rslave", "idmap,bind", "mode=755,size=64k", "rnoatime,strictatime", "tmpcopyup"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []string{"bind", "tmpfs"} {
			m := Mount{Destination: "/a", Type: kind, Source: "/b", Options: strings.Split(text, ",")}
			o, err := m.options()
			if err != nil {
				if !errors.Is(err, errdefs.ErrInvalid) {
					t.Fatal(err)
				}
				continue
			}
			for _, pair := range [][2]uint64{{o.set, o.clear}, {o.setAll, o.clearAll}} {
				if pair[0]&pair[1]&^unix.MOUNT_ATTR__ATIME != 0 || pair[1]&unix.MOUNT_ATTR__ATIME != 0 && pair[1]&unix.MOUNT_ATTR__ATIME != unix.MOUNT_ATTR__ATIME {
					t.Fatalf("set %#x, clear %#x", pair[0], pair[1])
				}
			}
			if kind == "bind" && len(o.data) > 0 {
				t.Fatalf("data of a bind mount: %q", o.data)
			}
		}
	})
}

// FuzzSpec: a Spec that is valid compiles to a sound program.
func FuzzSpec(f *testing.F) {
	for _, s := range []*Spec{goldenSpec(), placesSpec(), hostSpec()} {
		s.CgroupFiles = nil
		b, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Spec
		if json.Unmarshal(b, &s) != nil || s.Join != "" {
			return
		}
		err := s.validate()
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, errdefs.ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		for _, host := range []facts{goldenFacts(), hybridFacts()} {
			p, err := compile(&s, host)
			if errors.Is(err, errdefs.ErrUnsupported) || errors.Is(err, errdefs.ErrInvalid) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			checkSound(t, p)
			if _, err := p.encode(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
