package fabric

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/netbridge/dhcp"
	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// leases are the sockets on which guests ask for their addresses, by router,
// device and its index: one for each interface of a router that leads inside.
// Changed with Fabric.mu held.
type leases map[string]net.PacketConn

// leaseKey begins with the router's part.
func leaseKey(router, device string, index int) string {
	return leaseKeys(router) + device + "/" + strconv.Itoa(index)
}

func leaseKeys(router string) string { return router + "/" }

// serveLeases answers on all interfaces of a router but the one that leads out.
func (f *Fabric) serveLeases(ctx context.Context, in *link.Conn, ns *os.File, r Router) error {
	wanted := map[string]bool{}
	for _, i := range r.Interfaces {
		if f.o.Lease == nil {
			break
		}
		l, err := in.ByName(i.Device)
		if err != nil {
			return err
		}
		key := leaseKey(r.ID, i.Device, l.Index)
		wanted[key] = true
		if f.leases[key] != nil {
			continue
		}
		conn, err := listenDHCP(ctx, ns, i.Device)
		if err != nil {
			return fmt.Errorf("interface %s: dhcp: %w", i.ID, err)
		}
		f.leases[key] = conn
		f.doors.running.Go(func() {
			// ends when it is closed, or with its device
			_ = dhcp.Serve(conn, func(mac net.HardwareAddr) (dhcp.Lease, bool) { return f.o.Lease(i.ID, mac.String()) })
		})
	}
	return f.leases.close(leaseKeys(r.ID), wanted)
}

// listenDHCP opens a socket that hears and speaks on one device.
func listenDHCP(ctx context.Context, ns *os.File, device string) (conn net.PacketConn, err error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bind error
		err := c.Control(func(fd uintptr) { bind = unix.BindToDevice(int(fd), device) })
		return errors.Join(err, bind)
	}}
	err = netns.Do(ns, func() (err error) {
		conn, err = config.ListenPacket(ctx, "udp4", ":"+strconv.Itoa(dhcpv4.ServerPort))
		return err
	})
	return conn, err
}

// close closes the sockets whose keys begin so, but for those that are wanted.
func (l leases) close(prefix string, wanted map[string]bool) error {
	var errs []error
	for key, conn := range l {
		if strings.HasPrefix(key, prefix) && !wanted[key] {
			delete(l, key)
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}
