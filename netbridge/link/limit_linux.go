package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What is ours: a token bucket with this handle, and the filter of this
// priority among those of what a device receives (linux/pkt_sched.h). Neutron's
// linuxbridge agent has priority 49 there, and leaves numbers to the kernel.
const (
	limitHandle   = 0x6761 << 16
	redirectOrder = 0x6761
)

// ingressHandle is of what holds the filters of what a device receives.
const ingressHandle = 0xffff << 16

// framing is the kind of link that a rate counts for (TC_LINKLAYER_ETHERNET).
const framing = 1

// SetLimit makes what a device sends pass at that rate, in place of what there
// is.
func (c *Conn) SetLimit(index int, l Limit) error {
	c.writes("set limit")
	req := c.request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Handle: limitHandle, Parent: netlink.HANDLE_ROOT})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("tbf")))
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	opt := nl.TcTbfQopt{Limit: uint32(l.Bytes)}
	opt.Rate = nl.TcRateSpec{Linklayer: framing, Rate: uint32(l.Rate)}
	if l.Peak != 0 {
		opt.Peakrate = nl.TcRateSpec{Linklayer: framing, Rate: uint32(l.Peak)}
	}
	options.AddRtAttr(nl.TCA_TBF_PARMS, opt.Serialize())
	options.AddRtAttr(nl.TCA_TBF_BURST, nl.Uint32Attr(uint32(l.Burst)))
	if l.Peak != 0 {
		options.AddRtAttr(nl.TCA_TBF_PBURST, nl.Uint32Attr(uint32(min(l.Burst, mostAtPeak))))
	}
	req.AddData(options)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return classify(fmt.Sprintf("limit link %d", index), err)
}

// mostAtPeak is how much passes in one go at the peak rate, in bytes.
const mostAtPeak = 80 << 10

// Limit returns the limit of what a device sends; ours is false for none, and
// for one that is not.
func (c *Conn) Limit(index int) (l Limit, ours bool, err error) {
	req := c.request(unix.RTM_GETQDISC, unix.NLM_F_ECHO|unix.NLM_F_ACK) // without the echo the kernel tells others only
	req.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: netlink.HANDLE_ROOT})
	ms, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
	if errors.Is(err, unix.ENOENT) {
		return l, false, nil
	}
	if err != nil || len(ms) == 0 {
		return l, false, classify(fmt.Sprintf("get limit of link %d", index), err)
	}
	msg := nl.DeserializeTcMsg(ms[0])
	if msg.Handle != limitHandle {
		return l, false, nil
	}
	attrs, err := nl.ParseRouteAttr(ms[0][msg.Len():])
	if err != nil {
		return l, false, fmt.Errorf("get limit of link %d: %w", index, err)
	}
	for _, a := range attrs {
		if a.Attr.Type != nl.TCA_OPTIONS {
			continue
		}
		options, err := nl.ParseRouteAttr(a.Value)
		if err != nil {
			return l, false, fmt.Errorf("get limit of link %d: %w", index, err)
		}
		for _, o := range options {
			if o.Attr.Type == nl.TCA_TBF_PARMS && len(o.Value) >= nl.SizeofTcTbfQopt {
				opt := nl.DeserializeTcTbfQopt(o.Value)
				l = Limit{Rate: int64(opt.Rate.Rate), Peak: int64(opt.Peakrate.Rate), Bytes: int64(opt.Limit)}
				ours = true
			}
		}
	}
	return l, ours, nil
}

// DeleteLimit takes away a limit of ours.
func (c *Conn) DeleteLimit(index int) error {
	_, ours, err := c.Limit(index)
	if err != nil || !ours {
		return err
	}
	c.writes("delete limit")
	req := c.request(unix.RTM_DELQDISC, unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Handle: limitHandle, Parent: netlink.HANDLE_ROOT})
	_, err = req.Execute(unix.NETLINK_ROUTE, 0)
	return classify(fmt.Sprintf("delete limit of link %d", index), err)
}

// AddIFB makes a device that gives back what it is given, down
// (Documentation/networking/ifb of Linux). errdefs.ErrAlreadyExists when the
// name is taken.
func (c *Conn) AddIFB(name string) error {
	return c.addKind("ifb", name, func(*nl.RtAttr) {})
}

// Redirect leads what a device receives to another one first, 0 to none.
// Filters of others stay, and come before.
func (c *Conn) Redirect(from, to int) error {
	now, err := c.Redirected(from)
	if err != nil || now == to {
		return err
	}
	c.writes("redirect")
	what := fmt.Sprintf("redirect link %d to %d", from, to)
	attrs := netlink.FilterAttrs{LinkIndex: from, Parent: ingressHandle, Priority: redirectOrder, Protocol: unix.ETH_P_ALL}
	if now != 0 {
		if err := c.h.FilterDel(&netlink.U32{FilterAttrs: attrs}); err != nil && !errors.Is(err, unix.ENOENT) {
			return classify(what, err)
		}
	}
	if to == 0 {
		return c.dropIngress(from)
	}
	err = c.h.QdiscAdd(ingress(from))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return classify(what, err)
	}
	return classify(what, c.h.FilterAdd(&netlink.U32{FilterAttrs: attrs, Actions: []netlink.Action{netlink.NewMirredAction(to)}}))
}

// gone stands for a device that was there.
const gone = -1

// Redirected is where what a device receives is led by us, 0 for nowhere.
func (c *Conn) Redirected(from int) (int, error) {
	filters, err := c.filters(from)
	if err != nil {
		return 0, err
	}
	for _, f := range filters {
		if u, ok := f.(*netlink.U32); ok && u.Attrs().Priority == redirectOrder {
			if u.RedirIndex == 0 {
				return gone, nil
			}
			return u.RedirIndex, nil
		}
	}
	return 0, nil
}

func (c *Conn) filters(from int) ([]netlink.Filter, error) {
	for range 5 {
		filters, err := c.h.FilterList(dummy(from), ingressHandle)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		if errors.Is(err, unix.EINVAL) { // no such parent
			return nil, nil
		}
		return filters, classify(fmt.Sprintf("list filters of link %d", from), err)
	}
	return nil, fmt.Errorf("list filters of link %d: changed all the time", from)
}

// dropIngress takes away what holds filters when there are none.
func (c *Conn) dropIngress(from int) error {
	filters, err := c.filters(from)
	if err != nil || len(filters) > 0 {
		return err
	}
	err = c.h.QdiscDel(ingress(from))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return classify(fmt.Sprintf("end redirect of link %d", from), err)
}

func ingress(index int) *netlink.Ingress {
	return &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: ingressHandle, Parent: netlink.HANDLE_INGRESS}}
}
