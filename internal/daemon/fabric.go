package daemon

import (
	"context"
	"net/netip"

	"github.com/gantry-project/gantry/internal/devcloud"
	"github.com/gantry-project/gantry/internal/devcloud/network"
	"github.com/gantry-project/gantry/netbridge/dhcp"
	"github.com/gantry-project/gantry/netbridge/dns"
	"github.com/gantry-project/gantry/netbridge/fabric"
	"github.com/gantry-project/gantry/netbridge/ra"
)

// hostFabric is this host's network as the network service wants it.
type hostFabric struct{ f *fabric.Fabric }

var _ network.Fabric = hostFabric{}

// SetNetwork implements network.Fabric.
func (h hostFabric) SetNetwork(ctx context.Context, p network.NetworkPlan) error {
	return h.f.SetNetwork(ctx, fabricNetwork(p))
}

// SetGroup implements network.Fabric.
func (h hostFabric) SetGroup(ctx context.Context, p network.GroupPlan) error {
	return h.f.SetGroup(ctx, fabric.Group(p))
}

// SetPorts implements network.Fabric.
func (h hostFabric) SetPorts(ctx context.Context, plans ...network.PortPlan) error {
	return h.f.SetPorts(ctx, each(plans, fabricPort)...)
}

// SetRouter implements network.Fabric.
func (h hostFabric) SetRouter(ctx context.Context, p network.RouterPlan) error {
	return h.f.SetRouter(ctx, fabricRouter(p))
}

// Sync implements network.Fabric.
func (h hostFabric) Sync(ctx context.Context, w network.World) error {
	return h.f.Sync(ctx, fabric.World{
		Networks: each(w.Networks, fabricNetwork), Routers: each(w.Routers, fabricRouter), Ports: each(w.Ports, fabricPort),
		Groups: each(w.Groups, func(p network.GroupPlan) fabric.Group { return fabric.Group(p) }),
	})
}

// Repair implements network.Fabric.
func (h hostFabric) Repair(ctx context.Context) error { return h.f.Repair(ctx) }

// Watch implements network.Fabric.
func (h hostFabric) Watch(ctx context.Context, all func(devices []string), seen func(device string, up bool)) error {
	return h.f.Watch(ctx, all, seen)
}

// each is the list with f of each member.
func each[A, B any](list []A, f func(A) B) []B {
	out := make([]B, 0, len(list))
	for _, a := range list {
		out = append(out, f(a))
	}
	return out
}

func fabricNetwork(p network.NetworkPlan) fabric.Network {
	n := fabric.Network{ID: p.ID, Absent: p.Absent, Bridge: p.Bridge, MTU: p.MTU, Down: p.Down}
	for _, s := range p.Subnets {
		if p.External && s.Gateway.IsValid() {
			n.Gateways = append(n.Gateways, netip.PrefixFrom(s.Gateway, s.CIDR.Bits()))
		}
	}
	if p.Serving != nil {
		i := fabricInterface(*p.Serving)
		n.Serving = &i
	}
	return n
}

func fabricPort(p network.PortPlan) fabric.Port {
	return fabric.Port{
		ID: p.ID, Absent: p.Absent, Network: p.NetworkID, Device: p.Device, Down: p.Down, Open: p.Open,
		Sources: each(p.Sources, func(s network.Source) fabric.Source { return fabric.Source(s) }),
		Rules:   each(p.Rules, func(r network.Rule) fabric.Rule { return fabric.Rule(r) }),
	}
}

func fabricLease(l network.Lease) dhcp.Lease {
	return dhcp.Lease{
		Server: l.Server, Address: l.Address, Router: l.Gateway, DNS: l.DNS, Domain: network.Domain, MTU: l.MTU, HostName: l.HostName, Options: l.Options,
		Routes: each(l.Routes, func(r network.HostRoute) dhcp.Route { return dhcp.Route(r) }),
	}
}

func fabricName(h devcloud.Named) dns.Name { return dns.Name{Host: h.Name, Addresses: h.Addresses} }

func fabricInterface(i network.RouterInterface) fabric.Interface {
	out := fabric.Interface{ID: i.PortID, Device: i.Device, MAC: i.MAC, MTU: i.MTU, Bridge: i.Bridge, Addresses: i.Addresses}
	if a := i.Advert; a != nil {
		prefix := func(autonomous bool) func(netip.Prefix) ra.Prefix {
			return func(p netip.Prefix) ra.Prefix { return ra.Prefix{Network: p, Autonomous: autonomous} }
		}
		out.Advert = &ra.Advert{
			MAC: i.MAC, MTU: i.MTU, Managed: a.Managed, Other: a.Other, DNS: a.DNS, Domain: network.Domain,
			Prefixes: append(each(a.Autonomous, prefix(true)), each(a.OnLink, prefix(false))...),
		}
	}
	return out
}

func fabricRouter(p network.RouterPlan) fabric.Router {
	r := fabric.Router{
		ID: p.ID, Absent: p.Absent, Down: p.Down, Interfaces: each(p.Interfaces, fabricInterface),
		Floating: each(p.Floating, func(f network.FloatingAddress) fabric.Floating {
			return fabric.Floating{Outside: f.Floating, Fixed: f.Fixed}
		}),
		Routes: each(p.Routes, func(r network.HostRoute) fabric.Route { return fabric.Route(r) }),
	}
	if p.Gateway != nil {
		r.Gateway = &fabric.Gateway{Interface: fabricInterface(p.Gateway.RouterInterface), NextHops: p.Gateway.NextHops, SNAT: p.Gateway.SNAT}
	}
	return r
}
