//go:build linux

package linux

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SoftwareChecksums makes the kernel finish the checksums of what a device
// sends, instead of leaving that to a device further on (ethtool_value and
// ifreq of include/uapi/linux/ethtool.h and if.h). The device is of the network
// namespace of the calling thread. What it is to be it may be already.
func SoftwareChecksums(device string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("checksums of %s: %w", device, err)
	}
	defer func() { _ = unix.Close(fd) }()
	value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_STXCSUM}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the kernel's union is longer than a pointer
	}
	if len(device) >= len(request.name) {
		return fmt.Errorf("checksums of %s: %w", device, unix.EINVAL)
	}
	copy(request.name[:], device)
	var pin runtime.Pinner
	pin.Pin(&value)
	defer pin.Unpin()
	request.data = unsafe.Pointer(&value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("checksums of %s: %w", device, errno)
	}
	return nil
}
