//go:build functional

package functional

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

// second is another compute host on this machine: a service with a host name,
// a store and control groups of its own.
type second struct {
	*cloud
	host string
	cmd  *exec.Cmd
}

func (c *cloud) secondHost(t *testing.T) *second {
	t.Helper()
	// a name of its own: Nova does not map a host again whose service was deleted
	s := &second{cloud: c, host: "gantry-" + strconv.FormatInt(time.Now().UnixNano(), 36)}
	id := ""
	t.Cleanup(func() {
		if err := errors.Join(s.end(syscall.SIGTERM), c.stopKeeper(s.engine())); err != nil {
			t.Error(err)
		}
		group := s.group(t) + "-2"
		eventually(t, bootLimit, "the control groups go", func() bool {
			left := false
			for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
				dirs, _ := filepath.Glob(pattern + group)
				for _, dir := range dirs {
					left = os.Remove(dir) != nil || left
				}
			}
			return !left
		})
		if id != "" {
			c.openstackCleanup(t, "--os-compute-api-version", "2.92", "compute", "service", "delete", strings.TrimSpace(id))
		}
	})
	s.start(t)
	id = c.openstack(t, c.admin, "compute", "service", "list", "--host", s.host, "-f", "value", "-c", "ID")
	return s
}

func (s *second) engine() string { return filepath.Join(s.state, s.host, "engine") }

// group is the control group of the first host, by its configuration.
func (s *second) group(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.state, "etc/nova/gantry.conf"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(raw), "\ncgroup = ")
	if !ok {
		t.Fatal("the first host's configuration names no control group")
	}
	name, _, _ := strings.Cut(rest, "\n")
	return name
}

// start runs the service and waits until Nova knows it.
func (s *second) start(t *testing.T) {
	t.Helper()
	s.launch(t)
	if out, err := exec.CommandContext(t.Context(), filepath.Join(controlplane(), "wait-compute"), s.host).CombinedOutput(); err != nil {
		t.Fatalf("the second host did not come up: %v: %s", err, out)
	}
}

// launch runs the service.
func (s *second) launch(t *testing.T, more ...string) {
	t.Helper()
	args := []string{"--uts", "sh", "-c", "hostname " + s.host + ".test && exec \"$@\"", "sh", s.binary, "compute"}
	for _, f := range s.config() {
		args = append(args, "--config-file", f)
	}
	for _, set := range append(more, "DEFAULT.host="+s.host, "DEFAULT.state_path="+filepath.Join(s.state, s.host),
		"gantry.cgroup="+s.group(t)+"-2", "gantry.migration_port=16600") {
		args = append(args, "--set", set)
	}
	log, err := os.OpenFile(filepath.Join(s.state, "log", s.host+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command("unshare", args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// end ends the service, not its guests.
func (s *second) end(sig syscall.Signal) error {
	if s.cmd.ProcessState != nil {
		return nil
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		return err
	}
	err := s.cmd.Wait()
	if exit := (*exec.ExitError)(nil); sig == syscall.SIGKILL && errors.As(err, &exit) {
		return nil
	}
	return err
}

// A server of a host that is dead comes to life on another one; the dead host
// removes its guest when it is there again.
func TestEvacuate(t *testing.T) {
	c := the
	s := c.secondHost(t)
	var made struct{ ID string }
	c.openstackJSON(t, &made, c.admin, "server", "create", "--image", "busybox", "--flavor", "c1.tiny", "--network", "none", "--host", s.host, "--wait", "stranded")
	id := made.ID
	t.Cleanup(func() { c.remove(t, id) })
	old := c.firstPid(t, id)
	if err := s.end(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.openstack(t, c.admin, "compute", "service", "set", "--down", s.host, "nova-compute")
	// the stock client of this release does not survive the answer
	actAs(t, c.admin, id, map[string]any{"evacuate": map[string]any{}})
	eventually(t, bootLimit, "the server is here", func() bool {
		srv := c.server(t, id)
		return srv.Status == "ACTIVE" && srv.TaskState == "" && srv.Host == host && srv.PowerState == servers.RUNNING
	})
	c.waitConsole(t, id, "guest: up")
	if !alive(old, id) {
		t.Error("the guest of the dead host had ended before")
	}

	s.launch(t)
	eventually(t, bootLimit, "the old guest is removed", func() bool { return !alive(old, id) })
	// Nova takes the host back once it has completed the evacuation
	eventually(t, bootLimit, "the host is up", func() bool {
		_, err := c.tryOpenstack(t, c.admin, "compute", "service", "set", "--up", s.host, "nova-compute")
		return err == nil
	})
	if now := c.firstPid(t, id); now == old {
		t.Errorf("the server is still process %d", now)
	}
	eventually(t, bootLimit, "placement knows the new host only", func() bool { return c.memoryOf(t, id) == 64 })
	if srv := c.server(t, id); srv.Status != "ACTIVE" || srv.Host != host {
		t.Errorf("%s on %s", srv.Status, srv.Host)
	}
}

// alive says whether the process is one of the instance.
func alive(pid int, id string) bool {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	return err == nil && bytes.Contains(raw, []byte(id))
}
