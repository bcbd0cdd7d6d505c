//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	mountsHybrid = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
99 31 0:29 / /elsewhere/cpu rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct
`
	mountsV2 = `25 30 0:23 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
`
)

func TestParseLayout(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"hybrid": {mountsHybrid, "/sys/fs/cgroup/cpu,cpuacct [cpu cpuacct]\n/sys/fs/cgroup/cpuset [cpuset]\n/sys/fs/cgroup/net_cls [net_cls]\n/sys/fs/cgroup/systemd [name=systemd]\n/sys/fs/cgroup/unified [cgroup2]\n"},
		"v2":     {mountsV2, "/sys/fs/cgroup [cgroup2]\n"},
		"space":  {`1 2 0:1 / /a\040b rw - cgroup2 x rw` + "\n", "/a b [cgroup2]\n"},
	} {
		hs, err := parseLayout(c.text)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for _, h := range hs {
			fmt.Fprintf(&got, "%s %v\n", h.Path, h.Controllers)
		}
		if d := cmp.Diff(c.want, got.String()); d != "" {
			t.Errorf("%s -want +got:\n%s", name, d)
		}
	}
	if _, err := parseLayout("1 2 0:1 / / rw - ext4 x rw\n"); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("no control groups: %v", err)
	}
	if _, err := parseLayout("nonsense\n"); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("nonsense: %v", err)
	}
}

func FuzzParseLayout(f *testing.F) {
	f.Add(mountsHybrid)
	f.Add(mountsV2)
	f.Fuzz(func(t *testing.T, text string) {
		hs, err := parseLayout(text)
		if err == nil && len(hs) == 0 {
			t.Fatal("neither layout nor error")
		}
	})
}
