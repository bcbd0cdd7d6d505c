package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	netnslib "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// Conn is a connection to the routing subsystem of one network namespace. The
// thread that uses it may be anywhere. Safe for concurrent use.
type Conn struct {
	h    *netlink.Handle
	raw  map[int]*nl.SocketHandle
	note func(string)
}

// Open connects to the namespace ns, the caller's own when nil. note, if not
// nil, is called before each message that changes something (tests count). The
// caller closes the connection.
func Open(ns *os.File, note func(string)) (*Conn, error) {
	c := &Conn{note: note}
	err := netns.Do(ns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		s, err := nl.GetNetlinkSocketAt(netnslib.None(), netnslib.None(), unix.NETLINK_ROUTE)
		if err != nil {
			h.Close()
			return err
		}
		c.h, c.raw = h, map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() {
	c.h.Close()
	for _, s := range c.raw {
		s.Close()
	}
}

func (c *Conn) writes(what string) {
	if c.note != nil {
		c.note(what)
	}
}

// classify gives errno its class of errdefs.
func classify(op string, err error) error {
	var notFound netlink.LinkNotFoundError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &notFound), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ESRCH), errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s: %w: %w", op, err, errdefs.ErrNotFound)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s: %w: %w", op, err, errdefs.ErrAlreadyExists)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// ByName returns one link; errdefs.ErrNotFound if there is none.
func (c *Conn) ByName(name string) (Link, error) {
	l, err := c.h.LinkByName(name)
	if err != nil {
		return Link{}, classify("get link "+name, err)
	}
	return convert(l), nil
}

// List returns all links.
func (c *Conn) List() ([]Link, error) {
	for range 5 {
		ls, err := c.h.LinkList()
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		if err != nil {
			return nil, classify("list links", err)
		}
		out := make([]Link, len(ls))
		for i, l := range ls {
			out[i] = convert(l)
		}
		return out, nil
	}
	return nil, fmt.Errorf("list links: changed all the time: %w", errdefs.ErrUnavailable)
}

func convert(l netlink.Link) Link {
	a := l.Attrs()
	out := Link{
		Name: a.Name, Kind: l.Type(), Alias: a.Alias, Index: a.Index, Master: a.MasterIndex, MTU: a.MTU,
		MAC: a.HardwareAddr.String(), Up: a.Flags&net.FlagUp != 0, Running: a.OperState == netlink.OperUp,
		PeerIndex: a.ParentIndex, PeerNS: a.NetNsID,
	}
	if s := a.Statistics; s != nil {
		out.RxBytes, out.RxPackets, out.RxErrors, out.RxDrop = int64(s.RxBytes), int64(s.RxPackets), int64(s.RxErrors), int64(s.RxDropped)
		out.TxBytes, out.TxPackets, out.TxErrors, out.TxDrop = int64(s.TxBytes), int64(s.TxPackets), int64(s.TxErrors), int64(s.TxDropped)
	}
	return out
}

// Delete removes a link and its peer; absent is nil. It takes some 15 ms, in
// which the kernel waits for readers.
func (c *Conn) Delete(index int) error {
	c.writes("delete link")
	err := classify(fmt.Sprintf("delete link %d", index), c.h.LinkDel(dummy(index)))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// NSID returns the number of the namespace ns as seen from the connection's,
// -1 when it has none yet (then no link here has its peer there).
func (c *Conn) NSID(ns *os.File) (int, error) {
	id, err := c.h.GetNetNsIdByFd(int(ns.Fd()))
	return id, classify("get namespace id", err)
}

// AddRoute adds or replaces a route.
func (c *Conn) AddRoute(r Route) error {
	c.writes("add route")
	return classify("add route "+r.To.String(), c.h.RouteReplace(toRoute(r)))
}

// DeleteRoute removes a route of ours; absent is nil.
func (c *Conn) DeleteRoute(r Route) error {
	c.writes("delete route")
	err := classify("delete route "+r.To.String(), c.h.RouteDel(toRoute(r)))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

func toRoute(r Route) *netlink.Route {
	out := &netlink.Route{
		LinkIndex: r.Index, Protocol: Proto, Priority: r.Metric, Table: unix.RT_TABLE_MAIN,
		Dst: &net.IPNet{IP: r.To.Addr().AsSlice(), Mask: net.CIDRMask(r.To.Bits(), r.To.Addr().BitLen())},
	}
	if r.Via.IsValid() {
		out.Gw = r.Via.AsSlice()
	} else if r.To.Addr().Is4() {
		out.Scope = netlink.SCOPE_LINK
	}
	if r.OnLink {
		out.Flags = int(netlink.FLAG_ONLINK)
	}
	return out
}

// Routes returns the unicast routes of the main table that have one next hop.
func (c *Conn) Routes() ([]Route, error) {
	var out []Route
	for range 5 {
		rs, err := c.h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, 0)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		if err != nil {
			return nil, classify("list routes", err)
		}
		for _, r := range rs {
			if to, ok := prefixOf(r); ok && r.Type == unix.RTN_UNICAST {
				via, _ := netip.AddrFromSlice(r.Gw)
				out = append(out, Route{
					Index: r.LinkIndex, To: to, Via: via.Unmap(), Metric: r.Priority, Ours: r.Protocol == Proto,
				})
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("list routes: changed all the time: %w", errdefs.ErrUnavailable)
}

func prefixOf(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(r.Dst.IP)
	bits, size := r.Dst.Mask.Size()
	if size == 32 {
		ip = ip.Unmap()
	}
	return netip.PrefixFrom(ip, bits), ok && ip.BitLen() == size
}

// dummy names a link by its index only.
func dummy(index int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
}
