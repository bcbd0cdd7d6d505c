//go:build functional

package functional

import (
	"archive/tar"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/portsbinding"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
)

// failed boots an image that cannot boot, waits for ERROR and returns the
// fault. The host must have nothing of it while the server still exists.
func (c *cloud) failed(t *testing.T, o bootOpts) string {
	t.Helper()
	id := c.boot(t, o)
	s := c.waitStatus(t, id, "ERROR")
	c.nothingOf(t, id)
	c.noAllocation(t, id)
	return s.Fault.Message
}

// noAllocation asserts that placement holds nothing for the instance.
func (c *cloud) noAllocation(t *testing.T, id string) {
	t.Helper()
	var body struct {
		Allocations map[string]any `json:"allocations"`
	}
	resp, err := c.admin.placement.Get(t.Context(), c.admin.placement.Endpoint+"allocations/"+id, &body, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if len(body.Allocations) != 0 {
		t.Errorf("placement still holds %v for %s", body.Allocations, id)
	}
}

// file writes content into a temporary file and returns its name.
func file(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// archive makes a tar of the given entries.
func archive(t *testing.T, entries ...*tar.Header) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for _, h := range entries {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write(make([]byte, h.Size)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFunctionalBadImagesFailWithTheCause(t *testing.T) {
	c := the
	dir := &tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}
	canary := filepath.Join("/var/tmp", "gantry-canary")
	for _, tc := range []struct {
		name, file, container, fault string
		props                        map[string]string
	}{
		{"noise", file(t, []byte(strings.Repeat("no image at all ", 4096))), "bare", "format", nil},
		{"disk image", file(t, append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 65536)...)), "bare", "qcow2", nil},
		{"climbing entry", archive(t, dir, &tar.Header{Name: "../../../../.." + canary, Size: 5, Mode: 0o644}), "bare", "", nil},
		{"climbing link", archive(t, dir, &tar.Header{Name: "bin/l", Typeflag: tar.TypeLink, Linkname: "../../../etc/shadow"}), "bare", "", nil},
		{"nothing to run", archive(t, dir, &tar.Header{Name: "bin/data", Size: 3, Mode: 0o644}), "bare", "command", nil},
		{"missing command", filepath.Join(c.state, "images/busybox.tar"), "bare", "not found", map[string]string{"os_command_line": "/bin/nowhere"}},
		{"command that ends", filepath.Join(c.state, "images/busybox.tar"), "bare", "status 3", map[string]string{"os_command_line": "/bin/sh -c 'exit 3'"}},
		{"open quote", filepath.Join(c.state, "images/busybox.tar"), "bare", "os_command_line", map[string]string{"os_command_line": "/bin/sh 'x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img := c.upload(t, tc.name, tc.container, tc.file, tc.props)
			fault := c.failed(t, bootOpts{image: img})
			t.Logf("fault: %s", fault)
			if !strings.Contains(strings.ToLower(fault), tc.fault) {
				t.Errorf("fault %q does not name the cause (%q)", fault, tc.fault)
			}
			for _, detail := range []string{c.state, "/sys/fs", "127.0.0.1"} {
				if strings.Contains(fault, detail) {
					t.Errorf("fault %q tells of the host: %s", fault, detail)
				}
			}
		})
	}
	if _, err := os.Stat(canary); err == nil {
		t.Error("an archive wrote outside its place")
	}
	c.active(t, bootOpts{}) // the service works on
}

func TestFunctionalDamagedImageIsRefused(t *testing.T) {
	c := the
	img := c.upload(t, "damaged", "bare", filepath.Join(c.state, "images/busybox.tar"), nil)
	stored := filepath.Join(c.state, "glance/images", img)
	f, err := os.OpenFile(stored, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 100_000); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	fault := c.failed(t, bootOpts{image: img})
	t.Logf("fault: %s", fault)
}

func TestFunctionalPortThatCannotBeBound(t *testing.T) {
	c := the
	net := c.networkID(t, c.demo, "")
	p, err := ports.Create(t.Context(), c.admin.network, portsbinding.CreateOptsExt{
		CreateOptsBuilder: ports.CreateOpts{NetworkID: net, Name: t.Name()}, VNICType: "direct",
	}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ports.Delete(context.WithoutCancel(t.Context()), c.admin.network, p.ID).ExtractErr(); err != nil {
			t.Errorf("the user's port is gone: %v", err)
		}
	})
	s, err := servers.Create(t.Context(), c.admin.compute, servers.CreateOpts{
		Name: "unbound", ImageRef: c.imageID(t, "busybox"), FlavorRef: c.flavorID(t, "c1.tiny"), Networks: []servers.Network{{Port: p.ID}},
	}, nil).Extract()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.remove(t, s.ID) })
	got := c.waitStatus(t, s.ID, "ERROR")
	t.Logf("fault: %s", got.Fault.Message)
	c.nothingOf(t, s.ID)
	c.noAllocation(t, s.ID)
}

func TestFunctionalDeleteWhileBuilding(t *testing.T) {
	c := the
	for range 3 {
		id := c.boot(t, bootOpts{})
		eventually(t, bootLimit, "the build has begun", func() bool {
			s := c.server(t, id)
			return s.TaskState != "scheduling" && s.TaskState != "" || s.Status == "ACTIVE"
		})
		c.remove(t, id)
		c.noAllocation(t, id)
	}
	c.active(t, bootOpts{})
}

func TestFunctionalPluggingThatNeverEnds(t *testing.T) {
	c := the
	c.freeze(t, "neutron-linuxbridge-agent")
	c.restart(t, false, "DEFAULT.vif_plugging_timeout=3")
	id := c.boot(t, bootOpts{name: "fatal"})
	s := c.waitStatus(t, id, "ERROR")
	t.Logf("fault: %s", s.Fault.Message)
	c.nothingOf(t, id)
	c.restart(t, false, "DEFAULT.vif_plugging_timeout=3", "DEFAULT.vif_plugging_is_fatal=false")
	c.active(t, bootOpts{name: "not-fatal"})
	t.Cleanup(func() { c.restart(t, false) })
}

// freeze stops a service of the control plane until the end of the test.
func (c *cloud) freeze(t *testing.T, name string) {
	t.Helper()
	c.control(t, "signal", name, "STOP")
	t.Cleanup(func() { c.control(t, "signal", name, "CONT") })
}

func TestFunctionalFullDisk(t *testing.T) {
	c := the
	small := filepath.Join(c.state, "small")
	if err := os.MkdirAll(small, 0o700); err != nil {
		t.Fatal(err)
	}
	// room for the flavor by its size, and nearly full
	c.shell(t, "mount -t tmpfs -o size=1200m,mode=0700 small "+small+" && fallocate -l 1170m "+small+"/filler")
	t.Cleanup(func() { c.shell(t, "umount -l "+small) })
	c.restart(t, false, "gantry.store_path="+small+"/engine")
	t.Cleanup(func() { c.stopKeeperOf(t, small+"/engine") })
	large := c.upload(t, "large", "bare", filepath.Join(c.state, "images/debian.tar"), map[string]string{"os_command_line": "/bin/sleep infinity"})
	fault := c.failed(t, bootOpts{image: large, flavor: "c1.small"})
	t.Logf("fault: %s", fault)
	small1 := c.active(t, bootOpts{name: "still-fits", network: "none"})
	c.remove(t, small1)
	c.shell(t, "rm "+small+"/filler")
	c.remove(t, c.active(t, bootOpts{name: "fits-now", image: large, flavor: "c1.small", network: "none"}))
}

func TestFunctionalInstancesOutliveTheService(t *testing.T) {
	c := the
	running := c.active(t, bootOpts{name: "running"})
	stopped := c.active(t, bootOpts{name: "stopped", network: "none"})
	if err := servers.Stop(t.Context(), c.demo.compute, stopped).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(t, stopped, "SHUTOFF")
	c.waitConsole(t, running, "guest: metadata ok")
	pid := c.firstPid(t, running)
	before := c.console(t, running)
	if err := c.svc.kill(); err != nil {
		t.Fatal(err)
	}
	addr := c.address(t, running)
	c.tell(t, addr, "while away") // it runs on, and answers
	svc, err := c.start()
	if err != nil {
		t.Fatal(err)
	}
	c.svc = svc
	c.waitLog(t, "compute service ready")
	if now := c.firstPid(t, running); now != pid {
		t.Errorf("first process was %d, is %d", pid, now)
	}
	if s := c.server(t, running); s.Status != "ACTIVE" || s.PowerState != servers.RUNNING {
		t.Errorf("running instance: %s %v", s.Status, s.PowerState)
	}
	if s := c.server(t, stopped); s.Status != "SHUTOFF" {
		t.Errorf("stopped instance: %s", s.Status)
	}
	if after := c.console(t, running); !strings.HasPrefix(after, before) {
		t.Errorf("the console log was\n%s\nand is\n%s", before, after)
	}
	if err := servers.Reboot(t.Context(), c.demo.compute, running, servers.RebootOpts{Type: servers.SoftReboot}).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(t, running, "ACTIVE")
	c.waitConsole(t, running, "guest: was told while away")
}

func TestFunctionalCrashInTheMiddleOfABuild(t *testing.T) {
	c := the
	for _, point := range []string{"engine.create.record", "engine.create.disk", "spawn.plugged", "engine.start.record", "spawn.start"} {
		t.Run(point, func(t *testing.T) {
			c.restart(t, false, "gantry.failpoints="+point+"=kill")
			id := c.boot(t, bootOpts{})
			c.startAfter(t, point)
			c.waitStatus(t, id, "ERROR")
		})
	}
	c.active(t, bootOpts{})
}

func TestFunctionalControlPlaneRestarts(t *testing.T) {
	c := the
	for _, name := range []string{"rabbitmq", "nova-conductor", "neutron-server"} {
		t.Run(name, func(t *testing.T) {
			survivor := c.active(t, bootOpts{name: "survivor"})
			id := c.boot(t, bootOpts{name: "in-flight"})
			// before that the message may be in the broker, whose queues of Nova end
			// with it: such a build is lost, with any compute service
			eventually(t, bootLimit, "the build has reached the host", func() bool {
				s := c.server(t, id)
				return s.TaskState != "scheduling" && s.TaskState != "" || s.Status == "ACTIVE"
			})
			c.control(t, "restart", name)
			eventually(t, bootLimit, "the build ends", func() bool {
				s := c.server(t, id)
				return s.Status == "ACTIVE" || s.Status == "ERROR"
			})
			if s := c.server(t, survivor); s.Status != "ACTIVE" || s.PowerState != servers.RUNNING {
				t.Errorf("survivor: %s %v", s.Status, s.PowerState)
			}
			if err := c.waitUp(t.Context(), bootLimit); err != nil {
				t.Fatal(err)
			}
			c.active(t, bootOpts{name: "afterwards"})
		})
	}
}
