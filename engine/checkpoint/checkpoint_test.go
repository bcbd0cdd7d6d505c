package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// stand is a program that answers as criu does.
func stand(t *testing.T, version, check, dump string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "criu")
	script := fmt.Sprintf("#!/bin/sh\ncase $1 in\n--version) echo 'Version: %s';;\ncheck) %s;;\ndump) %s;;\nesac\n", version, check, dump)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProbe(t *testing.T) {
	for name, tt := range map[string]struct {
		path, want string
	}{
		"absent":        {"/nowhere/criu", "not installed"},
		"Debian's":      {stand(t, "3.17.1", "true", "true"), "3.17.1 is too old"},
		"just too old":  {stand(t, "4.1", "true", "true"), "too old"},
		"no version":    {stand(t, "many", "true", "true"), "no version"},
		"kernel is old": {stand(t, "4.2", "echo no pidfd >&2; exit 1", "true"), "no pidfd"},
	} {
		if _, err := Probe(t.Context(), tt.path); !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, version := range []string{"4.2", "4.2.1", "4.10", "5.0"} {
		tool, err := Probe(t.Context(), stand(t, version, "true", "true"))
		if err != nil || tool.Version != version {
			t.Errorf("%s: %+v, %v", version, tool, err)
		}
	}
}

func TestDump(t *testing.T) {
	victim := exec.Command("sleep", "1000")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = victim.Process.Kill(); _ = victim.Wait() }()
	dir := filepath.Join(t.TempDir(), "images")
	// the fifth argument is the directory
	tool, err := Probe(t.Context(), stand(t, "4.2", "true", `echo "$@" >$5/args`))
	if err != nil {
		t.Fatal(err)
	}
	req := DumpRequest{Pid: victim.Process.Pid, Dir: dir, Root: "/", LeaveRunning: true}
	if err := tool.Dump(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{fmt.Sprint("--tree ", victim.Process.Pid), "--leave-running", "--external net[", "--external user[", "--manage-cgroups=ignore"} {
		if !strings.Contains(string(args), want) {
			t.Errorf("criu is told %q, without %q", args, want)
		}
	}
	if strings.Contains(string(args), "tcp") {
		t.Errorf("connections are taken: %q", args)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of a checkpoint: %v, %v", info.Mode(), err)
	}
	if err := tool.Dump(t.Context(), req); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("over another: %v", err)
	}
}

func TestDumpFails(t *testing.T) {
	tool, err := Probe(t.Context(), stand(t, "4.2", "true", `echo "Error (x.c:1): socket is connected" >$5/dump.log; exit 1`))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "images")
	err = tool.Dump(t.Context(), DumpRequest{Pid: os.Getpid(), Dir: dir, Root: "/"})
	if err == nil || !strings.Contains(err.Error(), "socket is connected") {
		t.Errorf("failure: %v", err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("something is left: %v", err)
	}
	for name, req := range map[string]DumpRequest{
		"init": {Pid: 1, Dir: dir, Root: "/"}, "relative": {Pid: os.Getpid(), Dir: "x", Root: "/"},
	} {
		if err := tool.Dump(t.Context(), req); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := tool.Dump(t.Context(), DumpRequest{Pid: 1<<22 + 1, Dir: dir, Root: "/"}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add([]byte("Version: 4.2\n"))
	f.Add([]byte("Version: 3.17.1\nGitID: x\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		v, err := parseVersion(out)
		if err == nil && v == "" || err != nil && !errors.Is(err, errdefs.ErrUnsupported) {
			t.Errorf("%q: %q, %v", out, v, err)
		}
	})
}
