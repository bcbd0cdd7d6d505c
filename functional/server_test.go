//go:build functional

package functional

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
)

// bootLimit bounds everything that Nova and Neutron take part in, on the slowest
// of machines: it is reached only when something is broken.
const bootLimit = 4 * time.Minute

// bootOpts are what differs between boots.
type bootOpts struct {
	name, image, flavor string
	network             string // "" is private, "none" no network
	tag                 string // of the interface
	who                 *clients
	userData            []byte
	key                 string // key pair; "" is tenant
}

// boot creates a server through the API and returns its id; it is deleted at
// the end of the test, and the host must then be as before.
func (c *cloud) boot(t *testing.T, o bootOpts) string {
	t.Helper()
	who := o.who
	if who == nil {
		who = &c.demo
	}
	if o.image == "" {
		o.image = "busybox"
	}
	if o.flavor == "" {
		o.flavor = "c1.tiny"
	}
	if o.name == "" {
		o.name = strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	}
	opts := servers.CreateOpts{
		Name: o.name, ImageRef: c.imageID(t, o.image), FlavorRef: c.flavorID(t, o.flavor), UserData: o.userData,
	}
	if o.network == "none" {
		opts.Networks = "none"
	} else {
		opts.Networks = []servers.Network{{UUID: c.networkID(t, *who, o.network), Tag: o.tag}}
	}
	s, err := servers.Create(t.Context(), who.compute, keypairs.CreateOptsExt{CreateOptsBuilder: opts, KeyName: cmp.Or(o.key, "tenant")}, nil).Extract()
	if err != nil {
		t.Fatalf("create server: %v", err)
	}
	t.Cleanup(func() { c.remove(t, s.ID) })
	return s.ID
}

// active boots and waits for ACTIVE.
func (c *cloud) active(t *testing.T, o bootOpts) string {
	t.Helper()
	id := c.boot(t, o)
	c.waitStatus(t, id, "ACTIVE")
	return id
}

// remove deletes the server and waits until Nova and the host have forgotten it.
func (c *cloud) remove(t *testing.T, id string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if err := servers.Delete(ctx, c.admin.compute, id).ExtractErr(); err != nil && !gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
		t.Errorf("delete server %s: %v", id, err)
	}
	eventually(t, bootLimit, "server "+id+" is gone", func() bool {
		_, err := servers.Get(ctx, c.admin.compute, id).Extract()
		return gophercloud.ResponseCodeIs(err, http.StatusNotFound)
	})
	c.nothingOf(t, id)
}

// nothingOf asserts that the host has nothing that belongs to the instance.
func (c *cloud) nothingOf(t *testing.T, id string) {
	t.Helper()
	eventually(t, bootLimit, "nothing is left of "+id+": "+strings.Join(c.traces(id), ", "), func() bool {
		return len(c.traces(id)) == 0
	})
}

// traces lists what the host has of the instance: files, mounts, control
// groups, links and ports of Open vSwitch.
func (c *cloud) traces(id string) []string {
	var found []string
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, id) {
			found = append(found, "mount "+strings.Fields(line)[4])
		}
	}
	for _, pattern := range []string{
		"gantry/engine/*/" + id + "*", "gantry/engine/*/*/" + id + "*",
	} {
		files, _ := filepath.Glob(filepath.Join(c.state, pattern))
		found = append(found, files...)
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/*/" + id)
	found = append(found, groups...)
	links, _ := exec.Command("/sbin/ip", "-d", "link", "show").Output()
	for line := range strings.Lines(string(links)) {
		if strings.Contains(line, "gantry:"+id) {
			found = append(found, "link "+strings.TrimSpace(line))
		}
	}
	return append(found, c.portsOfSwitch(id)...)
}

// portsOfSwitch lists what the control plane's Open vSwitch has of the
// instance; there may be no such switch.
func (c *cloud) portsOfSwitch(id string) []string {
	socket := filepath.Join(c.state, "ovs/db.sock")
	if _, err := os.Stat(socket); err != nil {
		return nil
	}
	out, err := exec.Command("/usr/bin/ovs-vsctl", "--db=unix:"+socket, "--bare", "--columns=name", "find", "Interface", "external_ids:vm-uuid="+id).CombinedOutput()
	if err != nil {
		return []string{"switch: " + err.Error() + string(out)}
	}
	return strings.Fields(string(out))
}

// server reads the server as an administrator.
func (c *cloud) server(t *testing.T, id string) *servers.Server {
	t.Helper()
	s, err := servers.Get(t.Context(), c.admin.compute, id).Extract()
	if err != nil {
		t.Fatalf("get server %s: %v", id, err)
	}
	return s
}

// waitStatus waits until the server has the status and no task.
func (c *cloud) waitStatus(t *testing.T, id, status string) *servers.Server {
	t.Helper()
	var s *servers.Server
	eventually(t, bootLimit, "server "+id+" is "+status, func() bool {
		s = c.server(t, id)
		if s.Status == "ERROR" && status != "ERROR" {
			t.Fatalf("server %s is in ERROR: %+v\n%s", id, s.Fault, c.tail(30))
		}
		return s.Status == status && s.TaskState == ""
	})
	return s
}

// console returns the console log.
func (c *cloud) console(t *testing.T, id string) string {
	t.Helper()
	out, err := servers.ShowConsoleOutput(t.Context(), c.admin.compute, id, servers.ShowConsoleOutputOpts{}).Extract()
	if err != nil {
		t.Fatalf("console of %s: %v", id, err)
	}
	return out
}

// waitConsole waits for a text on the console.
func (c *cloud) waitConsole(t *testing.T, id, want string) {
	t.Helper()
	var last string
	eventually(t, bootLimit, "console of "+id+" says "+strconv.Quote(want), func() bool {
		last = c.console(t, id)
		return strings.Contains(last, want)
	})
}

// address is the server's first fixed address.
func (c *cloud) address(t *testing.T, id string) string {
	t.Helper()
	for _, list := range c.server(t, id).Addresses {
		for _, a := range list.([]any) {
			return a.(map[string]any)["addr"].(string)
		}
	}
	t.Fatalf("server %s has no address", id)
	return ""
}

// inRouter runs a command in the namespace of the private network's router, or
// of OVN's metadata agent there, whose routers have none: that is where a
// neighbour's or an outside packet comes from.
func (c *cloud) inRouter(t *testing.T, args ...string) (string, error) {
	t.Helper()
	list, err := exec.Command("/sbin/ip", "netns", "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(name, "qrouter-") && !strings.HasPrefix(name, "ovnmeta-") {
			continue
		}
		addrs, _ := exec.Command("/sbin/ip", "-n", name, "-o", "addr").Output()
		if !bytes.Contains(addrs, []byte("10.77.0.")) {
			continue
		}
		out, err := exec.CommandContext(t.Context(), "/sbin/ip", append([]string{"netns", "exec", name}, args...)...).CombinedOutput()
		return string(out), err
	}
	t.Fatal("the private network has no namespace of a router or of OVN's metadata agent")
	return "", nil
}

// firstPid is the host's pid of the instance's first process.
func (c *cloud) firstPid(t *testing.T, id string) int {
	t.Helper()
	files, _ := filepath.Glob("/sys/fs/cgroup/pids/*/" + id + "/cgroup.procs")
	if len(files) == 0 {
		files, _ = filepath.Glob("/sys/fs/cgroup/*/" + id + "/cgroup.procs")
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			pid, _ := strconv.Atoi(strings.TrimSpace(line))
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			for l := range strings.Lines(string(status)) {
				if f := strings.Fields(l); len(f) > 1 && f[0] == "NSpid:" && f[len(f)-1] == "1" {
					return pid
				}
			}
		}
	}
	t.Fatalf("instance %s has no first process", id)
	return 0
}

// imageID finds an image by name; an id is its own answer.
func (c *cloud) imageID(t *testing.T, name string) string {
	t.Helper()
	if strings.Count(name, "-") == 4 && len(name) == 36 {
		return name
	}
	pages, err := images.List(c.admin.image, images.ListOpts{Name: name}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := images.ExtractImages(pages)
	if err != nil || len(list) == 0 {
		t.Fatalf("image %s: %v", name, err)
	}
	return list[0].ID
}

// upload makes an image of a file for the demo user; it is deleted at the end.
func (c *cloud) upload(t *testing.T, name, container string, file string, props map[string]string) string {
	t.Helper()
	visibility, format := images.ImageVisibilityPrivate, "raw"
	if filepath.Ext(file) == ".qcow2" {
		format = "qcow2"
	}
	img, err := images.Create(t.Context(), c.demo.image, images.CreateOpts{
		Name: name, ContainerFormat: container, DiskFormat: format, Visibility: &visibility, Properties: props,
	}).Extract()
	if err != nil {
		t.Fatalf("create image: %v", err)
	}
	t.Cleanup(func() {
		if err := images.Delete(context.WithoutCancel(t.Context()), c.admin.image, img.ID).ExtractErr(); err != nil && !gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
			t.Errorf("delete image: %v", err)
		}
	})
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := imagedata.Upload(t.Context(), c.demo.image, img.ID, f).ExtractErr(); err != nil {
		t.Fatalf("upload image: %v", err)
	}
	return img.ID
}

func (c *cloud) flavorID(t *testing.T, name string) string {
	t.Helper()
	pages, err := flavors.ListDetail(c.admin.compute, flavors.ListOpts{AccessType: flavors.AllAccess}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := flavors.ExtractFlavors(pages)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if f.Name == name {
			return f.ID
		}
	}
	t.Fatalf("no flavor %s", name)
	return ""
}

// flavorWith makes a flavor of one VCPU, memory MiB and 1 GiB with these extra
// specs; it is deleted at the end.
func (c *cloud) flavorWith(t *testing.T, name string, memory int, specs flavors.ExtraSpecsOpts) {
	t.Helper()
	disk := 1
	f, err := flavors.Create(t.Context(), c.admin.compute, flavors.CreateOpts{Name: name, RAM: memory, VCPUs: 1, Disk: &disk}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := flavors.Delete(context.WithoutCancel(t.Context()), c.admin.compute, f.ID).ExtractErr(); err != nil {
			t.Errorf("delete flavor: %v", err)
		}
	})
	if _, err := flavors.CreateExtraSpecs(t.Context(), c.admin.compute, f.ID, specs).Extract(); err != nil {
		t.Fatal(err)
	}
}

func (c *cloud) networkID(t *testing.T, who clients, name string) string {
	t.Helper()
	if name == "" {
		name = "private"
	}
	pages, err := networks.List(who.network, networks.ListOpts{Name: name}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := networks.ExtractNetworks(pages)
	if err != nil || len(list) == 0 {
		t.Fatalf("network %s: %v", name, err)
	}
	return list[0].ID
}
