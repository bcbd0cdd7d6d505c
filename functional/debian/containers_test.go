//go:build debian

package debian

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// TestContainers: docker and podman of Debian, as they are, run containers in a
// system instance of a flavor with nesting: a network, a published port, a
// command beside; podman for an ordinary user too.
func TestContainers(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	p.OpenStack(t, "admin", "flavor", "create", "--ram", "1024", "--disk", "20", "--vcpus", "2", "--property", "gantry:nesting=true", "nesting")
	p.OpenStack(t, "demo", "image", "create", "--disk-format", "raw", "--container-format", "bare",
		"--file", filepath.Join(os.Getenv("GANTRY_DEBIAN_TREES"), "containers.tar"), "containers")
	id := p.OpenStack(t, "demo", "server", "create", "--image", "containers", "--flavor", "nesting", "--network", "private", "--wait", "-f", "value", "-c", "id", "containers")
	inside := func(script string) (string, error) {
		socket := filepath.Join(p.State, "compute", "engine", "engine.sock")
		out, err := exec.CommandContext(t.Context(), os.Getenv("GANTRY_BINARY"), "exec", "--socket", socket, id, "sh", "-c", script).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	cloudtest.Eventually(t, "the instance is up", func() (bool, error) {
		out, err := inside("systemctl is-system-running --wait")
		return out == "running", err
	})
	const busybox = "/bin/busybox "
	for _, engine := range []string{"docker", "podman"} {
		t.Run(engine, func(t *testing.T) {
			run := engine + " run "
			if engine == "podman" { // which limits processes by itself, where hosts with cgroup v1 have no controller for
				run += "--pids-limit 0 "
			}
			steps := []struct{ script, want string }{
				{"tar -C /root/image -c . | " + engine + " import - small >/dev/null 2>&1; " + engine + " images -q | wc -l", "1"},
				{run + "--rm --network none small " + busybox + "sh -c 'echo process $$, $(busybox id -u), $(busybox ls /sys/class/net)'", "process 1, 0, lo"},
				{run + "--detach --name web --publish 8080:80 small " + busybox + "sh -c 'cd /; echo served >index.html; exec busybox httpd -f -p 80' >/dev/null; " + engine + " inspect -f '{{.State.Running}}' web", "true"},
				{engine + " exec web " + busybox + "cat /proc/1/comm", "busybox"},
				{"for i in $(seq 600); do busybox wget -qO- http://127.0.0.1:8080/ && break; sleep 0.1; done 2>/dev/null", "served"},
				{engine + " rm -f web >/dev/null 2>&1; " + engine + " ps -aq | wc -l", "0"},
			}
			for _, s := range steps {
				if out, err := inside(s.script); err != nil || out != s.want {
					t.Fatalf("%s\nsays %q, not %q: %v", s.script, out, s.want, err)
				}
			}
		})
	}
	t.Run("rootless podman", func(t *testing.T) {
		const as = "setpriv --reuid user --regid user --init-groups env -C /home/user HOME=/home/user USER=user XDG_RUNTIME_DIR=/run/user/1000 PATH=$PATH "
		for _, s := range []struct{ script, want string }{
			{as + "podman import /home/user/image.tar small >/dev/null 2>&1; " + as + "podman images -q | wc -l", "1"},
			{as + "podman run --pids-limit 0 --rm small " + busybox + "sh -c 'echo $$ $(busybox id -u) $(busybox ls /sys/class/net)'", "1 0 lo tap0"},
			{as + "podman run --pids-limit 0 --rm --user 1234 --network none small " + busybox + "id -u", "1234"},
		} {
			if out, err := inside(s.script); err != nil || out != s.want {
				t.Fatalf("%s\nsays %q, not %q: %v", s.script, out, s.want, err)
			}
		}
	})
	p.OpenStack(t, "demo", "server", "delete", "--wait", "containers")
}
