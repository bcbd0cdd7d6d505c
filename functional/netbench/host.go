package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/fabric"
	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// outside is the address of the machine outside, uplink the host's towards it.
const outside, uplink = "198.51.100.1", "198.51.100.2"

// world gives a host, nil is the own namespace, a machine outside.
func world(host *os.File) (*os.File, error) {
	out, err := netns.New()
	if err != nil {
		return nil, err
	}
	in, err := link.Open(host, nil)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if err := in.AddVeth(link.Veth{Name: "up0", Peer: "world", PeerMAC: "02:00:00:00:00:01", PeerNS: int(out.Fd())}); err != nil { //nolint:gosec // a descriptor
		return nil, err
	}
	there, err := link.Open(out, nil)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	for _, end := range []struct {
		c             *link.Conn
		name, address string
	}{{in, "up0", uplink}, {there, "world", outside}} {
		l, err := end.c.ByName(end.name)
		if err != nil {
			return nil, err
		}
		if err := end.c.AddAddress(l.Index, netip.PrefixFrom(netip.MustParseAddr(end.address), 24)); err != nil {
			return nil, err
		}
		if err := end.c.Set(l.Index, link.Change{Up: true}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ours is a host with a network of a tenant behind a router.
type ours struct {
	ns, outside *os.File
	fabric      *fabric.Fabric
	plugger     netbridge.Plugger
	made        []*guest
}

// guest is an instance, as far as its network goes.
type guest struct {
	ns   *os.File
	id   string
	port fabric.Port
	ip   netip.Addr
}

const (
	lan, out = "brqlan", "brqpublic"
	group    = "default"
)

func fd(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func newOurs(ctx context.Context, work string) (*ours, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	o := &ours{ns: ns}
	if o.outside, err = world(ns); err != nil {
		return nil, err
	}
	o.fabric = fabric.New(fabric.Options{Cloud: "bench", Dir: filepath.Join(work, "ours"), HostNetNS: fd(ns)})
	o.plugger = netbridge.New(netbridge.Options{HostNetNS: fd(ns)})
	prefix := netip.MustParsePrefix
	return o, o.fabric.Sync(ctx, fabric.World{
		Networks: []fabric.Network{
			{ID: "public", Bridge: out, MTU: 1500, Gateways: []netip.Prefix{prefix("172.24.4.1/24")}},
			{ID: "lan", Bridge: lan, MTU: 1500},
		},
		Groups: []fabric.Group{{ID: group}},
		Routers: []fabric.Router{{
			ID: "router",
			Interfaces: []fabric.Interface{{
				ID: "aaaaaaaa-aaa", Device: "qr-aaaaaaaa-aa", MAC: "fa:16:3e:ff:00:01", MTU: 1500, Bridge: lan, Addresses: []netip.Prefix{prefix("10.0.0.1/16")},
			}},
			Gateway: &fabric.Gateway{
				Interface: fabric.Interface{
					ID: "bbbbbbbb-bbb", Device: "qg-bbbbbbbb-bb", MAC: "fa:16:3e:ff:00:02", MTU: 1500, Bridge: out, Addresses: []netip.Prefix{prefix("172.24.4.2/24")},
				},
				NextHops: []netip.Addr{netip.MustParseAddr("172.24.4.1")}, SNAT: true,
			},
		}},
	})
}

// plan is the n-th instance.
func (o *ours) plan(n int) (*guest, netbridge.Plan) {
	g := &guest{id: fmt.Sprintf("%08x-0000-4000-8000-000000000000", n), ip: netip.AddrFrom4([4]byte{10, 0, byte(1 + n>>8), byte(n)})} //nolint:gosec // few
	mac := fmt.Sprintf("fa:16:3e:00:%02x:%02x", n>>8&0xff, n&0xff)
	g.port = fabric.Port{
		ID: g.id, Device: netbridge.TapName(g.id), Sources: []fabric.Source{{MAC: mac, Address: netip.PrefixFrom(g.ip, 32)}},
		Rules: []fabric.Rule{ // of a default group, and one that lets the measurements in
			{First: -1, Last: -1},
			{IPv6: true, First: -1, Last: -1},
			{Ingress: true, First: -1, Last: -1, Group: group},
			{Ingress: true, IPv6: true, First: -1, Last: -1, Group: group},
			{Ingress: true, Protocol: 6, First: port, Last: port},
		},
	}
	return g, netbridge.Plan{Owner: g.id, Interfaces: []netbridge.Interface{{
		ID: g.id, HostName: g.port.Device, GuestName: "eth0", MAC: mac, MTU: 1500, Attachment: netbridge.AttachBridge, Bridge: lan,
		Addresses: []netip.Prefix{netip.PrefixFrom(g.ip, 16)},
		Routes:    []netbridge.Route{{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: netip.MustParseAddr("10.0.0.1")}},
	}}}
}

// up makes the network of the n-th instance: namespace, rules, devices.
func (o *ours) up(ctx context.Context, n int) (*guest, error) {
	g, plan := o.plan(n)
	var err error
	if g.ns, err = netns.New(); err != nil {
		return nil, err
	}
	if err := o.fabric.SetPorts(ctx, g.port); err != nil {
		return nil, err
	}
	plan.NetNS = fd(g.ns)
	return g, o.plugger.Set(ctx, plan)
}

// down takes it away.
func (o *ours) down(ctx context.Context, g *guest) error {
	if err := o.plugger.Set(ctx, netbridge.Plan{Owner: g.id}); err != nil {
		return err
	}
	if err := o.fabric.SetPorts(ctx, fabric.Port{ID: g.id, Absent: true}); err != nil {
		return err
	}
	return g.ns.Close()
}
