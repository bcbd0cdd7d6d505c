//go:build linux

package cgroup

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMembership(t *testing.T) {
	const text = "9:name=systemd:/\n8:cpu,cpuacct:/a:b\n0::/c\nnonsense\n"
	want := map[string]string{"name=systemd": "/", "cpu": "/a:b", "cpuacct": "/a:b", "cgroup2": "/c"}
	if d := cmp.Diff(want, parseMembership(text)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func FuzzParseMembership(f *testing.F) {
	f.Add("9:name=systemd:/\n0::/c\n")
	f.Fuzz(func(t *testing.T, text string) {
		for c := range parseMembership(text) {
			if strings.Contains(c, ",") {
				t.Fatalf("controller %q", c)
			}
		}
		for _, pid := range parsePids(text) {
			if pid <= 0 {
				t.Fatalf("pid %d", pid)
			}
		}
	})
}
