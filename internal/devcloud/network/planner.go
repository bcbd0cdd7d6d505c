package network

import (
	"net/netip"
	"slices"
	"strings"
)

// key names one plan.
type key struct {
	kind kind
	id   string
}

// planned are the kinds that have plans, in the order in which they are sent.
var planned = []kind{kindNetwork, kindGroup, kindPort, kindRouter}

// touched are the plans that a transaction may have changed.
func (st *state) touched() []key {
	seen := map[key]bool{}
	add := func(k kind, id string) {
		if id != "" {
			seen[key{k, id}] = true
		}
	}
	onNetwork := func(id string) {
		add(kindNetwork, id)
		for p := range st.ports.all() {
			if p.Network != id {
				continue
			}
			if add(kindPort, p.ID); p.routed() {
				add(kindRouter, p.DeviceID)
			}
		}
	}
	for id := range st.networks.changed {
		onNetwork(id)
	}
	each(&st.subnets, func(s *subnet) { onNetwork(s.Network) })
	each(&st.ports, func(p *port) {
		if add(kindPort, p.ID); p.routed() {
			add(kindRouter, p.DeviceID)
		}
		if p.Owner == ownerDHCP {
			onNetwork(p.Network) // routers tell of it
		} else if st.isGateway(p) {
			add(kindNetwork, p.Network)
		}
		for _, g := range p.Groups {
			add(kindGroup, g)
		}
	})
	each(&st.groups, func(g *group) { add(kindGroup, g.ID) })
	each(&st.rules, func(r *rule) {
		for p := range st.ports.all() {
			if slices.Contains(p.Groups, r.Group) {
				add(kindPort, p.ID)
			}
		}
	})
	each(&st.addressGroups, func(a *addressGroup) {
		for r := range st.rules.all() {
			if r.RemoteAddresses != a.ID {
				continue
			}
			for p := range st.ports.all() {
				if slices.Contains(p.Groups, r.Group) {
					add(kindPort, p.ID)
				}
			}
		}
	})
	each(&st.routers, func(r *router) { add(kindRouter, r.ID) })
	each(&st.floatings, func(f *floating) { add(kindRouter, f.Router) })
	out := make([]key, 0, len(seen))
	for k := range seen {
		out = append(out, k)
	}
	return out
}

// each calls f with what changed records were and are.
func each[T record](t *table[T], f func(T)) {
	var none T
	for id, now := range t.changed {
		if old, ok := t.base[id]; ok {
			f(old)
		}
		if now != none {
			f(now)
		}
	}
}

// world is all plans.
func (st *state) world() World {
	var w World
	for _, n := range st.networks.where(func(*network) bool { return true }) {
		w.Networks = append(w.Networks, st.networkPlan(n.ID))
	}
	for _, g := range st.groups.where(func(*group) bool { return true }) {
		w.Groups = append(w.Groups, st.groupPlan(g.ID))
	}
	for _, p := range st.ports.where((*port).plugged) {
		w.Ports = append(w.Ports, st.portPlan(p.ID))
	}
	for _, r := range st.routers.where(func(*router) bool { return true }) {
		w.Routers = append(w.Routers, st.routerPlan(r.ID))
	}
	return w
}

func (st *state) networkPlan(id string) NetworkPlan {
	p := NetworkPlan{ID: id, Bridge: bridgeName(id)}
	n, ok := st.networks.get(id)
	if !ok {
		p.Absent = true
		return p
	}
	p.MTU, p.Down, p.External = n.MTU, !n.Up, n.External
	for _, s := range st.subnetsOf(id) {
		p.Subnets = append(p.Subnets, SubnetPlan{
			ID: s.ID, CIDR: s.CIDR, Gateway: s.Gateway, DHCP: s.DHCP, Mode: s.AddressMode, DNS: s.DNS, Routes: s.Routes,
		})
	}
	p.Serving = st.servingInterface(id)
	return p
}

func (st *state) groupPlan(id string) GroupPlan {
	p := GroupPlan{ID: id}
	if _, ok := st.groups.get(id); !ok {
		p.Absent = true
		return p
	}
	for m := range st.ports.all() {
		if !slices.Contains(m.Groups, id) {
			continue
		}
		for _, s := range m.sources() {
			p.Members = append(p.Members, s.Address)
		}
	}
	slices.SortFunc(p.Members, netip.Prefix.Compare)
	p.Members = slices.Compact(p.Members)
	return p
}

// plugged reports whether the port is a device of an instance on this host.
func (p *port) plugged() bool {
	return p.VIF == vifBridge && p.DeviceID != "" && !strings.HasPrefix(p.Owner, ownersNetwork)
}

// sources are the pairs that the port may send from.
func (p *port) sources() []Source {
	var out []Source
	for _, ip := range p.IPs {
		out = append(out, Source{p.MAC, netip.PrefixFrom(ip.Address, ip.Address.BitLen())})
	}
	for _, a := range p.Pairs {
		if prefix, ok := a.prefix(); ok {
			out = append(out, Source{a.MAC, prefix})
		}
	}
	return out
}

func (st *state) portPlan(id string) PortPlan {
	plan := PortPlan{ID: id, Device: tapName(id)}
	p, ok := st.ports.get(id)
	if !ok || !p.plugged() {
		plan.Absent = true
		return plan
	}
	plan.NetworkID, plan.Bridge, plan.MAC, plan.Down, plan.Open = p.Network, bridgeName(p.Network), p.MAC, !p.Up, !p.Secure
	for _, ip := range p.IPs {
		plan.Addresses = append(plan.Addresses, ip.Address)
	}
	if len(plan.Addresses) > 0 {
		plan.HostName = hostName(plan.Addresses[0])
	}
	if plan.Open {
		return plan
	}
	plan.Sources = p.sources()
	for _, r := range st.rules.where(func(r *rule) bool { return slices.Contains(p.Groups, r.Group) }) {
		plan.Rules = append(plan.Rules, st.rulePlans(r)...)
	}
	return plan
}

// rulePlans are the rules that a rule stands for: one, or with an address group
// one for each network of it.
func (st *state) rulePlans(r *rule) []Rule {
	if r.RemoteAddresses == "" {
		return []Rule{r.plan()}
	}
	var out []Rule
	if a, ok := st.addressGroups.get(r.RemoteAddresses); ok {
		for _, p := range a.Addresses {
			if p.Addr().Is6() != (r.Ethertype == ipv6) {
				continue
			}
			one := r.plan()
			if p.Bits() > 0 {
				one.Remote = p
			}
			out = append(out, one)
		}
	}
	return out
}

// hostName is what Neutron calls who has an address.
func hostName(a netip.Addr) string {
	return "host-" + strings.NewReplacer(".", "-", ":", "-").Replace(a.String())
}

func (r *rule) plan() Rule {
	out := Rule{
		Ingress: r.Direction == ingress, IPv6: r.Ethertype == ipv6, Protocol: r.number(), First: -1, Last: -1, Group: r.RemoteGroup,
	}
	if p, ok := r.remote(); ok && p.Bits() > 0 {
		out.Remote = p
	}
	if r.Min != nil {
		out.First = *r.Min
	}
	if r.Max != nil {
		out.Last = *r.Max
	}
	return out
}

func (st *state) routerPlan(id string) RouterPlan {
	plan := RouterPlan{ID: id, Namespace: "qrouter-" + id}
	r, ok := st.routers.get(id)
	if !ok {
		plan.Absent = true
		return plan
	}
	plan.Down, plan.Routes = !r.Up, r.Routes
	for _, p := range st.interfacesOf(id) {
		i := st.routerInterface(p, "qr-")
		i.Advert = st.advert(p)
		plan.Interfaces = append(plan.Interfaces, i)
	}
	gw, ok := st.ports.get(r.Gateway)
	if !ok {
		return plan
	}
	plan.Gateway = &RouterGateway{RouterInterface: st.routerInterface(gw, "qg-"), SNAT: r.SNAT}
	for _, ip := range gw.IPs {
		if s, ok := st.subnets.get(ip.Subnet); ok && s.Gateway.IsValid() {
			plan.Gateway.NextHops = append(plan.Gateway.NextHops, s.Gateway)
		}
	}
	for _, f := range st.floatings.where(func(f *floating) bool { return f.Router == id }) {
		plan.Floating = append(plan.Floating, FloatingAddress{f.Address, f.Fixed})
	}
	return plan
}

// advert is what a router says at a port of its own: of subnets with a mode for
// it (neutron/agent/linux/ra.py).
func (st *state) advert(p *port) *RouterAdvert {
	var a *RouterAdvert
	for _, ip := range p.IPs {
		sub, ok := st.subnets.get(ip.Subnet)
		if !ok || sub.RAMode == "" {
			continue
		}
		if a == nil {
			a = &RouterAdvert{}
		}
		switch sub.RAMode {
		case modeStateful:
			a.Managed = true
			a.OnLink = append(a.OnLink, sub.CIDR)
			continue // the rest is told with the address
		case modeStateless:
			a.Other = true
		}
		a.Autonomous = append(a.Autonomous, sub.CIDR)
		a.DNS = append(a.DNS, st.nameServers(sub)...)
	}
	return a
}

func (st *state) routerInterface(p *port, prefix string) RouterInterface {
	i := RouterInterface{PortID: p.ID, Device: prefix + p.ID[:deviceID], MAC: p.MAC, Bridge: bridgeName(p.Network)}
	if n, ok := st.networks.get(p.Network); ok {
		i.MTU = n.MTU
	}
	for _, ip := range p.IPs {
		if s, ok := st.subnets.get(ip.Subnet); ok {
			i.Addresses = append(i.Addresses, netip.PrefixFrom(ip.Address, s.CIDR.Bits()))
		}
	}
	return i
}
