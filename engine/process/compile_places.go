package process

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// idMaps ask for a user namespace.
type idMaps struct{ uids, gids []IDMap }

func (m *idMaps) equal(o *idMaps) bool {
	return m != nil && o != nil && slices.Equal(m.uids, o.uids) && slices.Equal(m.gids, o.gids)
}

// placeUsers makes launch make a user namespace; equal ones are made once.
func (p *Program) placeUsers(what string, maps *idMaps) value {
	for i, known := range p.places {
		if known.maps.equal(maps) {
			return num(firstFD + i)
		}
	}
	return p.addPlace(place{what: what, maps: maps})
}

// open opens or makes what a place without a file asks for.
func (one *place) open() (*os.File, error) {
	if one.maps != nil {
		f, err := makeUserNamespace(one.maps)
		if err != nil {
			return nil, fmt.Errorf("make %s: %w", one.what, err)
		}
		return f, nil
	}
	fd, err := linux.RetryEINTR(func() (int, error) {
		return unix.Open(one.path, one.flags|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalid)
		}
		return nil, fmt.Errorf("open %s %s: %w", one.what, one.path, err)
	}
	f := os.NewFile(uintptr(fd), one.path)
	if err := one.check(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// check reports whether f is what the place needs.
func (one *place) check(f *os.File) error {
	if one.device != nil {
		return one.device.is(f)
	}
	if one.foreign != "" && sameNamespace(f, one.foreign) {
		return invalid("sysctls of the host's own %s namespace", one.foreign)
	}
	return nil
}

// sameNamespace reports whether f is the runner's own namespace of a kind.
func sameNamespace(f *os.File, kind NamespaceKind) bool {
	var its, own unix.Stat_t
	return unix.Fstat(int(f.Fd()), &its) == nil && unix.Stat("/proc/self/ns/"+kind.info().file, &own) == nil &&
		its.Dev == own.Dev && its.Ino == own.Ino
}
