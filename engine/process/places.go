package process

import "os"

// A place is a file that the child of a program has from its start: one that
// is open already, or one that launch opens for it.
type place struct {
	what  string // in errors: "network namespace"
	path  string
	flags int
	file  *os.File // instead of path; not closed by launch

	maps    *idMaps       // instead of path: a new user namespace
	device  *Device       // what must be at path
	foreign NamespaceKind // path must not be the runner's own namespace
}

// place makes launch open path; the value is the child's descriptor.
func (p *Program) place(what, path string, flags int) value {
	return p.addPlace(place{what: what, path: path, flags: flags})
}

// placeFile makes launch pass a file that is open already.
func (p *Program) placeFile(what string, file *os.File) value {
	return p.addPlace(place{what: what, file: file})
}

func (p *Program) addPlace(one place) value {
	p.places = append(p.places, one)
	return num(firstFD + len(p.places) - 1)
}

// openPlaces returns the files of places in their order, and those of them
// that the caller has to close, on an error too.
func openPlaces(places []place) (files, opened []*os.File, err error) {
	for _, one := range places {
		f := one.file
		if f == nil {
			if f, err = one.open(); err != nil {
				return nil, opened, err
			}
			opened = append(opened, f)
		} else if err = one.check(f); err != nil {
			return nil, opened, err
		}
		files = append(files, f)
	}
	return files, opened, nil
}
