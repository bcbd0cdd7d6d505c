package fabric

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"

	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
	"github.com/gantry-project/gantry/netbridge/ra"
)

// advert is what a router says on one device.
type advert struct {
	index int // of the device
	says  ra.Advert
	conn  net.PacketConn
}

// advertise says on each interface of a router what it is to say there.
func (f *Fabric) advertise(ctx context.Context, in *link.Conn, ns *os.File, r Router) error {
	name := routerPin(r.ID)
	wanted := map[string]bool{}
	for _, i := range r.Interfaces {
		if i.Advert == nil {
			continue
		}
		l, err := in.ByName(i.Device)
		if err != nil {
			return err
		}
		if have, ok := f.adverts[name][i.Device]; ok && have.index == l.Index && reflect.DeepEqual(have.says, *i.Advert) {
			wanted[i.Device] = true
		}
	}
	if err := f.hush(name, wanted); err != nil {
		return err
	}
	for _, i := range r.Interfaces {
		if i.Advert == nil || wanted[i.Device] {
			continue
		}
		if err := f.say(ctx, in, ns, name, i); err != nil {
			return fmt.Errorf("interface %s: advertise router: %w", i.ID, err)
		}
	}
	return nil
}

func (f *Fabric) say(ctx context.Context, in *link.Conn, ns *os.File, name string, i Interface) error {
	l, err := in.ByName(i.Device)
	if err != nil {
		return err
	}
	var conn net.PacketConn
	err = netns.Do(ns, func() (err error) {
		conn, err = onDevice(i.Device).ListenPacket(ctx, "ip6:ipv6-icmp", "::")
		return err
	})
	if err != nil {
		return err
	}
	if f.adverts[name] == nil {
		f.adverts[name] = map[string]advert{}
	}
	now := advert{index: l.Index, says: *i.Advert, conn: conn}
	f.adverts[name][i.Device] = now
	f.doors.running.Go(func() { _ = ra.Serve(conn, now.index, now.says) }) // ends when it is closed, or with its device
	return nil
}

// hush ends what a router says, but for what is wanted.
func (f *Fabric) hush(name string, wanted map[string]bool) error {
	var errs []error
	for device, a := range f.adverts[name] {
		if !wanted[device] {
			delete(f.adverts[name], device)
			errs = append(errs, a.conn.Close())
		}
	}
	if len(f.adverts[name]) == 0 {
		delete(f.adverts, name)
	}
	return errors.Join(errs...)
}
