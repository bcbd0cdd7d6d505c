//go:build functional

package functional

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

// agent reports an L2 agent for the second host, so that Neutron binds ports
// there.
func (s *second) agent(t *testing.T) {
	t.Helper()
	conf := filepath.Join(s.state, "etc/neutron/neutron.conf")
	cmd := exec.Command("/usr/bin/python3", filepath.Join(controlplane(), "l2stub.py"), "--config-file", conf, "--", s.host)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	})
	eventually(t, bootLimit, "the second host has an agent", func() bool {
		out, err := s.tryOpenstack(t, s.admin, "network", "agent", "list", "--host", s.host, "-f", "value", "-c", "Alive")
		return err == nil && strings.Contains(out, "True")
	})
}

// files are what a host has of an instance below its store; dir is that of the
// host in the state.
func (c *cloud) files(dir, id string) []string {
	var found []string
	for _, pattern := range []string{"engine/*/" + id + "*", "engine/*/*/" + id + "*"} {
		files, _ := filepath.Glob(filepath.Join(c.state, dir, pattern))
		found = append(found, files...)
	}
	return found
}

// guest runs a shell line as root of the guest, on its disk.
func (c *cloud) guest(t *testing.T, id, line string) string {
	t.Helper()
	pid := strconv.Itoa(c.firstPid(t, id))
	out, err := exec.CommandContext(t.Context(), "/usr/bin/nsenter", "-t", pid, "-U", "-m", "/bin/sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("in the guest: %s: %v: %s", line, err, out)
	}
	return strings.TrimSpace(string(out))
}

// migrate moves the server, whatever it asks, to the host and waits until it is
// there.
func (c *cloud) migrate(t *testing.T, id, to string) {
	t.Helper()
	actAs(t, c.admin, id, map[string]any{"migrate": map[string]any{"host": to}})
	s := c.waitStatus(t, id, "VERIFY_RESIZE")
	if s.Host != to || s.PowerState != servers.RUNNING {
		t.Fatalf("on %s, %v", s.Host, s.PowerState)
	}
}

// TestMove: a server goes to another host with its disk and its addresses, comes
// back, and goes for good.
func TestMove(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{}) // before there is another host to choose
	s := c.secondHost(t)
	t.Cleanup(func() { c.remove(t, id) }) // before that host goes
	s.agent(t)
	addresses := func() []string { return slices.Sorted(maps.Keys(c.agree(t, id, 1))) }
	placement := func(what string, here, there int) {
		t.Helper()
		eventually(t, bootLimit, what+": placement knows it", func() bool {
			return c.memoryUsed(t) == here && c.memoryOn(t, s.host+".test") == there
		})
	}
	before := addresses()
	c.guest(t, id, "echo written here > /root/kept && rm /etc/hostname")

	c.migrate(t, id, s.host)
	if got := c.guest(t, id, "cat /root/kept; ls /etc/hostname 2>&1 | grep -c No"); got != "written here\n1" {
		t.Errorf("there: %q", got)
	}
	if now := addresses(); !slices.Equal(now, before) {
		t.Errorf("addresses %v, were %v", now, before)
	}
	placement("moved", 64, 64)
	if err := servers.RevertResize(t.Context(), c.demo.compute, id).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	if back := c.waitStatus(t, id, "ACTIVE"); back.Host != host {
		t.Errorf("reverted to %s", back.Host)
	}
	if got := c.guest(t, id, "cat /root/kept"); got != "written here" {
		t.Errorf("back: %q", got)
	}
	if now := addresses(); !slices.Equal(now, before) {
		t.Errorf("addresses %v, were %v", now, before)
	}
	if left := c.files(s.host, id); len(left) != 0 {
		t.Errorf("left there: %q", left)
	}
	placement("reverted", 64, 0)

	c.migrate(t, id, s.host)
	c.guest(t, id, "echo and there >> /root/kept")
	if err := servers.ConfirmResize(t.Context(), c.demo.compute, id).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(t, id, "ACTIVE")
	if got := c.guest(t, id, "cat /root/kept"); got != "written here\nand there" {
		t.Errorf("confirmed: %q", got)
	}
	eventually(t, bootLimit, "nothing is left here", func() bool { return len(c.files("gantry", id)) == 0 })
	placement("confirmed", 0, 64)
	if now := addresses(); !slices.Equal(now, before) {
		t.Errorf("addresses %v, were %v", now, before)
	}
}

// TestMoveCutOff: a kill of either service in the middle of a move ends with the
// server where it was, and Placement knows it.
func TestMoveCutOff(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{network: "none"}) // before there is another host to choose
	s := c.secondHost(t)
	t.Cleanup(func() { c.remove(t, id) }) // before that host goes
	c.guest(t, id, "echo written here > /root/kept")
	migrate := func() {
		t.Helper()
		actAs(t, c.admin, id, map[string]any{"migrate": map[string]any{"host": s.host}})
	}
	back := func(t *testing.T) {
		t.Helper()
		eventually(t, bootLimit, "the server is what it was", func() bool {
			now := c.server(t, id)
			return now.Status == "ACTIVE" && now.TaskState == "" && now.Host == host && now.PowerState == servers.RUNNING
		})
		if got := c.guest(t, id, "cat /root/kept"); got != "written here" {
			t.Errorf("its disk: %q", got)
		}
		eventually(t, bootLimit, "nothing is left there", func() bool {
			return len(c.files(s.host, id)) == 0 && c.memoryUsed(t) == 64 && c.memoryOn(t, s.host+".test") == 0
		})
	}
	t.Run("there", func(t *testing.T) {
		if err := s.end(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.launch(t, "gantry.failpoints=move.disk=kill")
		migrate()
		ended := make(chan error, 1)
		go func() { ended <- s.cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(bootLimit):
			t.Fatal("the second host was not killed")
		}
		s.launch(t)
		back(t)
	})
	t.Run("here", func(t *testing.T) {
		const point = "compute.resize_instance.departed"
		c.restart(t, false, "gantry.failpoints="+point+"=kill")
		migrate()
		c.startAfter(t, point)
		// the key of a server that did not come goes by its age
		expected := filepath.Join(s.engine(), "migrations", id+".in")
		if err := os.Remove(expected); err != nil {
			t.Errorf("the second host did not expect it: %v", err)
		}
		back(t)
	})
}
