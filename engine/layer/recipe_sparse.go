package layer

import (
	"archive/tar"
	"bytes"
	"strconv"
	"strings"
)

// sparseMap is what of the map of a sparse file has come. The format is GNU's
// 1.0: before the content stand decimal numbers, each with a line feed, filled
// to whole blocks: how many pieces there are, and of each its offset and length.
type sparseMap struct {
	// at is where in Recorder.raw the map begins; 0 for no map.
	at int
	// lines have come, of so many that the map has: 0 until the first is there.
	lines, all int
}

// mapBlock has a block of the map.
func (r *Recorder) mapBlock() error {
	m := &r.sparse
	m.lines += bytes.Count(r.raw[len(r.raw)-tarBlock:], []byte("\n"))
	if m.all == 0 && m.lines > 0 {
		first, _, _ := strings.Cut(string(r.raw[m.at:]), "\n")
		n, err := strconv.ParseUint(first, 10, 32)
		if err != nil || n > recipeMeta {
			return unrecorded("the map of a sparse file cannot be read")
		}
		m.all = 1 + 2*int(n)
	}
	switch {
	case len(r.raw)-r.entry > recipeMeta:
		return unrecorded("an entry has too large headers")
	case m.all == 0 || m.lines < m.all:
		return r.then(tarBlock, (*Recorder).mapBlock)
	}
	return r.item()
}

// parts has the headers and the map of a sparse file, which archive/tar has
// found right.
func (r *Recorder) parts(name string, hdr *tar.Header) error {
	stored, ok := storedSize(r.raw[r.sparse.at-tarBlock:], hdr)
	if !ok {
		return unrecorded("an entry cannot be read")
	}
	fields := strings.Split(string(r.raw[r.sparse.at:]), "\n")[1:r.sparse.all]
	sum := int64(len(r.raw) - r.sparse.at)
	if err := r.flush(); err != nil {
		return err
	}
	for i := 0; i < len(fields); i += 2 {
		offset, oerr := strconv.ParseInt(fields[i], 10, 64)
		length, lerr := strconv.ParseInt(fields[i+1], 10, 64)
		if oerr != nil || lerr != nil || offset < 0 || length < 0 || length > hdr.Size-offset {
			return unrecorded("the map of a sparse file cannot be read")
		}
		if length == 0 {
			continue
		}
		if err := r.part(name, offset, length, hdr.Size); err != nil {
			return err
		}
		sum += length
		r.skip += length
	}
	if sum != stored {
		return unrecorded("a sparse file and its map differ")
	}
	return r.then(int(padding(stored)), (*Recorder).between)
}

// storedSize is how much of the stream an entry is, by its last header, where
// the Header of a sparse file has the size of the file.
func storedSize(block []byte, hdr *tar.Header) (int64, bool) {
	text, base := hdr.PAXRecords["size"], 10
	if text == "" {
		text, base = strings.Trim(string(block[124:136]), " \x00"), 8
	}
	n, err := strconv.ParseInt(text, base, 64)
	return n, err == nil && n >= 0
}

// isSparse says whether an entry is a sparse file of any format.
func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range hdr.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}
