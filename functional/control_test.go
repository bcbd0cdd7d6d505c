//go:build functional

package functional

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// control runs a verb of the bring-up's control script on one service.
func (c *cloud) control(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(controlplane(), "control"), args...)
	cmd.Env = append(cmd.Environ(), "STATE="+c.state)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("control %v: %v\n%s", args, err, out)
	}
}

// shell runs one line as root, in the namespaces of the test.
func (c *cloud) shell(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command("/bin/sh", "-c", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// runGantry runs "gantry compute" in the foreground and returns what it said.
func runGantry(t *testing.T, binary string, files, environ []string) (string, error) {
	t.Helper()
	args := []string{"compute"}
	for _, f := range files {
		args = append(args, "--config-file", f)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(cmd.Environ(), environ...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
