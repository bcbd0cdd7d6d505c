package fabric

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	netnslib "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// Watch tells of devices of the host whose names begin with "tap": first of all
// that are up and in a bridge, then of each that gets there or goes. Both
// functions are called from one goroutine, which must not be kept waiting for
// long. It returns ctx's error when that ends, and errdefs.ErrUnavailable when
// messages were lost: call it again, and it tells all anew.
func (f *Fabric) Watch(ctx context.Context, all func(devices []string), seen func(device string, up bool)) error {
	s, err := f.connect()
	if err != nil {
		return fmt.Errorf("watch devices: %w", err)
	}
	defer s.close()
	updates, stop := make(chan netlink.LinkUpdate, 256), make(chan struct{})
	defer close(stop)
	lost := make(chan error, 1)
	options := netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) {
			select {
			case lost <- err:
			default: // one is enough
			}
		},
		ReceiveBufferSize: 1 << 20,
	}
	if s.ns != nil {
		h := netnslib.NsHandle(int(s.ns.Fd()))
		options.Namespace = &h
	}
	// Subscribed first, so that nothing happens unseen between list and watch.
	if err := netlink.LinkSubscribeWithOptions(updates, stop, options); err != nil {
		return fmt.Errorf("watch devices: %w", err)
	}
	links, err := s.host.List()
	if err != nil {
		return fmt.Errorf("watch devices: %w", err)
	}
	up := map[string]bool{}
	var names []string
	for _, l := range links {
		if strings.HasPrefix(l.Name, tapPrefix) && l.Up && l.Master != 0 {
			up[l.Name] = true
			names = append(names, l.Name)
		}
	}
	all(names)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-lost:
			return fmt.Errorf("watch devices: %w", errors.Join(err, errdefs.ErrUnavailable))
		case u, ok := <-updates:
			if !ok {
				return fmt.Errorf("watch devices: socket is closed: %w", errdefs.ErrUnavailable)
			}
			a := u.Attrs()
			if !strings.HasPrefix(a.Name, tapPrefix) {
				continue
			}
			now := u.Header.Type == unix.RTM_NEWLINK && a.Flags&1 != 0 && a.MasterIndex != 0
			if u.Header.Type == unix.RTM_DELLINK && u.Family == unix.AF_BRIDGE {
				continue // out of the bridge: told as a change of the link as well
			}
			if now != up[a.Name] {
				if up[a.Name] = now; !now {
					delete(up, a.Name)
				}
				seen(a.Name, now)
			}
		}
	}
}

const tapPrefix = "tap"
