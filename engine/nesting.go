package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/gantry-project/gantry/engine/cgroup"
	"github.com/gantry-project/gantry/engine/process"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// Nesting is ProfileSystem for who runs containers of its own inside: podman,
// docker, another engine of ours. docs/security.md says what it gives up.
//
//	/dev/.gantry  a whole proc and a whole sysfs that nobody gets to: the kernel
//	              lets a nested user namespace mount these only where it finds one
//	              without locked mounts on it (mount_too_revealing, fs/namespace.c)
//	/proc/sys     writable: what is not of the container's own namespaces belongs to
//	              the host's root, who has no number inside
//	devices       fuse and net/tun, where the host has them for everybody, as udev's
//	              rules want it: they are the host's nodes
//	capabilities  CAP_MKNOD besides
//	keys          the calls do not exist, instead of being refused: runtimes want a
//	              session key ring and do without one only of a kernel that has none
const nestingDir = "/dev/.gantry"

// nestingMounts are what /dev/.gantry holds, and the empty directory over it that
// only root may remove, as it may the masks; in a nested user namespace it is locked.
func nestingMounts() []process.Mount {
	whole := []string{"nosuid", "nodev", "noexec"}
	return []process.Mount{
		{Destination: nestingDir + "/proc", Type: "proc", Options: whole},
		{Destination: nestingDir + "/sys", Type: "sysfs", Options: whole},
		{Destination: nestingDir, Type: "tmpfs", Options: []string{"ro", "nosuid", "nodev", "noexec", "mode=0", "size=4k"}},
	}
}

// nestingDevices are the nodes that container engines need: file systems in user
// space, and interfaces of their own network namespaces
// (Documentation/admin-guide/devices.txt).
func nestingDevices() []process.Device {
	return []process.Device{
		{Path: "/dev/fuse", Type: 'c', Major: 10, Minor: 229},
		{Path: "/dev/net/tun", Type: 'c', Major: 10, Minor: 200},
	}
}

// nestingCapabilities are those that engines give their containers besides: with
// CAP_MKNOD nobody in a user namespace makes a device, but docker gives it to all
// containers and cannot give what it has not got.
var nestingCapabilities = append(slices.Clone(systemCapabilities), "CAP_MKNOD")

// nestingFilter is the filter of nesting.
var nestingFilter = sync.OnceValues(func() ([]process.SockFilter, error) {
	return filterFor(nestingCapabilities, "keyctl", "add_key", "request_key")
})

// profileFor is the profile that a request asks for by its own word and by nesting.
func profileFor(req StartRequest) (Profile, error) {
	switch {
	case !req.Nesting:
		return req.Profile, nil
	case req.Profile == ProfileInstance:
		return "", errdefs.WithPublic(fmt.Errorf("nesting in profile %s: %w", req.Profile, errdefs.ErrInvalid),
			"Containers inside need the system profile.")
	}
	return ProfileSystem, nil
}

// nest gives a Spec of ProfileSystem what containers inside need.
func nest(spec *process.Spec) (err error) {
	if spec.Seccomp, err = nestingFilter(); err != nil {
		return err
	}
	spec.Capabilities = nestingCapabilities
	spec.Mounts = append(slices.Clip(spec.Mounts), nestingMounts()...)
	spec.ReadonlyPaths = slices.DeleteFunc(slices.Clone(spec.ReadonlyPaths), func(p string) bool { return p == "/proc/sys" })
	for _, d := range nestingDevices() {
		switch st, err := os.Stat(d.Path); {
		case errors.Is(err, fs.ErrNotExist): // the host's kernel has it not, or has it as a module that nobody wanted
		case err != nil:
			return fmt.Errorf("device %s: %w", d.Path, err)
		case st.Mode()&0o666 == 0o666:
			spec.Devices = append(slices.Clip(spec.Devices), d)
		}
	}
	return nil
}

// withNesting adds the devices of nesting to limits that list devices.
func withNesting(l cgroup.Limits, nested bool) cgroup.Limits {
	if !nested || l.Devices == nil {
		return l
	}
	l.Devices = slices.Clip(l.Devices)
	for _, d := range nestingDevices() {
		l.Devices = append(l.Devices, cgroup.Device{Type: d.Type, Major: d.Major, Minor: d.Minor, Access: "rwm"})
	}
	return l
}
