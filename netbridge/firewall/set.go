package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/netbridge/netns"
)

// MaxSetName is the longest name of a set in bytes
// (Linux include/uapi/linux/netfilter/ipset/ip_set.h, IPSET_MAXNAMELEN - 1).
const MaxSetName = 31

// mostMembers is more than there will be.
const mostMembers = 1 << 20

// Sets makes sets of networks in the namespace ns, with the members given by
// the sets' names: all of one IP version, v6 or not.
func Sets(ns *os.File, v6 bool, sets map[string][]netip.Prefix) error {
	return inSets(ns, func(h *netlink.Handle) error {
		for name, members := range sets {
			if err := setOne(h, v6, name, members); err != nil {
				return fmt.Errorf("set %s: %w", name, err)
			}
		}
		return nil
	})
}

func inSets(ns *os.File, f func(h *netlink.Handle) error) error {
	return netns.Do(ns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("sets of addresses: %w", err)
		}
		defer h.Close()
		return f(h)
	})
}

func setOne(h *netlink.Handle, v6 bool, name string, members []netip.Prefix) error {
	family := uint8(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	have := map[netip.Prefix]bool{}
	found, err := h.IpsetList(name)
	if errors.Is(err, unix.ENOENT) {
		if err := h.IpsetCreate(name, "hash:net", netlink.IpsetCreateOptions{Family: family, MaxElements: mostMembers}); err != nil {
			return err
		}
	} else if err != nil {
		return err
	} else {
		for _, e := range found.Entries {
			if a, ok := netip.AddrFromSlice(e.IP); ok {
				bits := int(e.CIDR)
				if bits == 0 {
					bits = a.BitLen()
				}
				have[netip.PrefixFrom(a, bits)] = true
			}
		}
	}
	var want []netip.Prefix
	for _, m := range members {
		if m.Addr().Is6() == v6 {
			want = append(want, halves(m.Masked())...)
		}
	}
	for _, m := range want {
		if !have[m] {
			if err := h.IpsetAdd(name, entry(m)); err != nil {
				return err
			}
		}
	}
	for m := range have {
		if !slices.Contains(want, m) {
			if err := h.IpsetDel(name, entry(m)); err != nil {
				return err
			}
		}
	}
	return nil
}

// halves divides the network of everything, which a set cannot hold.
func halves(p netip.Prefix) []netip.Prefix {
	if p.Bits() > 0 {
		return []netip.Prefix{p}
	}
	high := netip.AddrFrom4([4]byte{128})
	if p.Addr().Is6() {
		high = netip.AddrFrom16([16]byte{128})
	}
	return []netip.Prefix{netip.PrefixFrom(p.Addr(), 1), netip.PrefixFrom(high, 1)}
}

func entry(p netip.Prefix) *netlink.IPSetEntry {
	return &netlink.IPSetEntry{IP: p.Addr().AsSlice(), CIDR: uint8(p.Bits()), Replace: true} //nolint:gosec // 0 to 128
}

// DropSets removes the sets whose names begin with prefix and are not kept. One
// that a rule still needs is emptied instead.
func DropSets(ns *os.File, prefix string, kept func(name string) bool) error {
	return inSets(ns, func(h *netlink.Handle) error {
		all, err := h.IpsetListAll()
		if err != nil {
			return fmt.Errorf("list sets of addresses: %w", err)
		}
		var errs []error
		for _, s := range all {
			if !strings.HasPrefix(s.SetName, prefix) || kept(s.SetName) {
				continue
			}
			err := h.IpsetDestroy(s.SetName)
			if err != nil {
				err = h.IpsetFlush(s.SetName)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("remove set %s: %w", s.SetName, err))
			}
		}
		return errors.Join(errs...)
	})
}
