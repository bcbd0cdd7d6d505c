package fabric

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/netbridge/dhcp"
	"github.com/gantry-project/gantry/netbridge/dhcp6"
	"github.com/gantry-project/gantry/netbridge/dns"
	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// served is what answers guests of one network, on one device.
type served struct {
	index int // of the device
	// inside are the subnets whose guests are answered.
	inside atomic.Pointer[[]netip.Prefix]
	// stops end what listens; each is called once.
	stops []func() error
}

// contains reports whether an address is of the network.
func (s *served) contains(a netip.Addr) bool {
	return a.Is6() && a.IsLinkLocalUnicast() || slices.ContainsFunc(*s.inside.Load(), func(p netip.Prefix) bool { return p.Contains(a) })
}

func (s *served) stop() error {
	var errs []error
	for _, stop := range s.stops {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

// serve makes the namespace in which a network is served, and answers there.
func (f *Fabric) serve(ctx context.Context, s *session, n Network) error {
	if n.Serving == nil || n.Down {
		return f.unserve(n.ID)
	}
	name := servingPin(n.ID)
	ns, err := f.openPin(name)
	if err != nil {
		return err
	}
	defer ns.Close()
	// Nothing goes through, and nobody tells it where it is.
	if err := sysctl(ns, [2]string{"ipv4/ip_forward", "0"}, [2]string{"ipv6/conf/all/forwarding", "0"},
		[2]string{"ipv6/conf/all/accept_ra", "0"}, [2]string{"ipv6/conf/default/accept_ra", "0"},
		[2]string{"ipv6/conf/default/accept_dad", "0"}); err != nil {
		return err
	}
	in, err := link.Open(ns, nil)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := tidy(in, []Interface{*n.Serving}); err != nil {
		return err
	}
	if err := f.makeInterface(ctx, s, in, ns, *n.Serving); err != nil {
		return fmt.Errorf("interface %s: %w", n.Serving.ID, err)
	}
	if err := f.serveMetadata(ctx, in, ns, name, Place{Network: n.ID}); err != nil {
		return err
	}
	return f.answer(ctx, in, ns, n)
}

// answer listens for DHCP and names, unless it does.
func (f *Fabric) answer(ctx context.Context, in *link.Conn, ns *os.File, n Network) error {
	l, err := in.ByName(n.Serving.Device)
	if err != nil {
		return err
	}
	have := f.served[n.ID]
	if have != nil && have.index != l.Index { // what it listened on is gone
		delete(f.served, n.ID)
		if err := have.stop(); err != nil {
			return err
		}
		have = nil
	}
	inside := make([]netip.Prefix, 0, len(n.Serving.Addresses))
	for _, a := range n.Serving.Addresses {
		inside = append(inside, a.Masked())
	}
	if have != nil {
		have.inside.Store(&inside)
		return nil
	}
	now := &served{index: l.Index}
	now.inside.Store(&inside)
	for _, listen := range []func(context.Context, *os.File, Network, *served) error{f.answerDHCP, f.answerDHCP6, f.answerNames} {
		if err := listen(ctx, ns, n, now); err != nil {
			return errors.Join(err, now.stop())
		}
	}
	f.served[n.ID] = now
	return nil
}

func (f *Fabric) answerDHCP(ctx context.Context, ns *os.File, n Network, to *served) error {
	if f.o.Lease == nil {
		return nil
	}
	conn, err := listenUDP(ctx, ns, n.Serving.Device, "udp4", dhcpv4.ServerPort)
	if err != nil {
		return fmt.Errorf("dhcp: %w", err)
	}
	to.stops = append(to.stops, conn.Close)
	port := n.Serving.ID
	f.doors.running.Go(func() {
		// ends when it is closed, or with its device
		_ = dhcp.Serve(conn, func(mac net.HardwareAddr) (dhcp.Lease, bool) { return f.o.Lease(port, mac.String()) })
	})
	return nil
}

func (f *Fabric) answerDHCP6(ctx context.Context, ns *os.File, n Network, to *served) error {
	mac, err := net.ParseMAC(n.Serving.MAC)
	if f.o.Lease6 == nil || err != nil {
		return nil //nolint:nilerr // without a name of its own it is no server
	}
	conn, err := listenUDP(ctx, ns, n.Serving.Device, "udp6", dhcp6.ServerPort)
	if err != nil {
		return fmt.Errorf("dhcpv6: %w", err)
	}
	to.stops = append(to.stops, conn.Close)
	group := &net.UDPAddr{IP: dhcp6.Servers().AsSlice()}
	if err := ipv6.NewPacketConn(conn).JoinGroup(&net.Interface{Index: to.index}, group); err != nil {
		return fmt.Errorf("dhcpv6: %w", err)
	}
	port := n.Serving.ID
	server := dhcp6.Server{MAC: mac, Find: func(mac net.HardwareAddr) (dhcp6.Lease, bool) { return f.o.Lease6(port, mac.String()) }}
	f.doors.running.Go(func() { _ = server.Serve(conn) }) // as above
	return nil
}

func (f *Fabric) answerNames(ctx context.Context, ns *os.File, n Network, to *served) error {
	if f.o.Names == nil {
		return nil
	}
	const port = 53
	pc, err := listenUDP(ctx, ns, n.Serving.Device, "udp", port)
	if err != nil {
		return fmt.Errorf("names: %w", err)
	}
	var l net.Listener
	err = netns.Do(ns, func() (err error) {
		l, err = onDevice(n.Serving.Device).Listen(ctx, "tcp", ":"+strconv.Itoa(port))
		return err
	})
	if err != nil {
		return fmt.Errorf("names: %w", errors.Join(err, pc.Close()))
	}
	server := dns.New(dns.Options{
		Domain: f.o.Domain, Names: func() []dns.Name { return f.o.Names(n.ID) }, Inside: to.contains,
		Resolvers: cmp.Or(f.o.Resolvers, "/etc/resolv.conf"),
	})
	to.stops = append(to.stops, server.Serve(context.WithoutCancel(ctx), pc, l))
	return nil
}

// onDevice makes sockets that hear and speak on one device.
func onDevice(device string) *net.ListenConfig {
	return &net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bind error
		err := c.Control(func(fd uintptr) { bind = unix.BindToDevice(int(fd), device) })
		return errors.Join(err, bind)
	}}
}

func listenUDP(ctx context.Context, ns *os.File, device, network string, port int) (conn net.PacketConn, err error) {
	err = netns.Do(ns, func() (err error) {
		conn, err = onDevice(device).ListenPacket(ctx, network, ":"+strconv.Itoa(port))
		return err
	})
	return conn, err
}

// unserve ends what serves a network. Absent is nil.
func (f *Fabric) unserve(id string) error {
	if have := f.served[id]; have != nil {
		delete(f.served, id)
		if err := have.stop(); err != nil {
			return err
		}
	}
	return f.removePin(servingPin(id))
}
