//go:build functional

package functional

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/attachinterfaces"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/portsecurity"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
)

// inside runs a command of the host in the guest's network namespace.
func (c *cloud) inside(t *testing.T, id string, args ...string) (string, error) {
	t.Helper()
	pid := strconv.Itoa(c.firstPid(t, id))
	out, err := exec.CommandContext(t.Context(), "/usr/bin/nsenter", append([]string{"-t", pid, "-n", "--"}, args...)...).CombinedOutput()
	return string(out), err
}

// guestLinks maps the addresses that the guest's interfaces have, without their
// lengths, to the names of the interfaces.
func (c *cloud) guestLinks(t *testing.T, id string) map[string]string {
	t.Helper()
	out, err := c.inside(t, id, "/sbin/ip", "-4", "-o", "addr")
	if err != nil {
		t.Fatalf("addresses inside %s: %v %s", id, err, out)
	}
	links := map[string]string{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 3 && f[1] != "lo" {
			address, _, _ := strings.Cut(f[3], "/")
			links[address] = f[1]
		}
	}
	return links
}

// agree waits until Neutron, Nova and the guest say the same of the addresses
// of a server, and returns them with the names of their interfaces.
func (c *cloud) agree(t *testing.T, id string, want int) map[string]string {
	t.Helper()
	var inNeutron, inNova, guest []string
	links := map[string]string{}
	eventually(t, bootLimit, fmt.Sprintf("%d addresses of %s everywhere", want, id), func() bool {
		inNeutron, inNova, guest = nil, nil, nil
		for _, p := range c.portsOf(t, id) {
			for _, ip := range p.FixedIPs {
				inNeutron = append(inNeutron, ip.IPAddress)
			}
		}
		for _, list := range c.server(t, id).Addresses {
			for _, a := range list.([]any) {
				inNova = append(inNova, a.(map[string]any)["addr"].(string))
			}
		}
		links = c.guestLinks(t, id)
		for address := range links {
			guest = append(guest, address)
		}
		for _, list := range [][]string{inNeutron, inNova, guest} {
			slices.Sort(list)
		}
		return len(guest) == want && slices.Equal(inNeutron, inNova) && slices.Equal(inNova, guest)
	})
	return links
}

func (c *cloud) portsOf(t *testing.T, id string) []ports.Port {
	t.Helper()
	pages, err := ports.List(c.admin.network, ports.ListOpts{DeviceID: id}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := ports.ExtractPorts(pages)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// hotNetwork makes a network of the tenant's with a DHCP server.
func (c *cloud) hotNetwork(t *testing.T, name, cidr string) (network, subnet string) {
	t.Helper()
	// Without filters: the agent fails to change one of a port that it has, and
	// tries that for a minute in which it does nothing else.
	off := false
	n, err := networks.Create(t.Context(), c.demo.network, portsecurity.NetworkCreateOptsExt{
		CreateOptsBuilder: networks.CreateOpts{Name: name}, PortSecurityEnabled: &off,
	}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := networks.Delete(context.WithoutCancel(t.Context()), c.demo.network, n.ID).ExtractErr(); err != nil {
			t.Errorf("delete network: %v", err)
		}
	})
	none := ""
	s, err := subnets.Create(t.Context(), c.demo.network, subnets.CreateOpts{NetworkID: n.ID, CIDR: cidr, IPVersion: 4, GatewayIP: &none}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	return n.ID, s.ID
}

// served is the address at which Neutron serves a network, and the neighbour of
// each port there: the DHCP server's, or that of OVN's metadata agent.
func (c *cloud) served(t *testing.T, network string) string {
	t.Helper()
	for _, owner := range []string{"network:dhcp", "network:distributed"} {
		pages, err := ports.List(c.admin.network, ports.ListOpts{NetworkID: network, DeviceOwner: owner}).AllPages(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		list, err := ports.ExtractPorts(pages)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 1 {
			return list[0].FixedIPs[0].IPAddress
		}
	}
	t.Fatalf("network %s is not served", network)
	return ""
}

// TestFunctionalInterfacesComeAndGo plugs and unplugs by every way that the API
// has while the guest runs, and asks Neutron, Nova and the guest each time.
func TestFunctionalInterfacesComeAndGo(t *testing.T) {
	c := the
	hot, subnet := c.hotNetwork(t, "hot", "10.88.0.0/24")
	id := c.active(t, bootOpts{})
	first := c.address(t, id)

	c.openstack(t, c.demo, "server", "add", "network", id, "hot")
	links := c.agree(t, id, 2)
	second := ""
	for address, name := range links {
		if strings.HasPrefix(address, "10.88.0.") && name == "eth1" {
			second = address
		}
	}
	if second == "" || links[first] != "eth0" {
		t.Fatalf("interfaces inside: %v", links)
	}
	dhcp := c.served(t, hot)
	eventually(t, bootLimit, "ping over the new interface", func() bool {
		_, err := c.inside(t, id, "/bin/busybox", "ping", "-c1", "-W1", dhcp)
		return err == nil
	})

	// a port of the tenant's, a second one in the first network
	p, err := ports.Create(t.Context(), c.demo.network, ports.CreateOpts{NetworkID: c.networkID(t, c.demo, ""), Name: "mine"}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ports.Delete(context.WithoutCancel(t.Context()), c.demo.network, p.ID).ExtractErr(); err != nil {
			t.Errorf("the tenant's port is gone: %v", err)
		}
	})
	c.openstack(t, c.demo, "server", "add", "port", id, "mine")
	if links = c.agree(t, id, 3); links[p.FixedIPs[0].IPAddress] != "eth2" {
		t.Errorf("interfaces inside: %v", links)
	}
	// it is in use now, and the answer says so
	if out, err := c.tryOpenstack(t, c.demo, "server", "add", "port", id, "mine"); err == nil || !strings.Contains(out, "still in use") {
		t.Errorf("twice: %v %s", err, out)
	}
	if _, err := attachinterfaces.Create(t.Context(), c.demo.compute, id, attachinterfaces.CreateOpts{
		NetworkID: hot, FixedIPs: []attachinterfaces.FixedIP{{IPAddress: second}},
	}).Extract(); err == nil {
		t.Error("an address that is taken was given again")
	}

	// addresses
	old := *c.demo.compute
	old.Microversion = "2.43"
	act := func(body map[string]any) {
		t.Helper()
		resp, err := old.Post(t.Context(), old.ServiceURL("servers", id, "action"), body, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	act(map[string]any{"addFixedIp": map[string]string{"networkId": hot}})
	links = c.agree(t, id, 4)
	for address, name := range links {
		if strings.HasPrefix(address, "10.88.0.") && name != "eth1" {
			t.Errorf("interfaces inside: %v", links)
		}
	}
	act(map[string]any{"removeFixedIp": map[string]string{"address": second}})
	links = c.agree(t, id, 3)
	if _, there := links[second]; there {
		t.Errorf("interfaces inside: %v", links)
	}

	// what Neutron's user changes and deletes reaches the guest
	for _, port := range c.portsOf(t, id) {
		if port.NetworkID == hot {
			ips := []ports.IP{{SubnetID: subnet, IPAddress: "10.88.0.77"}}
			if _, err := ports.Update(t.Context(), c.demo.network, port.ID, ports.UpdateOpts{FixedIPs: ips}).Extract(); err != nil {
				t.Fatal(err)
			}
			if links = c.agree(t, id, 3); links["10.88.0.77"] != "eth1" {
				t.Errorf("interfaces inside: %v", links)
			}
			if err := ports.Delete(t.Context(), c.demo.network, port.ID).ExtractErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.agree(t, id, 2)

	// restarts keep what is there; the first interface goes, the other's name stays
	if err := servers.Reboot(t.Context(), c.demo.compute, id, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(t, id, "ACTIVE")
	c.restart(t, true)
	c.agree(t, id, 2)
	for _, port := range c.portsOf(t, id) {
		if port.ID != p.ID {
			c.openstack(t, c.demo, "server", "remove", "port", id, port.ID)
		}
	}
	if links = c.agree(t, id, 1); links[p.FixedIPs[0].IPAddress] != "eth2" {
		t.Errorf("interfaces inside: %v", links)
	}
	c.openstack(t, c.demo, "server", "remove", "port", id, p.ID)
	c.agree(t, id, 0)
}

// TestFunctionalCrashInTheMiddleOfAnInterface: a kill while a port comes or goes
// ends with what Neutron says, on all sides.
func TestFunctionalCrashInTheMiddleOfAnInterface(t *testing.T) {
	c := the
	hot, _ := c.hotNetwork(t, "cut", "10.89.0.0/24")
	id := c.active(t, bootOpts{})
	// cut asks for what the service dies of; nobody answers.
	cut := func(point string, ask func(context.Context)) {
		t.Helper()
		c.restart(t, false, "gantry.failpoints="+point+"=kill")
		ctx, cancel := context.WithCancel(t.Context())
		var asked sync.WaitGroup
		asked.Go(func() { ask(ctx) })
		c.startAfter(t, point)
		cancel()
		asked.Wait()
	}
	second := func() string {
		for _, port := range c.portsOf(t, id) {
			if port.NetworkID == hot {
				return port.ID
			}
		}
		t.Fatal("no port in the second network")
		return ""
	}
	attach := func(ctx context.Context) {
		attachinterfaces.Create(ctx, c.demo.compute, id, attachinterfaces.CreateOpts{NetworkID: hot})
	}
	for _, row := range []struct{ come, goes string }{
		{"compute.attach.bound", "compute.detach.unplugged"},
		{"compute.attach.plugged", ""},
	} {
		cut(row.come, attach)
		c.agree(t, id, 2)
		port := second()
		if row.goes != "" {
			cut(row.goes, func(ctx context.Context) { attachinterfaces.Delete(ctx, c.demo.compute, id, port) })
			c.agree(t, id, 2)
		}
		c.openstack(t, c.demo, "server", "remove", "port", id, port)
		c.agree(t, id, 1)
		if s := c.server(t, id); s.Status != "ACTIVE" || s.TaskState != "" {
			t.Errorf("after %s: %s %s", row.come, s.Status, s.TaskState)
		}
	}
}
