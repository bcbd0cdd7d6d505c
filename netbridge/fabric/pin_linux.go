package fabric

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/netbridge/link"
	"github.com/gantry-project/gantry/netbridge/netns"
)

// routerPin and servingPin name namespaces as Neutron's L3 and DHCP agents do.
func routerPin(id string) string  { return "qrouter-" + id }
func servingPin(id string) string { return "qdhcp-" + id }

func (f *Fabric) pin(name string) string { return filepath.Join(f.o.Dir, name) }

// pinned lists the namespaces here, or the remains of them.
func (f *Fabric) pinned() ([]string, error) {
	entries, err := os.ReadDir(f.o.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), routerPin("")) || strings.HasPrefix(e.Name(), servingPin("")) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// openPin opens a namespace, made and pinned when it is missing.
func (f *Fabric) openPin(name string) (*os.File, error) {
	path := f.pin(name)
	ns, err := netns.Open(path)
	if err == nil || !errors.Is(err, errdefs.ErrNotFound) {
		return ns, err
	}
	if err := os.MkdirAll(f.o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("pin namespace %s: %w", name, err)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0)
	if err != nil {
		return nil, fmt.Errorf("pin namespace %s: %w", name, err)
	}
	_ = file.Close() // only read
	ns, err = netns.New()
	if err != nil {
		return nil, err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), path, "", unix.MS_BIND, ""); err != nil {
		_ = ns.Close()
		return nil, fmt.Errorf("pin namespace %s: %w", name, err)
	}
	return ns, nil
}

// unpin lets go of a namespace; the kernel then ends it. Absent is nil.
func (f *Fabric) unpin(name string) error {
	path := f.pin(name)
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: not mounted
		return fmt.Errorf("unpin namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin namespace %s: %w", name, err)
	}
	return nil
}

// removePin ends what is answered in a namespace, and the namespace. Absent is
// nil.
func (f *Fabric) removePin(name string) error {
	if err := errors.Join(f.doors.shut(name), f.hush(name, nil)); err != nil {
		return err
	}
	if _, err := os.Lstat(f.pin(name)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ns, err := f.openPin(name)
	if err != nil {
		return err
	}
	defer ns.Close()
	in, err := link.Open(ns, nil)
	if err != nil {
		return err
	}
	defer in.Close()
	// The pairs end now, not when the kernel gets round to it.
	if err := tidy(in, nil); err != nil {
		return err
	}
	return f.unpin(name)
}
