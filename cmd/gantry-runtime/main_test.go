package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Under the name gantry it runs gantry runtime, and hands all else over to what
// lies beside it, arguments and status included.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	runtime, gantry := filepath.Join(dir, "gantry-runtime"), filepath.Join(dir, "gantry")
	if out, err := exec.Command("go", "build", "-ldflags", "-X main.version=v7", "-o", runtime, ".").CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	if err := os.Link(runtime, gantry); err != nil {
		t.Fatal(err)
	}
	run := func(program string, args ...string) (string, int) {
		cmd := exec.Command(program, args...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := run(gantry, "ps"); code != 1 || out != "gantry: execute "+dir+"/gantry-host: no such file or directory\n" {
		t.Errorf("without the other program: %d, %q", code, out)
	}
	host := "#!/bin/sh\necho host $0 \"$@\"; exit 5\n"
	if err := os.WriteFile(filepath.Join(dir, "gantry-host"), []byte(host), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		program string
		args    []string
		code    int
		want    string
	}{
		{gantry, []string{"exec", "a b", "runtime"}, 5, "host " + dir + "/gantry-host exec a b runtime\n"},
		{gantry, nil, 5, "host " + dir + "/gantry-host\n"},
		{gantry, []string{"runtime", "--root", t.TempDir(), "state", "none"}, 1, "gantry: container none: container does not exist: not found\n"},
		{runtime, []string{"--root", t.TempDir(), "state", "none"}, 1, "gantry-runtime: container none: container does not exist: not found\n"},
		{runtime, []string{"--version"}, 0, "gantry-runtime version v7\n"},
	} {
		if out, code := run(tt.program, tt.args...); code != tt.code || out != tt.want {
			t.Errorf("%s %s: %d, %q", filepath.Base(tt.program), strings.Join(tt.args, " "), code, out)
		}
	}
}
