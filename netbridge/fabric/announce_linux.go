package fabric

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/netbridge/netns"
)

// announce tells a link who has addresses of IPv4 now (RFC 5227, section 3), so
// that nobody goes on sending to who had them before. Neighbours of IPv6 find
// out by themselves, and are told by the kernel of routers.
func announce(ns *os.File, index int, mac string, addresses []netip.Prefix) error {
	hw, err := net.ParseMAC(mac)
	if err != nil || len(addresses) == 0 {
		return nil //nolint:nilerr // a device that keeps the address it was born with
	}
	return netns.Do(ns, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("announce addresses: %w", err)
		}
		defer func() { _ = unix.Close(fd) }()
		for _, p := range addresses {
			if !p.Addr().Is4() {
				continue
			}
			// A device that is down tells when it is up.
			if err := unix.Sendto(fd, gratuitous(hw, p.Addr()), 0, &unix.SockaddrLinklayer{Ifindex: index}); err != nil && !errors.Is(err, unix.ENETDOWN) {
				return fmt.Errorf("announce %s: %w", p.Addr(), err)
			}
		}
		return nil
	})
}

// gratuitous is a frame with a request of ARP for one's own address (RFC 826).
func gratuitous(mac net.HardwareAddr, a netip.Addr) []byte {
	const ethernet, arp, ipv4, request = 1, 0x0806, 0x0800, 1
	b := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac...)
	b = binary.BigEndian.AppendUint16(b, arp)
	b = binary.BigEndian.AppendUint16(b, ethernet)
	b = binary.BigEndian.AppendUint16(b, ipv4)
	b = append(b, 6, 4, 0, request)
	b = append(append(b, mac...), a.AsSlice()...)
	return append(append(b, 0, 0, 0, 0, 0, 0), a.AsSlice()...)
}
