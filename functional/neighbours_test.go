//go:build functional

package functional

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/portsbinding"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"github.com/gantry-project/gantry/netbridge/netns"
)

// pings says whether the guest gets an answer from the address, to a packet
// from the given source, or from its own.
func (c *cloud) pings(t *testing.T, id, address string, source ...string) bool {
	t.Helper()
	args := []string{"/bin/busybox", "ping", "-c1", "-W1"}
	for _, s := range source {
		args = append(args, "-I", s)
	}
	_, err := c.inside(t, id, append(args, address)...)
	return err == nil
}

// sources listens for what gets to a guest as ICMP and sends where it says that
// it comes from, in its order, until the test ends.
func (c *cloud) sources(t *testing.T, id string) <-chan string {
	t.Helper()
	ns, err := netns.Open(fmt.Sprintf("/proc/%d/ns/net", c.firstPid(t, id)))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var socket net.PacketConn
	err = netns.Do(ns, func() (err error) {
		socket, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	out := make(chan string, 10000)
	go func() {
		defer close(out)
		for b := make([]byte, 2000); ; {
			_, from, err := socket.ReadFrom(b)
			if err != nil {
				return
			}
			out <- from.String()
		}
	}()
	return out
}

// TestFunctionalNeighbours: two guests in one network reach each other as far as
// Neutron says so: not from an address that is not theirs, and not past a
// security group.
func TestFunctionalNeighbours(t *testing.T) {
	const foreign = "10.77.0.251"
	c := the
	one, two := c.boot(t, bootOpts{name: "one"}), c.boot(t, bootOpts{name: "two"})
	c.waitStatus(t, one, "ACTIVE")
	c.waitStatus(t, two, "ACTIVE")
	from, to := c.address(t, one), c.address(t, two)
	eventually(t, bootLimit, "one guest reaches the other", func() bool { return c.pings(t, one, to) })
	eventually(t, bootLimit, "and the other the one", func() bool { return c.pings(t, two, from) })

	// what one sends in another's name does not get there, and what it sends next does
	if out, err := c.inside(t, one, "/sbin/ip", "address", "add", foreign+"/32", "dev", "eth0"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	heard := c.sources(t, two)
	c.pings(t, one, to, foreign)
	eventually(t, bootLimit, "one guest still reaches the other", func() bool { return c.pings(t, one, to) })
	who := <-heard
	for who != from && who != foreign {
		who = <-heard
	}
	if who != from {
		t.Errorf("heard from %s, want the first from %s", who, from)
	}
	port := c.portsOf(t, one)[0]
	pairs := []ports.AddressPair{{IPAddress: foreign}}
	if _, err := ports.Update(t.Context(), c.demo.network, port.ID, ports.UpdateOpts{AllowedAddressPairs: &pairs}).Extract(); err != nil {
		t.Fatal(err)
	}
	eventually(t, bootLimit, "the address is allowed, and gets there", func() bool {
		c.pings(t, one, to, foreign)
		for {
			select {
			case who := <-heard:
				if who == foreign {
					return true
				}
			default:
				return false
			}
		}
	})

	// a group that lets nothing in, then echo requests, then nothing again
	group, err := groups.Create(t.Context(), c.demo.network, groups.CreateOpts{Name: "door"}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := groups.Delete(context.WithoutCancel(t.Context()), c.demo.network, group.ID).ExtractErr(); err != nil {
			t.Errorf("delete group: %v", err)
		}
	})
	had := c.portsOf(t, two)[0]
	join := func(ids []string) {
		t.Helper()
		if _, err := ports.Update(context.WithoutCancel(t.Context()), c.demo.network, had.ID, ports.UpdateOpts{SecurityGroups: &ids}).Extract(); err != nil {
			t.Error(err)
		}
	}
	join([]string{group.ID})
	t.Cleanup(func() { join(had.SecurityGroups) }) // a group in use cannot be deleted
	shut := func() bool { return !c.pings(t, one, to) }
	eventually(t, bootLimit, "the door is shut", shut)
	rule, err := rules.Create(t.Context(), c.demo.network, rules.CreateOpts{
		SecGroupID: group.ID, Direction: rules.DirIngress, EtherType: rules.EtherType4, Protocol: rules.ProtocolICMP,
	}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, bootLimit, "the door is open", func() bool { return c.pings(t, one, to) })
	if err := rules.Delete(t.Context(), c.demo.network, rule.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	eventually(t, bootLimit, "the door is shut again", shut)
}

// TestFunctionalPortBoundElsewhere: a port that somebody has bound to another
// host is this host's again, as stock Nova's heal task has it.
func TestFunctionalPortBoundElsewhere(t *testing.T) {
	c := the
	id := c.active(t, bootOpts{})
	port := c.portsOf(t, id)[0].ID
	c.restart(t, false, "DEFAULT.heal_instance_info_cache_interval=1")
	t.Cleanup(func() { c.restart(t, false) })
	elsewhere := "elsewhere"
	if _, err := ports.Update(t.Context(), c.admin.network, port, portsbinding.UpdateOptsExt{UpdateOptsBuilder: ports.UpdateOpts{}, HostID: &elsewhere}).Extract(); err != nil {
		t.Fatal(err)
	}
	eventually(t, bootLimit, "the port is bound to this host", func() bool {
		var p struct{ portsbinding.PortsBindingExt }
		if err := ports.Get(t.Context(), c.admin.network, port).ExtractInto(&p); err != nil {
			t.Fatal(err)
		}
		return p.HostID == host && p.VIFType != "binding_failed" && p.VIFType != "unbound"
	})
	eventually(t, bootLimit, "its router answers", func() bool { return c.pings(t, id, "10.77.0.1") })
}
