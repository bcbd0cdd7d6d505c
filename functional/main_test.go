//go:build functional

package functional

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/mtu"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/placement/v1/resourceproviders"
)

func TestFunctionalHostIsUp(t *testing.T) {
	c := the
	var services []map[string]any
	c.openstackJSON(t, &services, c.admin, "compute", "service", "list", "--host", host)
	if len(services) != 1 || services[0]["Binary"] != "nova-compute" || services[0]["State"] != "up" || services[0]["Status"] != "enabled" {
		t.Fatalf("compute service list: %v", services)
	}
	var hypervisor map[string]any
	c.openstackJSON(t, &hypervisor, c.admin, "--os-compute-api-version", "2.87", "hypervisor", "show", nodeName(t))
	if int(hypervisor["vcpus"].(float64)) != runtime.NumCPU() || hypervisor["hypervisor_type"] != "docker" || hypervisor["status"] != "enabled" {
		t.Errorf("hypervisor show: %v", hypervisor)
	}
	if hypervisor["memory_mb"].(float64) < 1024 || hypervisor["local_gb"].(float64) < 1 {
		t.Errorf("hypervisor show has no room: %v", hypervisor)
	}
	var stats map[string]any
	c.openstackJSON(t, &stats, c.admin, "--os-compute-api-version", "2.87", "hypervisor", "stats", "show")
	if stats["count"].(float64) < 1 {
		t.Errorf("hypervisor stats: %v", stats)
	}
	uptime := c.openstack(t, c.admin, "hypervisor", "show", nodeName(t), "-c", "uptime", "-f", "value")
	if !strings.ContainsAny(uptime, "0123456789") { // the client shows what stands after "up"
		t.Errorf("uptime %q", uptime)
	}
}

func TestFunctionalPlacementKnowsTheHost(t *testing.T) {
	c := the
	pages, err := resourceproviders.List(c.admin.placement, resourceproviders.ListOpts{Name: nodeName(t)}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := resourceproviders.ExtractResourceProviders(pages)
	if err != nil || len(list) != 1 {
		t.Fatalf("providers: %v %v", list, err)
	}
	inv, err := resourceproviders.GetInventories(t.Context(), c.admin.placement, list[0].UUID).Extract()
	if err != nil {
		t.Fatal(err)
	}
	for class, ratio := range map[string]float32{"VCPU": 16, "MEMORY_MB": 1.5, "DISK_GB": 1} {
		got, ok := inv.Inventories[class]
		if !ok || got.Total < 1 || got.AllocationRatio != ratio {
			t.Errorf("inventory %s: %+v", class, got)
		}
	}
	traits, err := resourceproviders.GetTraits(t.Context(), c.admin.placement, list[0].UUID).Extract()
	if err != nil {
		t.Fatal(err)
	}
	for _, trait := range []string{"COMPUTE_NODE", "COMPUTE_IMAGE_TYPE_QCOW2", "COMPUTE_IMAGE_TYPE_RAW", "CUSTOM_GANTRY", "CUSTOM_HV_CONTAINER"} {
		if !slices.Contains(traits.Traits, trait) {
			t.Errorf("traits %v lack %s", traits.Traits, trait)
		}
	}
	if joined := strings.Join(traits.Traits, " "); !strings.Contains(joined, "HW_CPU_") || strings.Contains(joined, "_VMX") || strings.Contains(joined, "DISABLED") {
		t.Errorf("traits %v: want those of the processor, no virtualization and nothing disabled", traits.Traits)
	}
	// disabling and enabling reaches placement
	c.openstack(t, c.admin, "compute", "service", "set", "--disable", "--disable-reason", "test", host, "nova-compute")
	traits, err = resourceproviders.GetTraits(t.Context(), c.admin.placement, list[0].UUID).Extract()
	if err != nil || !strings.Contains(strings.Join(traits.Traits, " "), "COMPUTE_STATUS_DISABLED") {
		t.Errorf("disabled: traits %v %v", traits, err)
	}
	c.openstack(t, c.admin, "compute", "service", "set", "--enable", host, "nova-compute")
	traits, err = resourceproviders.GetTraits(t.Context(), c.admin.placement, list[0].UUID).Extract()
	if err != nil || strings.Contains(strings.Join(traits.Traits, " "), "COMPUTE_STATUS_DISABLED") {
		t.Errorf("enabled: traits %v %v", traits, err)
	}
}

// nodeName is the hypervisor host name, which is the machine's.
func nodeName(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestFunctionalTenantsFirstHour is what a tenant types, with the stock client
// and without administrator rights.
func TestFunctionalTenantsFirstHour(t *testing.T) {
	c := the
	image := filepath.Join(c.state, "images/app-docker.tar")
	c.openstack(t, c.demo, "image", "create", "--file", image, "--container-format", "docker", "--disk-format", "raw", "first-hour")
	t.Cleanup(func() { c.openstackCleanup(t, "image", "delete", "first-hour") })
	var s map[string]any
	c.openstackJSON(t, &s, c.demo, "server", "create", "--image", "first-hour", "--flavor", "c1.tiny",
		"--network", "private", "--key-name", "tenant", "--wait", "first-hour")
	id := s["id"].(string)
	t.Cleanup(func() { c.remove(t, id) })
	if s["status"] != "ACTIVE" {
		t.Fatalf("server create: %v", s)
	}
	c.waitConsole(t, id, "app: hello from app with 1000 2000 in /srv, layer two, fstab gone")
	if out := c.openstack(t, c.demo, "console", "log", "show", "first-hour"); !strings.Contains(out, "app: hello") {
		t.Errorf("console log show: %s", out)
	}
	c.openstack(t, c.demo, "server", "stop", id)
	c.waitStatus(t, id, "SHUTOFF")
	c.openstack(t, c.demo, "server", "start", id)
	c.waitStatus(t, id, "ACTIVE")
	c.openstack(t, c.demo, "server", "reboot", "--wait", id)
	c.openstack(t, c.demo, "server", "lock", id)
	if out, err := c.tryOpenstack(t, c.demo, "server", "pause", id); err == nil || !strings.Contains(out, "locked") {
		t.Errorf("pause of a locked server: %v %s", err, out)
	}
	c.openstack(t, c.demo, "server", "unlock", id)
	c.openstack(t, c.demo, "server", "pause", id)
	c.waitStatus(t, id, "PAUSED")
	c.openstack(t, c.demo, "server", "unpause", id)
	c.waitStatus(t, id, "ACTIVE")
	c.openstack(t, c.demo, "server", "image", "create", "--name", "first-hour-snap", "--wait", id)
	t.Cleanup(func() { c.openstackCleanup(t, "image", "delete", "first-hour-snap") })
	c.openstack(t, c.demo, "server", "delete", "--wait", id)
	c.nothingOf(t, id)
}

func (c *cloud) openstackCleanup(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("/usr/bin/openstack", args...)
	cmd.Env = append(os.Environ(), "OS_AUTH_URL=http://127.0.0.1:5000/v3", "OS_USERNAME=admin", "OS_PASSWORD="+c.pass,
		"OS_PROJECT_NAME=admin", "OS_USER_DOMAIN_ID=default", "OS_PROJECT_DOMAIN_ID=default")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("openstack %v: %v %s", args, err, out)
	}
}

func TestFunctionalEveryFormatBoots(t *testing.T) {
	c := the
	for _, tc := range []struct{ file, container, says string }{
		{"busybox.tar", "bare", "guest: up"},
		{"busybox.tar.gz", "bare", "guest: up"},
		{"busybox.tar.xz", "bare", "guest: up"},
		{"busybox.tar.zst", "bare", "guest: up"},
		{"busybox.ext4", "bare", "guest: up"},
		{"busybox.qcow2", "bare", "guest: up"},
		{"app-docker.tar", "docker", "app: hello"},
		{"app-oci.tar", "docker", "app: hello"},
	} {
		t.Run(tc.file, func(t *testing.T) {
			img := c.upload(t, tc.file, tc.container, filepath.Join(c.state, "images", tc.file), nil)
			id := c.active(t, bootOpts{image: img, network: "none"})
			c.waitConsole(t, id, tc.says)
		})
	}
}

func TestFunctionalDebianBoots(t *testing.T) {
	c := the
	img := c.upload(t, "debian", "bare", filepath.Join(c.state, "images/debian.tar"), map[string]string{
		"os_command_line": `/bin/bash -c "dpkg --list | grep -c ^ii | sed s/^/packages:/; id -u; exec sleep infinity"`,
	})
	key := c.rsaKey(t, "rsa")
	id := c.active(t, bootOpts{image: img, flavor: "c1.small", key: "rsa"})
	c.waitConsole(t, id, "packages:")
	c.adminPassword(t, id, key)
}

func TestFunctionalIsolatedAndLimited(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{flavor: "c1.medium"})
	pid := c.firstPid(t, id)
	for _, ns := range []string{"user", "pid", "mnt", "net", "uts", "ipc", "cgroup"} {
		mine, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		if err != nil || mine == theirs {
			t.Errorf("namespace %s: ours %s, the instance's %s (%v)", ns, mine, theirs, err)
		}
	}
	uids, _ := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", pid))
	if f := strings.Fields(string(uids)); len(f) != 3 || f[0] != "0" || f[1] == "0" || f[2] != "65536" {
		t.Errorf("uid map %q", uids)
	}
	for limit, files := range map[string]map[string]string{
		"memory": {"/sys/fs/cgroup/memory/*/%s/memory.limit_in_bytes": "536870912", "/sys/fs/cgroup/*/%s/memory.max": "536870912"},
		"cpu":    {"/sys/fs/cgroup/cpu/*/%s/cpu.cfs_quota_us": "200000", "/sys/fs/cgroup/*/%s/cpu.max": "200000 100000"},
		"pids":   {"/sys/fs/cgroup/pids/*/%s/pids.max": "8192", "/sys/fs/cgroup/*/%s/pids.max": "8192"},
	} {
		checked := false
		for file, want := range files {
			found, _ := filepath.Glob(fmt.Sprintf(file, id))
			for _, f := range found {
				got, err := os.ReadFile(f)
				if err != nil || strings.TrimSpace(string(got)) != want {
					t.Errorf("%s: %q %v, want %s", f, got, err, want)
				}
				checked = true
			}
		}
		if !checked {
			t.Errorf("no control group limits %s", limit)
		}
	}
}

func TestFunctionalNetworkOfAnInstance(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{tag: "front"})
	addr := c.address(t, id)
	// the address was there before the first process ran: its first lines show it
	var net struct{ mtu.NetworkMTUExt }
	if err := networks.Get(t.Context(), c.admin.network, c.networkID(t, c.demo, "")).ExtractInto(&net); err != nil || net.MTU == 0 {
		t.Fatalf("MTU of the network: %d %v", net.MTU, err)
	}
	c.waitConsole(t, id, fmt.Sprintf("guest: eth0 has %s/24 mtu %d", addr, net.MTU))
	c.waitConsole(t, id, "guest: route default via 10.77.0.1")
	c.waitConsole(t, id, "guest: dns nameserver 10.77.0.")
	c.waitConsole(t, id, "guest: metadata ok")
	// what the tenant called the interface is what the guest finds it by
	meta, err := c.inside(t, id, "/bin/busybox", "wget", "-q", "-O-", "http://169.254.169.254/openstack/latest/meta_data.json")
	var md struct {
		Devices []struct {
			Type string
			Tags []string
		}
	}
	if err != nil || json.Unmarshal([]byte(meta), &md) != nil || len(md.Devices) != 1 || md.Devices[0].Type != "nic" || !slices.Equal(md.Devices[0].Tags, []string{"front"}) {
		t.Errorf("tagged devices in the metadata: %v %s", err, meta)
	}
	eventually(t, bootLimit, "ping", func() bool {
		_, err := c.inRouter(t, "/bin/busybox", "ping", "-c1", "-W1", addr)
		return err == nil
	})
	eventually(t, bootLimit, "TCP", func() bool { // the guest serves one connection at a time
		out, err := c.inRouter(t, "/bin/busybox", "nc", "-w", "3", addr, "22")
		return err == nil && strings.Contains(out, "SSH-2.0-guest")
	})
}

func TestFunctionalPowerStates(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{})
	actions := map[string]func() error{
		"stop":    func() error { return servers.Stop(t.Context(), c.demo.compute, id).ExtractErr() },
		"start":   func() error { return servers.Start(t.Context(), c.demo.compute, id).ExtractErr() },
		"pause":   func() error { return servers.Pause(t.Context(), c.demo.compute, id).ExtractErr() },
		"unpause": func() error { return servers.Unpause(t.Context(), c.demo.compute, id).ExtractErr() },
		"soft": func() error {
			return servers.Reboot(t.Context(), c.demo.compute, id, servers.RebootOpts{Type: servers.SoftReboot}).ExtractErr()
		},
		"hard": func() error {
			return servers.Reboot(t.Context(), c.demo.compute, id, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr()
		},
	}
	addr := c.address(t, id)
	for _, step := range []struct {
		action, status string
		power          servers.PowerState
	}{
		{"stop", "SHUTOFF", servers.SHUTDOWN},
		{"start", "ACTIVE", servers.RUNNING},
		{"soft", "ACTIVE", servers.RUNNING},
		{"hard", "ACTIVE", servers.RUNNING},
		{"pause", "PAUSED", servers.PAUSED},
		{"unpause", "ACTIVE", servers.RUNNING},
	} {
		if err := actions[step.action](); err != nil {
			t.Fatalf("%s: %v", step.action, err)
		}
		s := c.waitStatus(t, id, step.status)
		if s.PowerState != step.power {
			t.Errorf("after %s: power state %v", step.action, s.PowerState)
		}
	}
	if got := c.address(t, id); got != addr {
		t.Errorf("address changed from %s to %s", addr, got)
	}
	c.waitConsole(t, id, "guest: stopping")
	eventually(t, bootLimit, "ping after reboots", func() bool {
		_, err := c.inRouter(t, "/bin/busybox", "ping", "-c1", "-W1", addr)
		return err == nil
	})
	// an event ends after the status has changed
	want := map[string]int{"create": 1, "stop": 1, "start": 1, "reboot": 2, "pause": 1, "unpause": 1}
	eventually(t, bootLimit, "each action ends without a message", func() bool {
		var events []map[string]any
		c.openstackJSON(t, &events, c.admin, "server", "event", "list", "--long", id)
		done := map[string]int{}
		for _, e := range events {
			if e["Message"] == nil || e["Message"] == "" {
				done[e["Action"].(string)]++
			}
		}
		for action, n := range want {
			if done[action] != n {
				return false
			}
		}
		return true
	})
}

func TestFunctionalSnapshotCarriesTheChange(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{})
	addr := c.address(t, id)
	c.tell(t, addr, "remember me")
	image, err := servers.CreateImage(t.Context(), c.demo.compute, id, servers.CreateImageOpts{Name: t.Name()}).ExtractImageID()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.openstackCleanup(t, "image", "delete", image) })
	var img *images.Image
	eventually(t, bootLimit, "the snapshot is active", func() bool {
		img, err = images.Get(t.Context(), c.demo.image, image).Extract()
		return err == nil && img.Status == images.ImageStatusActive
	})
	if img.SizeBytes < 1000 || img.Checksum == "" || img.Properties["os_hash_value"] == nil || img.ContainerFormat != "docker" {
		t.Errorf("snapshot %+v", img)
	}
	if s := c.waitStatus(t, id, "ACTIVE"); s.PowerState != servers.RUNNING {
		t.Errorf("power state %v after the snapshot", s.PowerState)
	}
	again := c.active(t, bootOpts{image: image, name: "again"})
	c.waitConsole(t, again, "guest: was told remember me")
}

// tell has the guest write a line to its disk.
func (c *cloud) tell(t *testing.T, addr, line string) {
	t.Helper()
	eventually(t, bootLimit, "the guest takes a line", func() bool {
		out, _ := c.inRouter(t, "/bin/busybox", "sh", "-c", "(echo "+line+"; sleep 1) | nc -w 5 "+addr+" 22")
		return strings.Contains(out, "ok")
	})
}

func TestFunctionalInstancesShareLayers(t *testing.T) {
	c := the
	one := c.active(t, bootOpts{name: "share-1", network: "none"})
	used := func() int64 {
		out, err := exec.Command("du", "-sxk", filepath.Join(c.state, "gantry/engine")).Output()
		if err != nil {
			t.Fatal(err)
		}
		var n int64
		if _, err := fmt.Sscan(string(out), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := used()
	two := c.active(t, bootOpts{name: "share-2", network: "none"})
	if grown := used() - before; grown > 512 {
		t.Errorf("the second instance (%s beside %s) took %d KiB", two, one, grown)
	}
}

func TestFunctionalDiagnostics(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{})
	out := c.openstack(t, c.admin, "--os-compute-api-version", "2.48", "server", "show", id, "--diagnostics", "-f", "json")
	var d map[string]any
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if d["state"] != "running" {
		t.Errorf("diagnostics %v", d)
	}
}

func TestFunctionalDiscoverHostsMapsTheHost(t *testing.T) {
	c := the
	args := []string{"--config-file", filepath.Join(c.state, "etc/nova/common.conf"), "--config-file", filepath.Join(c.state, "etc/nova/nova.conf"), "cell_v2"}
	if out, err := exec.CommandContext(t.Context(), novaManage(), append(args, "discover_hosts", "--verbose")...).CombinedOutput(); err != nil {
		t.Fatalf("discover_hosts: %v %s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), novaManage(), append(args, "list_hosts")...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), host) {
		t.Errorf("list_hosts: %v %s", err, out)
	}
}

func TestFunctionalKeyAndFilesReachTheGuest(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{})
	root := fmt.Sprintf("/proc/%d/root", c.firstPid(t, id))
	key, err := os.ReadFile(filepath.Join(c.state, "tenant_key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(root + "/root/.ssh/authorized_keys")
	if err != nil || strings.TrimSpace(string(got)) != strings.TrimSpace(string(key)) {
		t.Errorf("authorized_keys %q %v, want %q", got, err, key)
	}
	if name, err := os.ReadFile(root + "/etc/hostname"); err != nil || !strings.HasPrefix(string(name), "testfunctionalkey") {
		t.Errorf("hostname %q %v", name, err)
	}
}
