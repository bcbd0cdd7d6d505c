package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnUnusableConfigurationHasItsStatus, which the unit names, and is told.
func TestAnUnusableConfigurationHasItsStatus(t *testing.T) {
	name, err := binary()
	check(t, err)
	unit, err := os.ReadFile("../../docs/gantry-compute.service")
	if err != nil || !strings.Contains(string(unit), "\nRestartPreventExitStatus=78\n") {
		t.Errorf("the unit tries again: %v", err)
	}
	file := filepath.Join(t.TempDir(), "gantry.conf")
	for text, want := range map[string]string{
		"": "[DEFAULT] transport_url: missing",
		"[DEFAULT]\ntransport_url = rabbit://u:secret1@127.0.0.1/\n":                                                                                "[placement] auth_url: missing",
		"[DEFAULT]\ntransport_url = rabbit://u:secret1@127.0.0.1/\n[keystone_authtoken]\nauth_url = http://127.0.0.1:1\n":                           "username is missing",
		"[DEFAULT]\ntransport_url = rabbit://u:secret1@127.0.0.1/\n[keystone_authtoken]\nauth_url = http://127.0.0.1:1\n[gantry]\nunknown = true\n": "[gantry] unknown: unknown key",
	} {
		check(t, os.WriteFile(file, []byte(text), 0o600))
		out, err := exec.Command(name, "compute", "--config-file", file).CombinedOutput()
		status, ok := errors.AsType[*exec.ExitError](err)
		if !ok || status.ExitCode() != 78 || !strings.Contains(string(out), want) || strings.Contains(string(out), "secret1") {
			t.Errorf("%q: %v %s", text, err, out)
		}
	}
}
