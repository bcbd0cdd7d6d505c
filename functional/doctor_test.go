//go:build functional

package functional

import (
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"testing"
)

// doctor runs gantry doctor with the service's configuration, and returns its
// exit status and the levels of its lines.
func (c *cloud) doctor(t *testing.T, set ...string) (status int, lines map[string]string, said []byte) {
	t.Helper()
	args := []string{"doctor", "--json"}
	for _, f := range c.config() {
		args = append(args, "--config-file", f)
	}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	said, err := exec.CommandContext(t.Context(), c.binary, args...).Output()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		status = ended.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Host []struct{ Name, Level, Remedy string }
	}
	if err := json.Unmarshal(said, &report); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	lines = map[string]string{}
	for _, l := range report.Host {
		lines[l.Name] = l.Level
		if (l.Level == "ok") != (l.Remedy == "") {
			t.Errorf("%+v", l)
		}
	}
	return status, lines, said
}

// TestFunctionalDoctor asks a real OpenStack beside the service that runs.
func TestFunctionalDoctor(t *testing.T) {
	c := the
	// reports of agents and services may be late on a loaded machine
	eventually(t, bootLimit, "a healthy cloud", func() bool {
		status, lines, said := c.doctor(t)
		if status != 0 {
			t.Logf("status %d: %s", status, said)
			return false
		}
		for _, name := range []string{"broker", "identity", "placement", "neutron", "glance", "neutron-agent"} {
			if lines[name] != "ok" {
				t.Logf("%s is %q: %s", name, lines[name], said)
				return false
			}
		}
		// a server of WSGI need not tell the time, nor Neutron's account be Nova's administrator
		known := []string{"ok", "note"}
		return slices.Contains(known, lines["nova-service"]) && slices.Contains(known, lines["clock-offset"])
	})
	for line, set := range map[string]string{
		"identity":      "neutron.password=wrong",
		"broker":        "DEFAULT.transport_url=rabbit://nova:wrong@127.0.0.1:5672/",
		"neutron-agent": "DEFAULT.host=nobody",
	} {
		want, ends := "fail", 2
		if line == "neutron-agent" {
			want, ends = "warn", 0
		}
		if status, lines, said := c.doctor(t, set); status != ends || lines[line] != want {
			t.Errorf("%s: status %d, %s is %q: %s", set, status, line, lines[line], said)
		}
	}
}
