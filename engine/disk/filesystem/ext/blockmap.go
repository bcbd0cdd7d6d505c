package ext

import "slices"

// mapWalk goes through a block map: 12 blocks, then those of a block of
// numbers, of a block of such blocks, and one level more.
type mapWalk struct {
	f         *fileSystem
	from, end uint64
	visit     func(run) error
	total     uint64
	// path holds the blocks of numbers above, so that none is in itself.
	path []uint64
	cur  run // not yet visited
}

const directBlocks = 12

func (w *mapWalk) walk(area []byte) error {
	if err := w.numbers(area[:4*directBlocks], 0, 0); err != nil {
		return err
	}
	base, span := uint64(directBlocks), uint64(w.f.blockSize/4)
	for level := 1; level <= 3; level++ {
		at := 4 * (directBlocks + level - 1)
		if err := w.numbers(area[at:at+4], level, base); err != nil {
			return err
		}
		base += span
		span *= uint64(w.f.blockSize / 4)
	}
	return w.flush()
}

// numbers reads block numbers; each stands for (numbers in a block)^level
// blocks of the file, the first at base.
func (w *mapWalk) numbers(b []byte, level int, base uint64) error {
	span := uint64(1)
	for range level {
		span *= uint64(w.f.blockSize / 4)
	}
	first := uint64(0)
	if w.from > base {
		first = (w.from - base) / span
	}
	for i := first; i < uint64(len(b)/4); i++ {
		r := run{logical: base + i*span, count: 1, physical: uint64(le32(b, int(4*i)))}
		if r.logical >= w.end {
			return nil
		}
		if r.physical == 0 {
			continue
		}
		if err := w.f.claim(&w.total, r); err != nil {
			return err
		}
		if err := w.number(r, level); err != nil {
			return err
		}
	}
	return nil
}

func (w *mapWalk) number(r run, level int) error {
	if level == 0 {
		if w.cur.count > 0 && w.cur.end() == r.logical && w.cur.physical+w.cur.count == r.physical {
			w.cur.count++
			return nil
		}
		err := w.flush()
		w.cur = r
		return err
	}
	if slices.Contains(w.path, r.physical) {
		return corrupt("block map at block %d is in itself", r.physical)
	}
	b, err := w.f.disk.block(r.physical)
	if err != nil {
		return err
	}
	w.path = append(w.path, r.physical)
	err = w.numbers(b, level-1, r.logical)
	w.path = w.path[:len(w.path)-1]
	return err
}

func (w *mapWalk) flush() error {
	r := w.cur
	w.cur = run{}
	if r.count == 0 {
		return nil
	}
	if err := w.visit(r); err != nil {
		return &visitError{err}
	}
	return nil
}
