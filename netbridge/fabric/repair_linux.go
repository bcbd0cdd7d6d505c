package fabric

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gantry-project/gantry/netbridge/firewall"
	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// Repair makes again what somebody else has undone: bridges, what serves
// networks, routers, sets, and rules, also those that are not before the rules
// of others any more. It knows what was set since the process started, and
// touches nothing that holds. It tries all and joins the errors.
func (f *Fabric) Repair(ctx context.Context) error {
	networks, routers, err := f.broken(ctx)
	errs := []error{err}
	for _, n := range networks {
		errs = append(errs, f.SetNetwork(ctx, n))
	}
	for _, r := range routers {
		errs = append(errs, f.SetRouter(ctx, r))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("repair networks: %w", err)
	}
	return nil
}

// broken lists what does not hold; the filter of ports it mends.
func (f *Fabric) broken(ctx context.Context) (networks []Network, routers []Router, err error) {
	s, done, err := f.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	found, err := firewall.Look(ctx, s.ns)
	if err != nil {
		return nil, nil, err
	}
	list, err := s.host.List()
	if err != nil {
		return nil, nil, err
	}
	links := map[string]link.Link{}
	for _, l := range list {
		links[l.Name] = l
	}
	for _, id := range slices.Sorted(maps.Keys(f.networks)) {
		if n := f.networks[id]; !f.holds(n, links, found) {
			networks = append(networks, n)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(f.routers)) {
		if r := f.routers[id]; !f.routes(ctx, r, links) {
			routers = append(routers, r)
		}
	}
	return networks, routers, f.mendPorts(ctx, s, found)
}

// holds reports whether a network is there with what serves it.
func (f *Fabric) holds(n Network, links map[string]link.Link, found *firewall.Found) bool {
	bridge, ok := links[n.Bridge]
	if !ok || bridge.Alias != f.mark(n.ID) || bridge.Up == n.Down || bridge.MTU != n.MTU {
		return false
	}
	if n.Serving != nil && !n.Down && !f.plugged(*n.Serving, servingPin(n.ID), links) {
		return false
	}
	return found.Holds(false, f.chains(n, false)...) && found.Holds(true, f.chains(n, true)...)
}

// routes reports whether a router is there.
func (f *Fabric) routes(ctx context.Context, r Router, links map[string]link.Link) bool {
	if slices.ContainsFunc(r.interfaces(), func(i Interface) bool { return !f.plugged(i, routerPin(r.ID), links) }) {
		return false
	}
	ns, err := netns.Open(f.pin(routerPin(r.ID)))
	if err != nil {
		return false
	}
	defer ns.Close()
	ok, err := firewall.Held(ctx, ns, false, r.chains()...)
	return err == nil && ok
}

// plugged reports whether a device leads from a namespace into its bridge.
func (f *Fabric) plugged(i Interface, pin string, links map[string]link.Link) bool {
	tap, bridge := links[i.tap()], links[i.Bridge]
	if tap.Alias != f.mark(i.ID) || tap.Master == 0 || tap.Master != bridge.Index || !tap.Up {
		return false
	}
	ns, err := netns.Open(f.pin(pin))
	if err != nil {
		return false
	}
	return ns.Close() == nil
}

// mendPorts fills sets, and writes the filter of ports anew if it is not what it
// was.
func (f *Fabric) mendPorts(ctx context.Context, s *session, found *firewall.Found) error {
	if !f.looked {
		return nil // nothing is known to be there, or it is looked at with the next port
	}
	if err := f.fillSets(s, slices.Sorted(maps.Keys(f.groups))); err != nil {
		return err
	}
	c := firewall.Change{Dispatch: f.chain("sg", ""), All: f.allPorts()}
	if ok, err := f.filters(s).Holds(ctx, s.ns, found, c, f.memory); ok || err != nil {
		return err
	}
	c.Fresh, c.Fill = true, c.All
	if err := f.change(ctx, s, c); err != nil {
		return err
	}
	if found, err := firewall.Look(ctx, s.ns); err == nil {
		_, _ = f.filters(s).Holds(ctx, s.ns, found, c, f.memory) // known from now on
	}
	return nil
}
