package link

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"
)

// Attribute numbers that x/sys and the library lack (linux/if_addr.h).
const ifaProto = 11

// flagNoDAD is IFA_F_NODAD (linux/if_addr.h): usable at once.
const flagNoDAD = unix.IFA_F_NODAD

func (c *Conn) request(kind, flags int) *nl.NetlinkRequest {
	return &nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{Len: unix.SizeofNlMsghdr, Type: uint16(kind), Flags: unix.NLM_F_REQUEST | uint16(flags)},
		Sockets:  c.raw,
	}
}

// AddVeth makes a pair with both ends down, the peer in its namespace from the
// start: creating it here and moving it would cost a grace period of the
// kernel. errdefs.ErrAlreadyExists when one of the names is taken.
func (c *Conn) AddVeth(v Veth) error {
	c.writes("add veth")
	req := c.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(v.Name)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(v.Peer))
	if v.MTU != 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.MTU))))
		peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.MTU)))
	}
	if hw, err := net.ParseMAC(v.PeerMAC); err == nil {
		peer.AddRtAttr(unix.IFLA_ADDRESS, hw)
	}
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(v.PeerNS)))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return classify("add veth "+v.Name, err)
}

// AddBridge makes a bridge without spanning tree and without forward delay,
// down. errdefs.ErrAlreadyExists when the name is taken.
func (c *Conn) AddBridge(name string) error {
	return c.addKind("bridge", name, func(info *nl.RtAttr) {
		data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
		data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
		data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0))
	})
}

// addKind makes a device of a kind of the kernel's, down; fill says what that
// kind is told.
func (c *Conn) addKind(kind, name string, fill func(info *nl.RtAttr)) error {
	c.writes("add " + kind)
	req := c.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	fill(info)
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return classify("add "+kind+" "+name, err)
}

// KeepNothing makes a bridge forget at once where addresses are
// (IFLA_BR_AGEING_TIME 0): it floods, which between two ports costs nothing.
func (c *Conn) KeepNothing(bridge int) error {
	c.writes("set bridge")
	req := c.request(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(bridge)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_BR_AGEING_TIME, nl.Uint32Attr(0))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return classify(fmt.Sprintf("set ageing of bridge %d", bridge), err)
}

// Set changes a link in one message.
func (c *Conn) Set(index int, ch Change) error {
	c.writes("set link")
	req := c.request(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	if ch.Up || ch.Down {
		msg.Change = unix.IFF_UP
	}
	if ch.Up {
		msg.Flags = unix.IFF_UP
	}
	req.AddData(msg)
	if ch.Name != "" {
		req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(ch.Name)))
	}
	if ch.Alias != "" {
		req.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(ch.Alias)))
	}
	if ch.MAC != "" {
		hw, err := net.ParseMAC(ch.MAC)
		if err != nil {
			return fmt.Errorf("set link %d: %w", index, err)
		}
		req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, hw))
	}
	if ch.MTU != 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(ch.MTU))))
	}
	if ch.Master != 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(ch.Master))))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return classify(fmt.Sprintf("set link %d", index), err)
}

// PeerMAC reads the address of a veth's other end, wherever it is.
func (c *Conn) PeerMAC(l Link) (string, error) {
	req := c.request(unix.RTM_GETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(l.PeerIndex)
	req.AddData(msg)
	if l.PeerNS >= 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(l.PeerNS))))
	}
	ms, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil || len(ms) == 0 {
		return "", classify("get peer of link "+l.Name, err)
	}
	peer, err := netlink.LinkDeserialize(nil, ms[0])
	if err != nil {
		return "", fmt.Errorf("get peer of link %s: %w", l.Name, err)
	}
	return peer.Attrs().HardwareAddr.String(), nil
}

// AddAddress adds an address of ours, or takes it over if it is there. An IPv6
// one is usable at once (no duplicate address detection).
func (c *Conn) AddAddress(index int, p netip.Prefix) error {
	c.writes("add address")
	req := c.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	c.address(req, index, p)
	req.AddData(nl.NewRtAttr(ifaProto, nl.Uint8Attr(Proto)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return classify("add address "+p.String(), err)
}

// DeleteAddress removes an address; absent is nil.
func (c *Conn) DeleteAddress(index int, p netip.Prefix) error {
	c.writes("delete address")
	req := c.request(unix.RTM_DELADDR, unix.NLM_F_ACK)
	c.address(req, index, p)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err == unix.EADDRNOTAVAIL {
		return nil
	}
	return classify("delete address "+p.String(), err)
}

func (c *Conn) address(req *nl.NetlinkRequest, index int, p netip.Prefix) {
	family := unix.AF_INET6
	if p.Addr().Is4() {
		family = unix.AF_INET
	}
	msg := nl.NewIfAddrmsg(family)
	msg.Index = uint32(index)
	msg.Prefixlen = uint8(p.Bits())
	if family == unix.AF_INET6 {
		msg.Flags = flagNoDAD
	}
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, p.Addr().AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, p.Addr().AsSlice()))
	if b, ok := broadcast(p); ok {
		req.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, b.AsSlice()))
	}
}

// broadcast is the last address of an IPv4 network that has one (RFC 3021).
func broadcast(p netip.Prefix) (netip.Addr, bool) {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}, false
	}
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b), true
}

// Addresses returns all addresses of the namespace.
func (c *Conn) Addresses() ([]Address, error) {
	req := c.request(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
	ms, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	if err != nil {
		return nil, classify("list addresses", err)
	}
	var out []Address
	for _, m := range ms {
		msg := nl.DeserializeIfAddrmsg(m)
		attrs, err := nl.ParseRouteAttr(m[msg.Len():])
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		a := Address{Index: int(msg.Index)}
		var local, address netip.Addr
		for _, at := range attrs {
			switch at.Attr.Type {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(at.Value)
			case unix.IFA_ADDRESS:
				address, _ = netip.AddrFromSlice(at.Value)
			case ifaProto:
				a.Ours = len(at.Value) == 1 && at.Value[0] == Proto
			}
		}
		if !local.IsValid() {
			local = address // IPv6 has no IFA_LOCAL unless it is point to point
		}
		a.Prefix = netip.PrefixFrom(local, int(msg.Prefixlen))
		out = append(out, a)
	}
	return out, nil
}
