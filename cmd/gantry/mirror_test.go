package main

import (
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// TestMirrorOfImages types pull, push and mirror against a registry.
func TestMirrorOfImages(t *testing.T) {
	o := newOperator(t)
	web := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer web.Close()
	host := strings.TrimPrefix(web.URL, "http://")
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("XDG_CACHE_HOME", dir)
	for _, name := range []string{"OS_AUTH_URL", "OS_CLOUD"} {
		t.Setenv(name, "")
	}
	insecure := "--insecure=" + host

	o.ok("run", "--id", "c", "busybox", "/bin/sh", "-c", "echo 1 > /root/new; echo ready; exec sleep 1000")
	o.ready("c")
	o.ok("commit", "c", "mine")
	out := o.ok("image", "push", insecure, "mine", host+"/team/mine:1")
	if !strings.Contains(out, host+"/team/mine:1: copied, sha256:") {
		t.Errorf("push: %s", out)
	}
	if out := o.ok("image", "push", insecure, "mine", host+"/team/mine:1"); !strings.Contains(out, "up to date") {
		t.Errorf("push again: %s", out)
	}
	ref := host + "/team/mine:1"
	for _, want := range []string{"copied", "up to date"} {
		if out := o.ok("image", "pull", insecure, ref); !strings.Contains(out, want) {
			t.Errorf("pull: %s, want %s", out, want)
		}
	}
	if out := o.ok("run", "-f", "--rm", ref, "/bin/cat", "/root/new"); !strings.Contains(out, "1") {
		t.Errorf("what was pulled says %q", out)
	}
	plan := filepath.Join(dir, "mirror.yaml")
	check(t, os.WriteFile(plan, []byte("insecure: ['"+host+"']\nimages:\n- from: '"+ref+"'\n  to: file:"+dir+"/mine.tar\n"), 0o600))
	o.ok("image", "mirror", "--plan", plan)
	o.ok("image", "mirror", "file:"+dir+"/mine.tar", "dir:"+dir+"/layout")
	o.ok("image", "mirror", "dir:"+dir+"/layout", "engine:again")
	for _, args := range [][]string{
		{"image", "pull", "mine"},
		{"image", "pull", insecure, host + "/none:1"},
		{"image", "push", insecure, "none", ref},
		{"image", "mirror"},
		{"image", "mirror", ref},
		{"image", "mirror", ref, "engine:x", "--to-glance"},
		{"image", "mirror", insecure, ref, "--to-glance"},
		{"image", "mirror", "--plan", dir + "/none"},
		{"image", "mirror", "--plan", plan, ref},
	} {
		if _, errs, code := o.run(args...); code == 0 || errs == "" {
			t.Errorf("%v: %d %q", args, code, errs)
		}
	}
	o.ok("rm", "-k", "c")
}
