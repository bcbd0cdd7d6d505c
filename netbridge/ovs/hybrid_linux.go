package ovs

import (
	"errors"
	"fmt"
	"os"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"github.com/gantry-project/gantry/netbridge"
	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// hybrid makes the links of hybrid ports in a namespace.
type hybrid struct{ path string }

func newLinks(path string) links {
	if path == "" {
		path = "/proc/self/ns/net"
	}
	return hybrid{path}
}

func mark(owner, id string) string { return "gantry-ovs:" + owner + ":" + id }

// in runs f with a connection to the namespace.
func (h hybrid) in(f func(ns *os.File, c *link.Conn) error) error {
	ns, err := netns.Open(h.path)
	if err != nil {
		return err
	}
	defer ns.Close()
	c, err := link.Open(ns, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ns, c)
}

// ensure implements links.
func (h hybrid) ensure(owner, id string, mtu int) error {
	bridge, inside, outside := netbridge.HybridNames(id)
	return h.in(func(ns *os.File, c *link.Conn) error {
		b, err := h.ensureBridge(ns, c, bridge, mark(owner, id))
		if err != nil {
			return err
		}
		q, err := own(c, outside, mark(owner, id))
		if errors.Is(err, errdefs.ErrNotFound) {
			if err := c.AddVeth(link.Veth{Name: outside, MTU: mtu, Peer: inside, PeerNS: int(ns.Fd())}); err != nil { //nolint:gosec // a descriptor
				return err
			}
			q, err = c.ByName(outside)
		}
		if err != nil {
			return err
		}
		v, err := c.ByName(inside)
		if err != nil {
			return err
		}
		if v.Alias != "" && v.Alias != mark(owner, id) || q.PeerIndex != v.Index {
			return foreign(inside)
		}
		if err := c.Set(q.Index, link.Change{Alias: mark(owner, id), MTU: mtu, Up: true}); err != nil {
			return err
		}
		return c.Set(v.Index, link.Change{Alias: mark(owner, id), MTU: mtu, Master: b.Index, Up: true})
	})
}

// ensureBridge makes the bridge of one port (vif_plug_ovs/linux_net.py,
// ensure_bridge): it has no addresses, answers for none, and keeps none.
func (h hybrid) ensureBridge(ns *os.File, c *link.Conn, name, alias string) (link.Link, error) {
	b, err := own(c, name, alias)
	if errors.Is(err, errdefs.ErrNotFound) {
		if err := c.AddBridge(name); err != nil {
			return b, err
		}
		if b, err = c.ByName(name); err == nil {
			err = c.KeepNothing(b.Index)
		}
	}
	if err != nil {
		return b, err
	}
	err = netns.Do(ns, func() error {
		for path, value := range map[string]string{
			"ipv6/conf/" + name + "/disable_ipv6": "1", "ipv4/conf/" + name + "/arp_ignore": "1", "ipv4/conf/" + name + "/arp_announce": "2",
		} {
			f, err := os.OpenFile("/proc/sys/net/"+path, os.O_WRONLY, 0)
			if errors.Is(err, os.ErrNotExist) {
				continue // a kernel without IPv6
			}
			if err != nil {
				return fmt.Errorf("set net/%s: %w", path, err)
			}
			_, err = f.WriteString(value)
			if err := errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("set net/%s: %w", path, err)
			}
		}
		return nil
	})
	if err != nil {
		return b, err
	}
	return b, c.Set(b.Index, link.Change{Alias: alias, Up: true})
}

// own finds a link that is marked so, or not marked at all: a crash may have
// been faster than the mark.
func own(c *link.Conn, name, alias string) (link.Link, error) {
	l, err := c.ByName(name)
	if err == nil && l.Alias != "" && l.Alias != alias {
		return l, foreign(name)
	}
	return l, err
}

func foreign(name string) error {
	return fmt.Errorf("host device %s is not ours: %w", name, errdefs.ErrConflict)
}

// software implements links.
func (h hybrid) software(path, device string) error {
	if path == "" {
		return h.in(func(ns *os.File, _ *link.Conn) error {
			return netns.Do(ns, func() error { return linux.SoftwareChecksums(device) })
		})
	}
	var l link.Link
	if err := h.in(func(_ *os.File, c *link.Conn) (err error) {
		l, err = c.ByName(device)
		return err
	}); err != nil {
		return err
	}
	return hybrid{path}.in(func(ns *os.File, c *link.Conn) error {
		inside, err := c.List()
		if err != nil {
			return err
		}
		for _, g := range inside {
			if g.Index == l.PeerIndex {
				return netns.Do(ns, func() error { return linux.SoftwareChecksums(g.Name) })
			}
		}
		return fmt.Errorf("other end of %s: %w", device, errdefs.ErrNotFound)
	})
}

// remove implements links.
func (h hybrid) remove(owner, id string) error {
	bridge, _, outside := netbridge.HybridNames(id)
	return h.in(func(_ *os.File, c *link.Conn) error {
		var errs []error
		for _, name := range []string{outside, bridge} {
			l, err := c.ByName(name)
			switch {
			case errors.Is(err, errdefs.ErrNotFound):
			case err != nil:
				errs = append(errs, err)
			case l.Alias == mark(owner, id):
				errs = append(errs, c.Delete(l.Index))
			}
		}
		return errors.Join(errs...)
	})
}
