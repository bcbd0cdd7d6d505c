package xfs

import (
	"fmt"
	"io"
)

const (
	pageSize = 64 << 10
	maxPages = 64 // 4 MiB
)

// device is the image behind a cache of pages, for what is small and near to
// what was read before: inodes, directories, trees. Contents of files go past
// the cache.
type device struct {
	r     io.ReaderAt
	size  int64
	pages map[int64]*page
	ring  []*page // the clock's face
	hand  int
	// replayed holds the sectors that the log has in a newer form.
	replayed map[int64]*[sector]byte
}

type page struct {
	number int64
	used   bool
	data   []byte
}

func newDevice(r io.ReaderAt, size int64) *device {
	return &device{r: r, size: size, pages: map[int64]*page{}}
}

// read fills p from offset off, by way of the cache.
func (d *device) read(p []byte, off int64) error {
	if off < 0 || off > d.size || int64(len(p)) > d.size-off {
		return corrupt("%d bytes at %d are beyond the end of the image at %d", len(p), off, d.size)
	}
	if d.replayed != nil {
		defer d.overlay(p, off)
	}
	for len(p) > 0 {
		pg, err := d.page(off / pageSize)
		if err != nil {
			return err
		}
		n := copy(p, pg.data[off%pageSize:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// overlay replaces what the log has newer.
func (d *device) overlay(p []byte, off int64) {
	for at := off / sector; at*sector < off+int64(len(p)); at++ {
		if s := d.replayed[at]; s != nil {
			if skip := at*sector - off; skip >= 0 {
				copy(p[skip:], s[:])
			} else {
				copy(p, s[-skip:])
			}
		}
	}
}

// isReplayed says whether any of the bytes come from the log, in which case
// they have no checksum yet.
func (d *device) isReplayed(off int64, size int) bool {
	for at := off / sector; d.replayed != nil && at*sector < off+int64(size); at++ {
		if d.replayed[at] != nil {
			return true
		}
	}
	return false
}

// lay puts b over the image, which has these bytes, and returns about how much
// memory that took.
func (d *device) lay(b []byte, off int64) (int, error) {
	if d.replayed == nil {
		d.replayed = map[int64]*[sector]byte{}
	}
	before := len(d.replayed)
	for at := off / sector; at*sector < off+int64(len(b)); at++ {
		s := d.replayed[at]
		if s == nil {
			s = new([sector]byte)
			if err := d.read(s[:], at*sector); err != nil {
				return 0, err
			}
			d.replayed[at] = s
		}
		if skip := at*sector - off; skip >= 0 {
			copy(s[:], b[skip:])
		} else {
			copy(s[-skip:], b)
		}
	}
	return (len(d.replayed) - before) * (sector + 64), nil
}

// readData fills p from offset off, past the cache.
func (d *device) readData(p []byte, off int64) error {
	if off < 0 || off > d.size || int64(len(p)) > d.size-off {
		return corrupt("%d bytes at %d are beyond the end of the image at %d", len(p), off, d.size)
	}
	return d.fill(p, off)
}

func (d *device) fill(p []byte, off int64) error {
	n, err := d.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("xfs: reading %d bytes at %d: %w", len(p), off, err)
}

// page returns the page of that number, which the image has.
func (d *device) page(number int64) (*page, error) {
	if pg, ok := d.pages[number]; ok {
		pg.used = true
		return pg, nil
	}
	pg := d.victim()
	pg.data = pg.data[:min(pageSize, d.size-number*pageSize)]
	if err := d.fill(pg.data, number*pageSize); err != nil {
		pg.number = -1
		return nil, err
	}
	pg.number, pg.used = number, true
	d.pages[number] = pg
	return pg, nil
}

// victim returns a page that nothing refers to: a new one, or the next that
// was not used since the hand was here last.
func (d *device) victim() *page {
	if len(d.ring) < maxPages {
		pg := &page{data: make([]byte, pageSize)}
		d.ring = append(d.ring, pg)
		return pg
	}
	for {
		pg := d.ring[d.hand]
		d.hand = (d.hand + 1) % len(d.ring)
		if !pg.used {
			delete(d.pages, pg.number)
			return pg
		}
		pg.used = false
	}
}
