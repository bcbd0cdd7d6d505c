package doctor_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gantry-project/gantry/internal/doctor"
)

// healthy is a host on which every check of its files passes.
var healthy = map[string]string{
	"proc/sys/kernel/osrelease":                  "6.1.0-18-amd64\n",
	"proc/sys/user/max_user_namespaces":          "96365\n",
	"proc/filesystems":                           "nodev\tsysfs\nnodev\toverlay\n\text4\n",
	"proc/sys/kernel/seccomp/actions_avail":      "kill_process kill_thread trap errno user_notif trace log allow\n",
	"proc/self/ns/user":                          "",
	"proc/self/ns/cgroup":                        "",
	"proc/self/ns/ipc":                           "",
	"proc/self/ns/mnt":                           "",
	"proc/self/ns/net":                           "",
	"proc/self/ns/pid":                           "",
	"proc/self/ns/time":                          "",
	"proc/self/ns/uts":                           "",
	"proc/self/status":                           "Name:\tx\nCapEff:\t000001ffffffffff\n",
	"sys/fs/cgroup/cgroup.controllers":           "cpuset cpu io memory pids\n",
	"dev/loop-control":                           "",
	"proc/sys/fs/protected_symlinks":             "1\n",
	"proc/sys/fs/protected_hardlinks":            "1\n",
	"proc/sys/fs/protected_fifos":                "1\n",
	"proc/sys/fs/protected_regular":              "2\n",
	"proc/sys/kernel/unprivileged_bpf_disabled":  "2\n",
	"proc/sys/kernel/kptr_restrict":              "1\n",
	"proc/sys/kernel/dmesg_restrict":             "1\n",
	"proc/sys/kernel/io_uring_disabled":          "2\n",
	"proc/sys/vm/memfd_noexec":                   "0\n",
	"proc/sys/vm/max_map_count":                  "65530\n",
	"proc/sys/kernel/pid_max":                    "4194304\n",
	"proc/sys/fs/inotify/max_user_instances":     "128\n",
	"proc/sys/net/netfilter/nf_conntrack_max":    "262144\n",
	"proc/self/uid_map":                          "         0          0 4294967295\n",
	"proc/self/gid_map":                          "         0          0 4294967295\n",
	"etc/passwd":                                 "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n",
	"etc/group":                                  "root:x:0:\nusers:x:100:me,you\n",
	"etc/subuid":                                 "me:100000:65536\n",
	"etc/subgid":                                 "me:100000:65536\n",
	"sys/module/veth/refcnt":                     "0\n",
	"lib/modules/6.1.0-18-amd64/modules.builtin": "kernel/net/bridge/bridge.ko\nkernel/net/netfilter/nf_tables.ko\n",
	"lib/modules/6.1.0-18-amd64/modules.dep":     "kernel/net/bridge/br_netfilter.ko: kernel/net/bridge/bridge.ko\nkernel/drivers/net/ifb.ko.xz:\nkernel/drivers/net/vxlan/vxlan.ko.zst: kernel/net/ipv4/udp_tunnel.ko.zst\n",
	"boot/config-6.1.0-18-amd64":                 "# a comment\nCONFIG_TUN=y\n",
}

// host makes a host of files; an empty value in changes removes one.
func host(t *testing.T, changes map[string]string) *doctor.Host {
	t.Helper()
	root := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range healthy {
		write(name, text)
	}
	for name, text := range changes {
		if text == "" {
			if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(name, text)
	}
	return &doctor.Host{
		Root: root, Store: filepath.Join(root, "not", "made", "yet"),
		LookPath: func(name string) (string, error) { return "/bin/" + name, nil },
		Output: func(context.Context, string, ...string) ([]byte, error) {
			return []byte("Version: 4.2\nGitID: x\n"), nil
		},
		Clock: func() (doctor.Clock, error) { return doctor.Clock{Synchronised: true, Error: time.Millisecond}, nil },
	}
}

func all() []doctor.Check {
	return append(append(doctor.Kernel(), doctor.Settings()...), doctor.IDs(1_000_000, 65536))
}

func result(t *testing.T, h *doctor.Host, name string) doctor.Result {
	t.Helper()
	checks := all()
	i := slices.IndexFunc(checks, func(c doctor.Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no check %q", name)
	}
	return doctor.Run(t.Context(), h, checks[i:i+1])[0]
}

// ofThisMachine are checks that ask the kernel and not files.
var ofThisMachine = []string{"root", "disk-space", "disk-inodes", "open-files"}

func TestAHealthyHost(t *testing.T) {
	for _, r := range doctor.Run(t.Context(), host(t, nil), all()) {
		if !slices.Contains(ofThisMachine, r.Name) && (r.Level != doctor.OK || r.Costs != "" || r.Remedy != "") {
			t.Errorf("%+v", r)
		}
	}
}

func TestWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		check   string
		changes map[string]string
		want    doctor.Level
	}{
		"old kernel":            {"kernel", map[string]string{"proc/sys/kernel/osrelease": "5.10.0-9"}, doctor.Fail},
		"kernel before 6.1":     {"kernel", map[string]string{"proc/sys/kernel/osrelease": "5.19.17"}, doctor.Warn},
		"kernel with words":     {"kernel", map[string]string{"proc/sys/kernel/osrelease": "six"}, doctor.Fail},
		"kernel unknown":        {"kernel", map[string]string{"proc/sys/kernel/osrelease": ""}, doctor.Fail},
		"newer kernel":          {"kernel", map[string]string{"proc/sys/kernel/osrelease": "7.0-rc1"}, doctor.OK},
		"no user namespaces":    {"user-namespaces", map[string]string{"proc/sys/user/max_user_namespaces": "0"}, doctor.Fail},
		"few user namespaces":   {"user-namespaces", map[string]string{"proc/sys/user/max_user_namespaces": "10"}, doctor.Warn},
		"not compiled":          {"user-namespaces", map[string]string{"proc/self/ns/user": ""}, doctor.Fail},
		"no time namespace":     {"namespaces", map[string]string{"proc/self/ns/time": ""}, doctor.Fail},
		"no overlay":            {"overlay", map[string]string{"proc/filesystems": "ext4"}, doctor.Warn},
		"no seccomp":            {"seccomp", map[string]string{"proc/sys/kernel/seccomp/actions_avail": ""}, doctor.Fail},
		"no notification":       {"seccomp", map[string]string{"proc/sys/kernel/seccomp/actions_avail": "errno"}, doctor.Note},
		"no cgroups":            {"cgroup-layout", map[string]string{"sys/fs/cgroup/cgroup.controllers": ""}, doctor.Fail},
		"hybrid":                {"cgroup-layout", map[string]string{"sys/fs/cgroup/cgroup.controllers": "", "sys/fs/cgroup/unified/cgroup.controllers": "hugetlb"}, doctor.OK},
		"v1":                    {"cgroup-layout", map[string]string{"sys/fs/cgroup/cgroup.controllers": "", "sys/fs/cgroup/memory/tasks": "1"}, doctor.OK},
		"no pids":               {"cgroup-controllers", map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpuset cpu memory"}, doctor.Fail},
		"no cpuset":             {"cgroup-controllers", map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpu memory pids"}, doctor.Warn},
		"no loop devices":       {"loop-devices", map[string]string{"dev/loop-control": ""}, doctor.Note},
		"open links":            {"sysctl fs.protected_symlinks", map[string]string{"proc/sys/fs/protected_symlinks": "0"}, doctor.Warn},
		"no memfd exec":         {"sysctl vm.memfd_noexec", map[string]string{"proc/sys/vm/memfd_noexec": "2"}, doctor.Fail},
		"old without noexec":    {"sysctl vm.memfd_noexec", map[string]string{"proc/sys/vm/memfd_noexec": ""}, doctor.OK},
		"nonsense":              {"sysctl kernel.kptr_restrict", map[string]string{"proc/sys/kernel/kptr_restrict": "x"}, doctor.Warn},
		"no conntrack":          {"sysctl net.netfilter.nf_conntrack_max", map[string]string{"proc/sys/net/netfilter/nf_conntrack_max": ""}, doctor.OK},
		"small conntrack":       {"sysctl net.netfilter.nf_conntrack_max", map[string]string{"proc/sys/net/netfilter/nf_conntrack_max": "100"}, doctor.Warn},
		"no CAP_SYS_RESOURCE":   {"resource-capability", map[string]string{"proc/self/status": "CapEff:\t0000000000000000\n"}, doctor.Note},
		"no status":             {"resource-capability", map[string]string{"proc/self/status": "x"}, doctor.Warn},
		"no veth":               {"module veth", map[string]string{"sys/module/veth/refcnt": "", "sys/module/veth": ""}, doctor.Fail},
		"veth to be loaded":     {"module veth", map[string]string{"sys/module/veth": "", "lib/modules/6.1.0-18-amd64/modules.dep": "kernel/drivers/net/veth.ko.gz:\n"}, doctor.OK},
		"no bridge":             {"module bridge", map[string]string{"lib/modules/6.1.0-18-amd64/modules.builtin": "kernel/net/bridge/mybridge.ko"}, doctor.Warn},
		"only depended on":      {"module bridge", map[string]string{"lib/modules/6.1.0-18-amd64/modules.builtin": ""}, doctor.Warn},
		"no tun":                {"module tun", map[string]string{"boot/config-6.1.0-18-amd64": "# CONFIG_TUN is not set\nCONFIG_TUNE=y\n"}, doctor.Note},
		"nobody knows":          {"module vxlan", map[string]string{"lib": "", "boot": ""}, doctor.Note},
		"nobody knows veth":     {"module veth", map[string]string{"lib": "", "boot": "", "sys/module": ""}, doctor.Note},
		"no release":            {"module vxlan", map[string]string{"proc/sys/kernel/osrelease": ""}, doctor.Note},
		"a broken config.gz":    {"module tun", map[string]string{"proc/config.gz": "no gzip"}, doctor.OK},
		"no ids":                {"id-ranges", map[string]string{"proc/self/uid_map": "0 1000 1\n1 100000 65535\n"}, doctor.Fail},
		"few ids":               {"id-ranges", map[string]string{"proc/self/gid_map": "0 0 5000000\n"}, doctor.Warn},
		"ids in parts":          {"id-ranges", map[string]string{"proc/self/uid_map": "0 0 1000000\nx\n1000000 1000000 1000000000\n"}, doctor.OK},
		"no map":                {"id-ranges", map[string]string{"proc/self/uid_map": ""}, doctor.Fail},
		"a user with a high id": {"id-ranges", map[string]string{"etc/passwd": "root:x:0:0\nad:x:1234567:100::/:/bin/sh\n"}, doctor.Warn},
		"a group":               {"id-ranges", map[string]string{"etc/group": "ad:x:1234567:\n"}, doctor.Warn},
		"subordinate ids":       {"id-ranges", map[string]string{"etc/subuid": "me:100000:65536\nyou:999999:2\n"}, doctor.Warn},
		"ids just below":        {"id-ranges", map[string]string{"etc/subgid": "me:934464:65536\n"}, doctor.OK},
		"nonsense of ids":       {"id-ranges", map[string]string{"etc/subgid": "me:x:y\n::\nme:5000000:-1\n\n", "etc/passwd": "a\nnobody:x:4294967295:0\n"}, doctor.OK},
		"no files of ids":       {"id-ranges", map[string]string{"etc": ""}, doctor.OK},
	} {
		t.Run(name, func(t *testing.T) {
			r := result(t, host(t, c.changes), c.check)
			if ok := r.Level == doctor.OK; r.Level != c.want || ok != (r.Costs == "") || ok != (r.Remedy == "") || r.Found == "" {
				t.Errorf("%+v, want %s", r, c.want)
			}
		})
	}
}

func TestCriu(t *testing.T) {
	for name, c := range map[string]struct {
		lookup error
		output string
		run    error
		want   doctor.Level
	}{
		"new":         {nil, "Version: 4.2\n", nil, doctor.OK},
		"newer":       {nil, "Version: 5.0.1\n", nil, doctor.OK},
		"Debian 12's": {nil, "Version: 3.17.1\n", nil, doctor.Note},
		"silent":      {nil, "", nil, doctor.Note},
		"fails":       {nil, "", errors.New("exit status 1"), doctor.Note},
		"absent":      {exec.ErrNotFound, "", nil, doctor.Note},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, nil)
			h.LookPath = func(string) (string, error) { return "/usr/sbin/criu", c.lookup }
			h.Output = func(context.Context, string, ...string) ([]byte, error) { return []byte(c.output), c.run }
			if r := result(t, h, "criu"); r.Level != c.want {
				t.Errorf("%+v, want %s", r, c.want)
			}
		})
	}
}

func TestClock(t *testing.T) {
	for name, c := range map[string]struct {
		clock doctor.Clock
		err   error
		want  doctor.Level
	}{
		"kept":        {doctor.Clock{Synchronised: true, Error: 5 * time.Millisecond}, nil, doctor.OK},
		"nobody does": {doctor.Clock{}, nil, doctor.Warn},
		"badly":       {doctor.Clock{Synchronised: true, Error: 8 * time.Second}, nil, doctor.Warn},
		"refused":     {doctor.Clock{}, errors.New("not permitted"), doctor.Warn},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, nil)
			h.Clock = func() (doctor.Clock, error) { return c.clock, c.err }
			if r := result(t, h, "clock"); r.Level != c.want {
				t.Errorf("%+v, want %s", r, c.want)
			}
		})
	}
	if _, err := doctor.KernelClock(); err != nil {
		t.Error(err)
	}
}

// TestTogether: checks that wait for one another end, in the order of the list.
func TestTogether(t *testing.T) {
	first, second := make(chan struct{}), make(chan struct{})
	checks := []doctor.Check{
		{Name: "a", Costs: "costs", Remedy: "remedy", Run: func(context.Context, *doctor.Host) (doctor.Level, string) {
			close(first)
			<-second
			return doctor.Fail, "x"
		}},
		{Name: "b", Costs: "costs", Remedy: "remedy", Run: func(context.Context, *doctor.Host) (doctor.Level, string) {
			<-first
			close(second)
			return doctor.OK, "y"
		}},
	}
	want := []doctor.Result{{Name: "a", Level: doctor.Fail, Found: "x", Costs: "costs", Remedy: "remedy"}, {Name: "b", Level: doctor.OK, Found: "y"}}
	if got := doctor.Together(t.Context(), host(t, nil), checks); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestDiskSpace(t *testing.T) {
	const mib, gib, tib = int64(1 << 20), int64(1 << 30), int64(1 << 40)
	for _, c := range []struct {
		free, total int64
		want        doctor.Level
	}{
		{100 * mib, 10 * gib, doctor.Fail},
		{900 * mib, 10 * gib, doctor.Warn},
		{5 * gib, 10 * gib, doctor.OK},
		{5 * gib, tib, doctor.Warn},
		{100 * gib, tib, doctor.OK},
	} {
		if level, found := doctor.SpaceLevel(c.free, c.total); level != c.want {
			t.Errorf("%d of %d: %s %s, want %s", c.free, c.total, level, found, c.want)
		}
	}
}

// TestNamesAreStable: no name twice, and each says what it costs.
func TestNamesAreStable(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range all() {
		if c.Name == "" || c.Costs == "" || c.Remedy == "" || seen[c.Name] {
			t.Errorf("check %+v", c.Name)
		}
		seen[c.Name] = true
	}
}
