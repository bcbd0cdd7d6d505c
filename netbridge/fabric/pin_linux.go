package fabric

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// pinPrefix is what Neutron's L3 agent calls its namespaces.
const pinPrefix = "qrouter-"

func (f *Fabric) pin(id string) string { return filepath.Join(f.o.Dir, pinPrefix+id) }

// pinned lists routers that have a namespace here, or the remains of one.
func (f *Fabric) pinned() ([]string, error) {
	entries, err := os.ReadDir(f.o.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list namespaces of routers: %w", err)
	}
	var out []string
	for _, e := range entries {
		if id, ok := strings.CutPrefix(e.Name(), pinPrefix); ok {
			out = append(out, id)
		}
	}
	return out, nil
}

// openPin opens the namespace of a router, made and pinned when it is missing.
func (f *Fabric) openPin(id string) (*os.File, error) {
	path := f.pin(id)
	ns, err := netns.Open(path)
	if err == nil || !errors.Is(err, errdefs.ErrNotFound) {
		return ns, err
	}
	if err := os.MkdirAll(f.o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("pin namespace of router %s: %w", id, err)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0)
	if err != nil {
		return nil, fmt.Errorf("pin namespace of router %s: %w", id, err)
	}
	_ = file.Close() // only read
	ns, err = netns.New()
	if err != nil {
		return nil, err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), path, "", unix.MS_BIND, ""); err != nil {
		_ = ns.Close()
		return nil, fmt.Errorf("pin namespace of router %s: %w", id, err)
	}
	return ns, nil
}

// unpin lets go of a namespace; the kernel then ends it. Absent is nil.
func (f *Fabric) unpin(id string) error {
	path := f.pin(id)
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: not mounted
		return fmt.Errorf("unpin namespace of router %s: %w", id, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin namespace of router %s: %w", id, err)
	}
	return nil
}
